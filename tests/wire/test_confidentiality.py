# SPDX-License-Identifier: Apache-2.0
"""No prompt, answer, key or body of a backend's gets into a log or a status, whatever goes wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from pydantic import SecretStr

from llm_gateway.admission import Admission, Limits
from llm_gateway.health import HealthBoard
from llm_gateway.server import Server, ServerOptions
from llm_gateway.servicer import SERVICE, LLMServicer
from llm_gateway.simulator import Behaviour, Fault, Options, Simulator
from llm_gateway.v1 import llm_service_pb2, llm_service_pb2_grpc, message_pb2
from tests.kit.calls import chat_request, until
from tests.kit.gateway import failure_of, start_gateway
from tests.kit.logs import captured_logs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PROMPT, ANSWER, KEY, BODY = "canary-prompt", "canary-answer", "canary-key", "canary-body"
CANARY = "canary"
BODIES = {
    "openai": {"error": {"message": BODY, "type": BODY, "param": BODY, "code": BODY}},
    "flat": {"object": "error", "message": BODY, "type": "BadRequestError", "code": 400},
    "fastapi": {"detail": [{"msg": BODY, "input": PROMPT}]},
    "text": BODY,
}
REFUSALS = {
    f"{status} {shape}": Behaviour(fault=Fault.HTTP, status=status, body=json.dumps(body).encode())
    for status in (400, 401, 404, 422, 429, 500, 503)
    for shape, body in BODIES.items()
}
EARLY = (Fault.CUT, Fault.STALL, Fault.ERROR_EVENT, Fault.GARBAGE, Fault.RESET)
FAULTS = {
    f"{fault} after {after}": Behaviour(
        fault=fault, after=after, seconds=0.2, text=f" {ANSWER}" * 5, body=BODY.encode()
    )
    for fault in Fault
    if fault is not Fault.HTTP
    for after in (0, 2)
    if after or fault in EARLY
}
TROUBLES = REFUSALS | FAULTS


def confidential_request() -> llm_service_pb2.ChatCompletionRequest:
    """A request with a secret wherever there is room for one."""
    request = chat_request(PROMPT, stop=[f"{PROMPT}-stop"])
    request.messages.append(message_pb2.Message(role=message_pb2.ROLE_SYSTEM, content=PROMPT))
    request.tools.add(name="look_up", description=PROMPT, parameters=json.dumps({"description": PROMPT}))
    return request


async def told(call: Any) -> str:
    """What a caller is told beside the answer itself: the status and the metadata."""
    try:
        if isinstance(call, grpc.aio.UnaryStreamCall):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError:
        pass
    return repr([await call.details(), await call.initial_metadata(), await call.trailing_metadata()])


@pytest.mark.parametrize("behaviour", TROUBLES.values(), ids=TROUBLES.keys())
async def test_nothing_confidential_leaves_by_a_log_or_a_status(behaviour: Behaviour) -> None:
    options = Options(api_key=KEY, tool_parser=True)
    key, timeouts = SecretStr(KEY), {"idle_ms": 100, "first_token_ms": 100}
    with captured_logs() as logs:
        async with (
            Simulator(options) as simulator,
            start_gateway(simulator.url, vllm_api_key=key, timeouts=timeouts) as gateway,
        ):
            simulator.script(*[behaviour] * 2)
            streamed = await told(gateway.stub.ChatCompletionStream(confidential_request(), timeout=30))
            whole = await told(gateway.stub.ChatCompletion(confidential_request(), timeout=30))
            await until(lambda: len(logs.calls) == 2)

    assert simulator.statistics().faults
    assert CANARY not in logs.text
    assert CANARY not in streamed + whole


async def test_a_key_that_the_backend_refuses_is_not_told() -> None:
    with captured_logs() as logs:
        async with (
            Simulator(Options(api_key="another")) as simulator,
            start_gateway(simulator.url, vllm_api_key=SecretStr(KEY), default_model="sim") as gateway,
        ):
            said = await told(gateway.stub.ChatCompletion(confidential_request(), timeout=30))
            await until(lambda: logs.calls)

    assert logs.calls[0]["reason"] == "BACKEND_REFUSED"
    assert simulator.requests[-1].headers["authorization"] == f"Bearer {KEY}"
    assert CANARY not in logs.text + said


@pytest.mark.parametrize("rpc", ["ChatCompletion", "ChatCompletionStream"])
async def test_bytes_that_are_no_request_are_not_told(rpc: str) -> None:
    with captured_logs() as logs:
        async with start_gateway("http://127.0.0.1:9") as gateway:
            method: Any = gateway.channel.unary_unary(f"/{SERVICE}/{rpc}")
            said = await told(method(f"\x0a\xff{PROMPT}".encode("latin-1")))
            await until(lambda: logs.calls)

    assert logs.calls[0]["reason"] == "INVALID_REQUEST"
    assert CANARY not in logs.text + said


# ------------------------------------------------------------------------------------------------------------ our bugs


class BrokenGateway:
    """A collaborator with a bug."""

    async def stream(self, *_: object) -> None:
        raise KeyError(PROMPT)

    async def complete(self, *_: object) -> None:
        raise KeyError(PROMPT)

    async def list_models(self, *_: object) -> None:
        raise KeyError(PROMPT)

    async def count_tokens(self, *_: object) -> None:
        raise KeyError(PROMPT)


async def healthy() -> bool:
    return True


@pytest.fixture
async def broken() -> AsyncIterator[llm_service_pb2_grpc.LLMServiceAsyncStub]:
    """A stub of a server whose every call runs into a bug."""
    servicer = LLMServicer(BrokenGateway(), max_message_bytes=10**6, extensions=())  # type: ignore[arg-type]  # broken
    health = HealthBoard(SERVICE, healthy, interval=60)
    options = ServerOptions(host="127.0.0.1", port=0)
    server = Server(servicer, admission=Admission(Limits()), health=health, options=options, timeout=30)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield llm_service_pb2_grpc.LLMServiceStub(channel)
    await server.stop()


@pytest.mark.parametrize("rpc", ["ChatCompletion", "ChatCompletionStream", "ListModels", "CountTokens"])
async def test_a_bug_is_told_to_the_caller_by_its_id_and_to_the_log_by_its_place(
    broken: llm_service_pb2_grpc.LLMServiceAsyncStub, rpc: str
) -> None:
    request = {
        "ListModels": llm_service_pb2.ListModelsRequest(),
        "CountTokens": llm_service_pb2.CountTokensRequest(prompt="hello"),
    }.get(rpc, chat_request())
    with captured_logs() as logs:
        call = getattr(broken, rpc)(request, metadata=(("x-request-id", "find-me"),))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (call.read() if rpc.endswith("Stream") else call)
        await until(lambda: logs.calls)

    failure = failure_of(caught.value)
    assert (failure.code, failure.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert failure.message == "The gateway failed. Its log has the cause, under the request id."
    assert failure.trailers["x-request-id"] == failure.info.metadata["request_id"] == "find-me"
    assert CANARY not in repr(failure)
    assert CANARY not in logs.text
    [bug] = [line for line in logs.lines if "traceback" in line]
    assert (bug["level"], bug["request_id"], bug["rpc"]) == ("ERROR", "find-me", rpc)
    assert bug["traceback"].startswith("builtins.KeyError\n")
    assert "servicer.py" in bug["traceback"]
    assert [(line["status"], line["reason"], line["level"]) for line in logs.calls] == [
        ("INTERNAL", "INTERNAL", "ERROR")
    ]
