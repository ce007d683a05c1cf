# SPDX-License-Identifier: Apache-2.0
"""The request id: the caller's if it is sane, and the same everywhere. Nothing else of the metadata goes on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import grpc
import pytest

from llm_gateway.simulator import Behaviour, Fault
from llm_gateway.v1 import llm_service_pb2 as pb
from tests.kit.calls import chat_request, read_stream, until
from tests.kit.gateway import failure_of, start_gateway
from tests.kit.http2 import http2_client
from tests.kit.logs import captured_logs

if TYPE_CHECKING:
    from llm_gateway.simulator import Simulator
    from tests.kit.gateway import RunningGateway

MADE = re.compile(r"[0-9a-f]{32}")
STREAM = "/llm_gateway.v1.LLMService/ChatCompletionStream"
LONGEST = "x" * 64


@pytest.mark.parametrize("given", ["worker-7:42_a.b", "1", LONGEST], ids=["usual", "short", "longest"])
async def test_a_sane_id_is_the_same_everywhere(gateway: RunningGateway, simulator: Simulator, given: str) -> None:
    with captured_logs() as logs:
        call = gateway.stub.ChatCompletionStream(chat_request(), metadata=(("x-request-id", given),))
        outcome = await read_stream(call)
        await until(lambda: logs.calls)

    assert outcome.initial_metadata["x-request-id"] == given
    assert outcome.trailers["x-request-id"] == given
    assert outcome.started.request_id == given
    assert simulator.requests[-1].headers["x-request-id"] == given
    assert [line["request_id"] for line in logs.calls] == [given]


@pytest.mark.parametrize(
    "given",
    ["", LONGEST + "x", "two words", "a/b", "a,b", "a$b"],
    ids=["empty", "too long", "a space", "a slash", "a comma", "a sign"],
)
async def test_an_id_that_is_not_sane_is_replaced_by_one_of_ours(
    gateway: RunningGateway, simulator: Simulator, given: str
) -> None:
    call = gateway.stub.ChatCompletionStream(chat_request(), metadata=(("x-request-id", given),))
    outcome = await read_stream(call)

    made = outcome.started.request_id
    assert MADE.fullmatch(made)
    assert outcome.initial_metadata["x-request-id"] == outcome.trailers["x-request-id"] == made
    assert simulator.requests[-1].headers["x-request-id"] == made


@pytest.mark.parametrize("given", [b"a\r\nx-injected: 1", b"a\nb", b"a\x00b", b"a\x1b[31m", b"\xff\xfe", b"a\n"])
async def test_control_characters_reach_neither_the_backend_nor_the_log(
    gateway: RunningGateway, simulator: Simulator, given: bytes
) -> None:
    """No gRPC library sends these; a bare HTTP/2 client does, and gRPC hands some of them on."""
    with captured_logs() as logs:
        async with http2_client(gateway.server.port) as client:
            number = client.call(STREAM, chat_request(), [("x-request-id", given)])
            await client.receive_end(number)
        await until(lambda: gateway.server.in_flight == 0)

    [request] = simulator.requests
    assert "x-injected" not in request.headers
    assert MADE.fullmatch(request.headers["x-request-id"])
    [line] = logs.calls
    assert line["request_id"] == request.headers["x-request-id"]


async def test_without_an_id_each_call_gets_its_own(gateway: RunningGateway) -> None:
    outcomes = [await read_stream(gateway.stub.ChatCompletionStream(chat_request())) for _ in range(2)]

    ids = {outcome.started.request_id for outcome in outcomes}
    assert len(ids) == 2
    assert all(MADE.fullmatch(made) for made in ids)


@pytest.mark.parametrize("rpc", ["ChatCompletion", "Generate", "ListModels", "CountTokens"])
async def test_an_answer_in_one_piece_has_the_id_in_front_and_behind(gateway: RunningGateway, rpc: str) -> None:
    requests = {
        "ChatCompletion": chat_request(),
        "Generate": pb.GenerateRequest(prompt="hello"),
        "ListModels": pb.ListModelsRequest(),
        "CountTokens": pb.CountTokensRequest(prompt="hello"),
    }
    call = getattr(gateway.stub, rpc)(requests[rpc], metadata=(("x-request-id", "mine"),))
    await call

    assert dict(await call.initial_metadata())["x-request-id"] == "mine"
    assert dict(await call.trailing_metadata())["x-request-id"] == "mine"


@pytest.mark.parametrize(
    "behaviour",
    [Behaviour(fault=Fault.HTTP, status=400), Behaviour(fault=Fault.CUT, after=2)],
    ids=["before the first token", "after it"],
)
async def test_an_error_has_the_id_in_the_trailers_and_in_the_details(
    gateway: RunningGateway, simulator: Simulator, behaviour: Behaviour
) -> None:
    simulator.script(behaviour)

    call = gateway.stub.ChatCompletionStream(chat_request(), metadata=(("x-request-id", "mine"),))
    outcome = await read_stream(call)

    assert outcome.failure is not None
    assert outcome.trailers["x-request-id"] == "mine"
    assert outcome.failure.info.metadata["request_id"] == "mine"


async def test_a_request_that_is_refused_has_the_id_too(gateway: RunningGateway) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.stub.ChatCompletion(pb.ChatCompletionRequest(), metadata=(("x-request-id", "mine"),))

    assert failure_of(caught.value).trailers["x-request-id"] == "mine"


async def test_every_attempt_has_the_same_id(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.HTTP, status=500))
    async with start_gateway(simulator.url, default_model="sim") as gateway:
        outcome = await read_stream(gateway.stub.ChatCompletionStream(chat_request()))

    ids = [request.headers["x-request-id"] for request in simulator.requests]
    assert ids == [outcome.started.request_id] * 2


async def test_nothing_else_of_the_callers_metadata_reaches_the_backend(
    gateway: RunningGateway, simulator: Simulator
) -> None:
    metadata = (
        ("authorization", "Bearer canary"),
        ("cookie", "canary"),
        ("x-forwarded-for", "canary"),
        ("x-data-parallel-rank", "7"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("canary-bin", b"canary"),
    )
    await read_stream(gateway.stub.ChatCompletionStream(chat_request(), metadata=metadata))

    headers = simulator.requests[-1].headers
    assert set(headers) == {
        "host", "content-type", "content-length", "accept-encoding", "user-agent", "x-request-id",
    }  # fmt: skip
    assert headers["user-agent"] == "llm-gateway"
