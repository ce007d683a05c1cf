# SPDX-License-Identifier: Apache-2.0
"""One line for every call, however it ends; it says how."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from llm_gateway.interceptors.access_log import AccessLog
from llm_gateway.observability.call import CURRENT_CALL, Call
from llm_gateway.observability.journal import Journal
from llm_gateway.simulator import Behaviour, Fault
from llm_gateway.v1 import llm_service_pb2 as pb
from tests.kit.calls import chat_request, stream, unary, until
from tests.kit.gateway import start_gateway
from tests.kit.logs import captured_logs
from tests.kit.scripted import STREAM_HEAD, Pause, ScriptedBackend, Step, chunk
from tests.kit.waiting import settled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_gateway.simulator import Simulator
    from tests.kit.gateway import RunningGateway
    from tests.kit.logs import Logs

FIELDS = {
    "timestamp", "level", "logger", "message", "service", "request_id", "rpc", "model", "backend", "status", "reason",
    "timeout_ms", "vllm_url", "prompt_tokens", "completion_tokens", "usage_estimated", "attempts",
    "time_to_first_token_ms", "duration_ms",
}  # fmt: skip


@pytest.fixture
def logs() -> Iterator[Logs]:
    """The log of this test, at every level."""
    with captured_logs() as logs:
        yield logs


async def line_of(logs: Logs) -> dict[str, Any]:
    """The line of the only call."""
    await until(lambda: logs.calls)
    [line] = logs.calls
    return line


async def test_a_call_that_went_well_is_told_with_what_it_cost(
    gateway: RunningGateway, simulator: Simulator, logs: Logs
) -> None:
    outcome = await stream(gateway, max_tokens=5, timeout=30)
    line = await line_of(logs)

    assert set(line) == FIELDS
    assert (line["status"], line["reason"], line["level"]) == ("OK", None, "INFO")
    assert (line["rpc"], line["request_id"]) == ("ChatCompletionStream", outcome.started.request_id)
    assert (line["model"], line["backend"], line["vllm_url"]) == ("sim", "vllm", simulator.url)
    usage = outcome.completed.usage
    assert (line["prompt_tokens"], line["completion_tokens"]) == (usage.prompt_tokens, usage.completion_tokens)
    assert (line["usage_estimated"], line["attempts"]) == (False, 1)
    assert 0 < line["time_to_first_token_ms"] <= line["duration_ms"]
    assert 29_000 < line["timeout_ms"] <= 30_000


async def test_every_rpc_is_told(gateway: RunningGateway, logs: Logs) -> None:
    stub = gateway.stub
    await stub.ChatCompletion(chat_request())
    await stub.Generate(pb.GenerateRequest(prompt="hello"))
    await stub.ListModels(pb.ListModelsRequest())
    await stub.CountTokens(pb.CountTokensRequest(prompt="hello"))
    async for _ in stub.StreamGenerate(pb.GenerateRequest(prompt="hello")):
        pass
    await stream(gateway)
    await until(lambda: len(logs.calls) == 6)

    assert {(line["rpc"], line["status"]) for line in logs.calls} == {
        (rpc.name, "OK") for rpc in pb.DESCRIPTOR.services_by_name["LLMService"].methods
    }


@pytest.mark.parametrize(
    ("behaviour", "status", "reason", "attempts"),
    [
        (Behaviour(fault=Fault.HTTP, status=400), "INVALID_ARGUMENT", "INVALID_REQUEST", 1),
        (Behaviour(fault=Fault.HTTP, status=401), "INTERNAL", "BACKEND_REFUSED", 1),
        (Behaviour(fault=Fault.CUT, after=2), "ABORTED", "STREAM_INTERRUPTED", 1),
        (Behaviour(fault=Fault.GARBAGE, after=2), "ABORTED", "STREAM_CORRUPTED", 1),
        (Behaviour(fault=Fault.STALL, after=2), "ABORTED", "STREAM_STALLED", 1),
        (Behaviour(fault=Fault.HTTP, status=500), "OK", None, 2),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_a_call_that_failed_is_told_with_its_reason(
    simulator: Simulator, logs: Logs, behaviour: Behaviour, status: str, reason: str | None, attempts: int
) -> None:
    simulator.script(behaviour)
    async with start_gateway(simulator.url, timeouts={"idle_ms": 100}) as gateway:
        await stream(gateway)
    line = await line_of(logs)

    assert (line["status"], line["reason"], line["attempts"]) == (status, reason, attempts)
    assert line["level"] == {"OK": "INFO", "INTERNAL": "ERROR"}.get(status, "WARNING")


@pytest.mark.parametrize("rpc", ["ChatCompletion", "ChatCompletionStream"])
async def test_a_request_that_was_refused_is_told(gateway: RunningGateway, logs: Logs, rpc: str) -> None:
    call = getattr(gateway.stub, rpc)(pb.ChatCompletionRequest(model="sim"))
    assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT

    line = await line_of(logs)
    assert (line["rpc"], line["status"], line["reason"]) == (rpc, "INVALID_ARGUMENT", "INVALID_REQUEST")
    assert (line["model"], line["backend"], line["attempts"]) == ("sim", None, 0)
    assert line["time_to_first_token_ms"] is None


@pytest.mark.parametrize("rpc", ["ChatCompletion", "ChatCompletionStream"])
async def test_a_caller_who_left_is_told_as_one_who_left(
    gateway: RunningGateway, simulator: Simulator, logs: Logs, rpc: str
) -> None:
    """It is nobody's failure: there is no reason for it, and what it cost until then is accounted."""
    simulator.script(Behaviour(fault=Fault.STALL, after=2))
    call = getattr(gateway.stub, rpc)(chat_request(), timeout=60)
    await simulator.wait_for(lambda now: Fault.STALL in now.faults)
    if rpc.endswith("Stream"):
        await call.read()

    call.cancel()

    line = await line_of(logs)
    assert (line["status"], line["reason"], line["level"]) == ("CANCELLED", None, "INFO")
    assert (line["model"], line["usage_estimated"], line["attempts"]) == ("sim", True, 1)


