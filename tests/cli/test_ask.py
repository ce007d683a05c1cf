# SPDX-License-Identifier: Apache-2.0
"""One answer is asked for, and every way out leaves nothing running."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from llm_gateway.cli.answer import Ending, Page, ask
from llm_gateway.cli.client import Client
from llm_gateway.v1 import llm_service_pb2, outcome_pb2
from tests.kit.calls import chat_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llm_gateway.simulator import Simulator
    from tests.kit.gateway import RunningGateway

Event = llm_service_pb2.ChatCompletionStreamResponse
DEADLINE = 30.0


class TornPage(Page):
    """A view that fails, as one does whose reader has gone."""

    def show(self, event: Event) -> None:
        raise BrokenPipeError


async def test_whoever_leaves_for_any_reason_frees_the_backend(gateway: RunningGateway, simulator: Simulator) -> None:
    request = chat_request("[[sim fault=stall after=3]]")

    with pytest.raises(BrokenPipeError):
        await ask(gateway.stub, request, TornPage(), timeout=DEADLINE, address=gateway.address)

    assert (await simulator.wait_for(lambda now: now.aborted == 1)).running == 0


async def test_whoever_cancels_the_asking_is_not_taken_for_ctrl_c(
    gateway: RunningGateway, simulator: Simulator
) -> None:
    request = chat_request("[[sim fault=stall]]")
    asking = asyncio.create_task(ask(gateway.stub, request, Page(), timeout=DEADLINE, address=gateway.address))
    await simulator.wait_for(lambda now: now.running == 1)
    asking.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asking
    await simulator.wait_for(lambda now: now.aborted == 1)


async def half_an_answer(_request: bytes, _context: object) -> AsyncIterator[bytes]:
    yield Event(sequence=1, started=outcome_pb2.Started()).SerializeToString()
    yield Event(sequence=2, delta=outcome_pb2.Delta(text="Half")).SerializeToString()


async def test_a_stream_that_ends_well_without_its_end_is_not_believed(capsys: pytest.CaptureFixture[str]) -> None:
    server = grpc.aio.server()
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "ChatCompletionStream": grpc.unary_stream_rpc_method_handler(half_an_answer)
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("llm_gateway.v1.LLMService", methods),))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    request = llm_service_pb2.ChatCompletionRequest()
    async with Client(address) as client:
        answer = await ask(client.stub, request, Page(), timeout=DEADLINE, address=address)
    await server.stop(0)

    assert answer.ending is Ending.FAILED
    assert capsys.readouterr() == ("Half\n", "the stream ended without its end: the answer is not whole\n")
