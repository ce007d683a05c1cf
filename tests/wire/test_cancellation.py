# SPDX-License-Identifier: Apache-2.0
"""A caller who leaves frees the backend at once, whatever the call waits for, and nothing stays behind (law 5).

That nothing stays behind, no task and no connection, is asserted after each test by a fixture of all of them.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from llm_gateway.simulator import Behaviour, Fault
from llm_gateway.v1 import llm_service_pb2 as pb
from tests.kit.calls import chat_request, until
from tests.kit.gateway import RunningGateway, start_gateway
from tests.kit.processes import caller_process
from tests.kit.scripted import STREAM_HEAD, Pause, ScriptedBackend, Step, chunk
from tests.kit.sockets import connecting_to, deaf_listener
from tests.kit.waiting import settled

if TYPE_CHECKING:
    from llm_gateway.simulator import Simulator

POINTS = {
    "waiting for headers": Behaviour(fault=Fault.SLOW_HEADER),
    "before the first event": Behaviour(fault=Fault.STALL),
    "after the role": Behaviour(fault=Fault.STALL, role_first=True),
    "in mid-stream": Behaviour(fault=Fault.STALL, after=2),
}
GENERATIONS = ("ChatCompletion", "ChatCompletionStream", "Generate", "StreamGenerate")
CHUNK = chunk("x" * 65_536)
MANY = 1000
"""So many large chunks fill every buffer between a backend and a caller who does not read: some 15 MB hold here."""


def begin(gateway: RunningGateway, rpc: str, metadata: Any = None) -> Any:
    """A call under way."""
    request = chat_request() if rpc.startswith("Chat") else pb.GenerateRequest(prompt="hello")
    return getattr(gateway.stub, rpc)(request, timeout=300, metadata=metadata)


async def freed(gateway: RunningGateway, simulator: Simulator) -> None:
    """Wait until the backend has seen the abort and the gateway has the seat back."""
    await simulator.wait_for(lambda now: now.aborted == 1 and now.running == now.waiting == 0)
    await until(lambda: gateway.server.in_flight == 0)


@pytest.fixture(params=POINTS)
def stuck(request: pytest.FixtureRequest, simulator: Simulator) -> Behaviour:
    """The simulator never gets past one point of its next answer."""
    behaviour = POINTS[request.param]
    simulator.script(behaviour)
    return behaviour


async def reached(simulator: Simulator, behaviour: Behaviour) -> None:
    """Wait until the simulator is stuck where it should be."""
    await simulator.wait_for(lambda now: behaviour.fault in now.faults)


@pytest.mark.parametrize("rpc", GENERATIONS)
async def test_a_caller_who_cancels_frees_the_backend(
    gateway: RunningGateway, simulator: Simulator, stuck: Behaviour, rpc: str
) -> None:
    call = begin(gateway, rpc)
    await reached(simulator, stuck)
    assert gateway.server.in_flight == 1

    call.cancel()

    await freed(gateway, simulator)
    assert await call.code() == grpc.StatusCode.CANCELLED


@pytest.mark.parametrize("rpc", ["ChatCompletion", "ChatCompletionStream"])
async def test_a_caller_whose_channel_closes_frees_the_backend(
    gateway: RunningGateway, simulator: Simulator, stuck: Behaviour, rpc: str
) -> None:
    begin(gateway, rpc)
    await reached(simulator, stuck)

    await gateway.channel.close()

    await freed(gateway, simulator)


async def test_a_caller_who_is_killed_frees_the_backend(
    gateway: RunningGateway, simulator: Simulator, stuck: Behaviour
) -> None:
    async with caller_process(gateway.address) as caller:
        await reached(simulator, stuck)

        caller.send(signal.SIGKILL)

        await freed(gateway, simulator)
        assert await caller.exit_code() == -signal.SIGKILL


async def test_a_caller_may_leave_while_the_gateway_finds_the_model() -> None:
    with deaf_listener() as port:
        async with start_gateway(f"http://127.0.0.1:{port}") as gateway:
            call = begin(gateway, "ChatCompletionStream")
            await until(lambda: gateway.server.in_flight == 1)

            call.cancel()

            await until(lambda: gateway.server.in_flight == 0)


@pytest.mark.parametrize("rpc", GENERATIONS)
async def test_a_caller_may_leave_while_the_gateway_connects(rpc: str) -> None:
    with deaf_listener() as port:
        probed_once = {"probe_interval_ms": 86_400_000, "probe_timeout_ms": 60_000, "load_interval_ms": 0}
        settings: dict[str, Any] = {"default_model": "sim", "health": probed_once, "timeouts": {"connect_ms": 60_000}}
        async with start_gateway(f"http://127.0.0.1:{port}", **settings) as gateway:
            await until(lambda: connecting_to(port) == 1)
            call = begin(gateway, rpc)
            await until(lambda: connecting_to(port) == 2)

            call.cancel()

            await until(lambda: connecting_to(port) <= 1)
            await until(lambda: gateway.server.in_flight == 0)


@pytest.mark.parametrize("rpc", ["ChatCompletion", "ChatCompletionStream"])
async def test_a_caller_may_leave_between_two_attempts(simulator: Simulator, rpc: str) -> None:
    overloaded = Behaviour(fault=Fault.HTTP, status=503, headers={"Retry-After": "60"})
    simulator.script(overloaded, overloaded)
    async with start_gateway(simulator.url, retry={"max_backoff_ms": 60_000}) as gateway:
        call = begin(gateway, rpc)
        await simulator.wait_for(lambda now: now.finished == 1)
        assert gateway.server.in_flight == 1

        call.cancel()

        await until(lambda: gateway.server.in_flight == 0)
        assert simulator.statistics().requests_seen == 1


async def test_a_caller_may_leave_while_the_gateway_waits_for_the_usage() -> None:
    async with (
        ScriptedBackend([STREAM_HEAD, chunk("all", finish="stop"), Pause()]) as backend,
        start_gateway(backend.url) as gateway,
    ):
        call = begin(gateway, "ChatCompletionStream")
        await until(lambda: backend.sent)

        call.cancel()

        await backend.left.wait()
        await until(lambda: gateway.server.in_flight == 0)


async def test_a_caller_may_leave_while_a_write_waits_for_it() -> None:
    script: list[Step] = [STREAM_HEAD, *[CHUNK] * MANY, Pause()]
    async with ScriptedBackend(script) as backend, start_gateway(backend.url) as gateway:
        call = begin(gateway, "ChatCompletionStream")
        await call.read()
        assert await settled(lambda: backend.sent) < MANY * len(CHUNK), "the caller's silence stopped the reading"

        call.cancel()

        await backend.left.wait()
        await until(lambda: gateway.server.in_flight == 0)


async def test_a_caller_may_leave_while_its_tokens_are_counted() -> None:
    async with ScriptedBackend([Pause()]) as backend, start_gateway(backend.url) as gateway:
        call = gateway.stub.CountTokens(pb.CountTokensRequest(prompt="hello"), timeout=300)
        await until(lambda: backend.requests)

        call.cancel()

        await backend.left.wait()
        await until(lambda: gateway.server.in_flight == 0)


async def test_a_caller_may_leave_while_the_models_are_listed() -> None:
    with deaf_listener() as port:
        async with start_gateway(f"http://127.0.0.1:{port}") as gateway:
            call = gateway.stub.ListModels(pb.ListModelsRequest(), timeout=300)
            await until(lambda: gateway.server.in_flight == 1)

            call.cancel()

            await until(lambda: gateway.server.in_flight == 0)


async def test_a_caller_who_leaves_after_the_answer_has_its_answer(
    gateway: RunningGateway, simulator: Simulator
) -> None:
    call = begin(gateway, "ChatCompletionStream")
    events = [event async for event in call]

    call.cancel()

    assert events[-1].WhichOneof("event") == "completed"
    assert await call.code() == grpc.StatusCode.OK
    assert simulator.statistics().aborted == 0


async def test_one_caller_who_leaves_disturbs_no_other(gateway: RunningGateway, simulator: Simulator) -> None:
    slow = Behaviour(tokens=20, pace=0.005)
    simulator.script(slow, slow)
    staying, leaving = begin(gateway, "ChatCompletionStream"), begin(gateway, "ChatCompletionStream")
    await simulator.wait_for(lambda now: now.running == 2)

    leaving.cancel()
    events = [event async for event in staying]

    assert events[-1].WhichOneof("event") == "completed"
    await simulator.wait_for(lambda now: (now.aborted, now.finished, now.running) == (1, 1, 0))


async def test_the_connections_survive_many_callers_who_leave(gateway: RunningGateway, simulator: Simulator) -> None:
    """An HTTP pool that loses count of cancelled streams wedges after some hundred of them."""
    for number in range(1, 21):
        simulator.script(*[Behaviour(fault=Fault.STALL, after=1)] * 10)
        calls = [begin(gateway, "ChatCompletionStream") for _ in range(10)]
        await until(lambda: simulator.statistics().requests_seen == 10 * number)  # noqa: B023 - it is not kept
        for call in calls:
            call.cancel()
        await simulator.wait_for(lambda now: now.running == now.waiting == 0)

    events = [event async for event in begin(gateway, "ChatCompletionStream")]

    assert events[-1].WhichOneof("event") == "completed"
    assert simulator.statistics().aborted == 200