async def test_a_caller_who_left_while_a_write_waited_for_it_is_no_bug(logs: Logs) -> None:
    """gRPC fails the write; that is how the gateway hears of it first."""
    script: list[Step] = [STREAM_HEAD, *[chunk("x" * 65_536)] * 1000, Pause()]
    async with ScriptedBackend(script) as backend, start_gateway(backend.url) as gateway:
        call = gateway.stub.ChatCompletionStream(chat_request(), timeout=60)
        await call.read()
        await settled(lambda: backend.sent)

        call.cancel()
        line = await line_of(logs)

    assert (line["status"], line["reason"]) == ("CANCELLED", None)
    assert "Traceback" not in logs.text


async def test_a_deadline_of_the_gateways_is_told(simulator: Simulator, logs: Logs) -> None:
    simulator.script(Behaviour(fault=Fault.STALL))
    async with start_gateway(simulator.url, timeout_ms=100) as gateway:
        await unary(gateway)
    line = await line_of(logs)

    assert (line["status"], line["reason"]) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
    assert line["timeout_ms"] == 100


async def test_a_deadline_of_the_callers_is_told_as_no_cancellation(
    gateway: RunningGateway, simulator: Simulator, logs: Logs
) -> None:
    """Whether the gateway was early, as it means to be, or gRPC has ended the call before it."""
    simulator.script(Behaviour(fault=Fault.STALL))
    call = gateway.stub.ChatCompletionStream(chat_request(), timeout=0.1)
    assert await call.code() == grpc.StatusCode.DEADLINE_EXCEEDED

    line = await line_of(logs)
    assert (line["status"], line["reason"]) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")


class Clock:
    """All of a gRPC context that tells a caller who left from a deadline that passed."""

    def __init__(self, remaining: float | None) -> None:
        self._remaining = remaining

    def time_remaining(self) -> float | None:
        return self._remaining


@pytest.mark.parametrize(
    ("remaining", "status"),
    [(None, "CANCELLED"), (5.0, "CANCELLED"), (0.0, "DEADLINE_EXCEEDED"), (-1.0, "DEADLINE_EXCEEDED")],
)
async def test_a_handler_that_grpc_cancels_is_told_by_the_time_that_is_left(
    logs: Logs, remaining: float | None, status: str
) -> None:
    """gRPC does the same when the caller leaves and when its deadline passes before the gateway could be early."""

    async def handler(*_: object) -> None:
        raise asyncio.CancelledError

    clock: Any = Clock(remaining)
    token = CURRENT_CALL.set(Call("r-1", "ChatCompletion", deadline=0.0, timeout=1.0))
    with pytest.raises(asyncio.CancelledError):
        await AccessLog(Journal()).around("/llm_gateway.v1.LLMService/ChatCompletion", handler, b"", clock)
    CURRENT_CALL.reset(token)

    line = await line_of(logs)
    assert (line["status"], line["reason"]) == (status, None if status == "CANCELLED" else status)


async def test_a_call_that_had_failed_before_its_caller_left_is_told_as_failed(logs: Logs) -> None:
    """Its status was decided on, and waited for the caller."""
    call = Call("r-1", "ChatCompletion", deadline=0.0, timeout=1.0)

    async def handler(*_: object) -> None:
        call.status, call.reason = "ABORTED", "STREAM_INTERRUPTED"
        raise asyncio.CancelledError

    clock: Any = Clock(None)
    token = CURRENT_CALL.set(call)
    with pytest.raises(asyncio.CancelledError):
        await AccessLog(Journal()).around("/llm_gateway.v1.LLMService/ChatCompletion", handler, b"", clock)
    CURRENT_CALL.reset(token)

    line = await line_of(logs)
    assert (line["status"], line["reason"]) == ("ABORTED", "STREAM_INTERRUPTED")


async def test_a_time_limit_is_told_as_an_answer_that_went_well(
    gateway: RunningGateway, simulator: Simulator, logs: Logs
) -> None:
    simulator.script(Behaviour(fault=Fault.STALL, after=2))
    await stream(gateway, time_limit=Duration(nanos=200_000_000))
    line = await line_of(logs)

    assert (line["status"], line["usage_estimated"]) == ("OK", True)


async def test_what_the_caller_says_of_itself_is_told(gateway: RunningGateway, logs: Logs) -> None:
    request = chat_request()
    request.user, request.session_id = "ann", "s-1"
    request.metadata["team"] = "search"
    await gateway.stub.ChatCompletion(request)
    line = await line_of(logs)

    assert (line["user"], line["session_id"], line["metadata"]) == ("ann", "s-1", {"team": "search"})


async def test_health_checks_and_reflection_are_not_told(gateway: RunningGateway, logs: Logs) -> None:
    check: Any = gateway.channel.unary_unary("/grpc.health.v1.Health/Check")
    await check(b"")
    await stream(gateway)

    assert (await line_of(logs))["rpc"] == "ChatCompletionStream"
