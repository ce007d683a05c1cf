# SPDX-License-Identifier: Apache-2.0
"""The load generator's clients: what they count is what was sent, and a broken answer is not taken for a good one."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from llm_gateway.simulator import Behaviour, Fault
from tests.bench.aio_client import AioClient
from tests.bench.grpc_client import GrpcClient
from tests.bench.sse_client import SseClient
from tests.bench.streams import Ask, StreamError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from llm_gateway.simulator import Simulator
    from tests.bench.streams import Client
    from tests.kit.gateway import RunningGateway

    Connect = Callable[[RunningGateway, Simulator], Client]

CLIENTS = [
    pytest.param(lambda gateway, _: GrpcClient(gateway.server.port), id="grpc"),
    pytest.param(lambda gateway, _: AioClient(gateway.server.port), id="aio"),
    pytest.param(lambda _, simulator: SseClient(simulator.port), id="sse"),
]
each_client = pytest.mark.parametrize("connect", CLIENTS)


@asynccontextmanager
async def connected(connect: Connect, gateway: RunningGateway, simulator: Simulator) -> AsyncIterator[Client]:
    """A client, closed at the end."""
    client = connect(gateway, simulator)
    try:
        yield client
    finally:
        await client.close()


@each_client
async def test_the_tokens_are_those_that_the_backend_counted(
    connect: Connect, gateway: RunningGateway, simulator: Simulator
) -> None:
    async with connected(connect, gateway, simulator) as client:
        stream = await client.open(Ask(tokens=37))
        await stream.done

        assert stream.tokens == 37
        assert stream.first > stream.began


@each_client
async def test_every_token_is_a_piece_or_was_merged_into_one(
    connect: Connect, gateway: RunningGateway, simulator: Simulator
) -> None:
    async with connected(connect, gateway, simulator) as client:
        stream = await client.open(Ask(tokens=200, pace=0.001))
        await stream.done

        # Besides them there are, of the gateway, started and completed; of the backend, role, usage and [DONE].
        others = 3 if isinstance(client, SseClient) else 2
        assert stream.pieces + stream.merged == 200 + others


@each_client
async def test_streams_at_once_are_kept_apart(connect: Connect, gateway: RunningGateway, simulator: Simulator) -> None:
    async with connected(connect, gateway, simulator) as client:
        streams = [await client.open(Ask(tokens)) for tokens in (1, 50, 3, 120, 7)]
        await asyncio.gather(*(stream.done for stream in streams))

        assert [stream.tokens for stream in streams] == [1, 50, 3, 120, 7]


@each_client
@pytest.mark.parametrize("fault", [Fault.RESET, Fault.EOF, Fault.ERROR_EVENT])
async def test_an_answer_that_breaks_off_is_an_error(
    connect: Connect, gateway: RunningGateway, simulator: Simulator, fault: Fault
) -> None:
    simulator.script(Behaviour(fault=fault, after=5))
    async with connected(connect, gateway, simulator) as client:
        stream = await client.open(Ask(tokens=20))

        with pytest.raises(StreamError):
            await stream.done


async def test_requests_one_after_the_other_share_a_connection(simulator: Simulator) -> None:
    client = SseClient(simulator.port)
    try:
        for _ in range(10):
            stream = await client.open(Ask(tokens=2))
            await stream.done

        assert simulator.statistics().connections == 1
    finally:
        await client.close()
