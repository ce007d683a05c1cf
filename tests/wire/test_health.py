# SPDX-License-Identifier: Apache-2.0
"""What `grpc.health.v1` says, by name: the process, the gateway, and whether a backend answers."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from llm_gateway.health import HealthBoard
from llm_gateway.servicer import SERVICE
from llm_gateway.simulator import Behaviour, Fault
from tests.kit.calls import chat_request, stream
from tests.kit.gateway import start_gateway
from tests.kit.http2 import Kind, http2_client
from tests.kit.sockets import closed_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llm_gateway.simulator import Simulator
    from tests.kit.gateway import RunningGateway

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
OWN, WITH_BACKEND = ("liveness", "readiness"), ("", SERVICE)
NAMES = OWN + WITH_BACKEND
QUICK = {"probe_interval_ms": 5}


@pytest.fixture
async def gateway(simulator: Simulator) -> AsyncIterator[RunningGateway]:
    """A gateway that asks its backend often."""
    async with start_gateway(simulator.url, health=QUICK) as running:
        yield running


def health_of(gateway: RunningGateway) -> Any:
    """A stub; the types of the package know no aio."""
    return health_pb2_grpc.HealthStub(gateway.channel)


async def check(gateway: RunningGateway, name: str) -> int:
    answer = await health_of(gateway).Check(health_pb2.HealthCheckRequest(service=name))
    return int(answer.status)


async def becomes(gateway: RunningGateway, name: str, status: int) -> None:
    """Watch a name until it has a status."""
    async with asyncio.timeout(10):
        watch = health_of(gateway).Watch(health_pb2.HealthCheckRequest(service=name))
        async for answer in watch:
            if answer.status == status:
                break
        watch.cancel()


@pytest.mark.parametrize("name", NAMES)
async def test_with_a_backend_that_answers_every_name_serves(gateway: RunningGateway, name: str) -> None:
    await becomes(gateway, name, SERVING)

    assert await check(gateway, name) == SERVING


@pytest.mark.parametrize("name", WITH_BACKEND)
async def test_a_backend_that_goes_and_comes_is_told_where_it_matters(
    gateway: RunningGateway, simulator: Simulator, name: str
) -> None:
    await becomes(gateway, name, SERVING)

    simulator.healthy = False
    await becomes(gateway, name, NOT_SERVING)
    statuses = [await check(gateway, own) for own in OWN]
    simulator.healthy = True
    await becomes(gateway, name, SERVING)

    assert statuses == [SERVING, SERVING]


async def test_without_a_backend_the_gateway_is_ready_so_that_callers_get_typed_errors() -> None:
    with closed_port() as port:
        async with start_gateway(f"http://127.0.0.1:{port}", health=QUICK, default_model="sim") as gateway:
            statuses = {name: await check(gateway, name) for name in NAMES}
            outcome = await stream(gateway)

    assert statuses == dict.fromkeys(OWN, SERVING) | dict.fromkeys(WITH_BACKEND, NOT_SERVING)
    assert outcome.failure is not None
    assert outcome.failure.reason == "NO_HEALTHY_BACKEND"


async def test_an_unknown_name_is_not_found(gateway: RunningGateway) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await check(gateway, "nobody")

    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_watch_of_an_unknown_name_says_so_and_goes_on(gateway: RunningGateway) -> None:
    await becomes(gateway, "nobody", UNKNOWN)


async def test_fifty_watches_leave_room_for_a_check(gateway: RunningGateway) -> None:
    """The servicer for threads answers only as many watches as it has threads, and then nobody."""
    await becomes(gateway, "", SERVING)
    stub = health_of(gateway)
    watches = [stub.Watch(health_pb2.HealthCheckRequest(service="")) for _ in range(50)]

    first = [await watch.read() for watch in watches]
    status = await check(gateway, "liveness")
    for watch in watches:
        watch.cancel()

    assert [answer.status for answer in first] == [SERVING] * 50
    assert status == SERVING


async def test_health_is_answered_when_every_seat_is_taken(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.STALL))
    async with start_gateway(simulator.url, admission={"max_in_flight": 1, "max_queued": 0}) as gateway:
        call = gateway.stub.ChatCompletionStream(chat_request(), timeout=60)
        await simulator.wait_for(lambda now: now.running == 1)
        refused = await stream(gateway)

        statuses = [await check(gateway, name) for name in OWN]
        call.cancel()

    assert refused.failure is not None
    assert refused.failure.reason == "QUEUE_FULL"
    assert statuses == [SERVING, SERVING]


async def test_watches_that_nobody_reads_hold_up_neither_the_probes_nor_the_drain(
    gateway: RunningGateway, simulator: Simulator
) -> None:
    async with http2_client(gateway.server.port) as frozen, asyncio.timeout(10):
        frozen.accept_no_data()
        for name in NAMES:
            call = frozen.call("/grpc.health.v1.Health/Watch", health_pb2.HealthCheckRequest(service=name))
            await frozen.receive_until(Kind.HEADERS, stream=call)  # its first status waits for room

        simulator.healthy = False
        await becomes(gateway, "", NOT_SERVING)
        simulator.healthy = True
        await becomes(gateway, "", SERVING)

        assert await gateway.server.drain() == 0


async def test_a_drain_ends_the_readiness_and_not_the_life(gateway: RunningGateway) -> None:
    for name in NAMES:
        await becomes(gateway, name, SERVING)
    watches = {name: health_of(gateway).Watch(health_pb2.HealthCheckRequest(service=name)) for name in NAMES}
    before = {name: (await watch.read()).status for name, watch in watches.items()}

    await gateway.server.drain()

    after = {name: (await watches[name].read()).status for name in ("readiness", *WITH_BACKEND)}
    assert before == dict.fromkeys(NAMES, SERVING)
    assert after == dict.fromkeys(("readiness", *WITH_BACKEND), NOT_SERVING)


@asynccontextmanager
async def served(board: HealthBoard) -> AsyncIterator[Any]:
    """A board on a server of its own, and a stub to it."""
    server = grpc.aio.server()
    board.add_to(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield health_pb2_grpc.HealthStub(channel)
    finally:
        await board.stop()
        await server.stop(0)


async def test_a_backend_that_answers_does_not_undo_a_drain() -> None:
    """The answer of a probe that was on its way when the drain began comes too late."""
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def answers() -> bool:
        asked.set()
        await may_answer.wait()
        return True

    board = HealthBoard(SERVICE, answers, interval=60)
    async with served(board) as stub:
        await board.start()
        await asked.wait()

        board.drain()
        may_answer.set()
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=""))

    assert answer.status == NOT_SERVING


async def test_a_bug_in_a_probe_is_logged_without_its_words(caplog: pytest.LogCaptureFixture) -> None:
    asked = asyncio.Event()

    async def answers() -> bool:
        asked.set()
        raise KeyError("a prompt")

    board = HealthBoard(SERVICE, answers, interval=60)
    await board.start()
    await asked.wait()
    await board.stop()

    [line] = caplog.records
    assert "builtins.KeyError" in vars(line)["traceback"]
    assert "a prompt" not in caplog.text


async def test_a_probe_that_runs_into_a_bug_counts_as_no_answer_and_is_repeated() -> None:
    healthy = True

    async def answers() -> bool:
        if not healthy:
            raise KeyError("a bug")
        return True

    board = HealthBoard(SERVICE, answers, interval=0.001)
    async with served(board) as stub, asyncio.timeout(10):
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        seen = [(await watch.read()).status]
        await board.start()
        for state in (SERVING, NOT_SERVING, SERVING):
            healthy = state == SERVING
            while seen[-1] != state:
                seen.append((await watch.read()).status)
        watch.cancel()

    assert seen[-3:] == [SERVING, NOT_SERVING, SERVING]
