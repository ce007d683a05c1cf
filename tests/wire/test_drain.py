# SPDX-License-Identifier: Apache-2.0
"""The end of a gateway: it says so, admits for a while, then nobody new, lets running answers finish, and goes."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from llm_gateway.simulator import Behaviour, Fault
from llm_gateway.v1 import llm_service_pb2 as pb
from llm_gateway.v1 import llm_service_pb2_grpc, outcome_pb2
from tests.kit.calls import chat_request, read_stream, stream, until
from tests.kit.gateway import failure_of, start_gateway
from tests.kit.processes import gateway_process
from tests.kit.scripted import DONE, STREAM_HEAD, Hold, ScriptedBackend, Step, chunk, usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llm_gateway.simulator import Simulator
    from tests.kit.gateway import RunningGateway

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
REQUESTS = {
    "ChatCompletion": chat_request(),
    "ChatCompletionStream": chat_request(),
    "ListModels": pb.ListModelsRequest(),
    "CountTokens": pb.CountTokensRequest(prompt="hello"),
}
POINTS = {
    "waiting for headers": (Behaviour(fault=Fault.SLOW_HEADER), 0),
    "before the first event": (Behaviour(fault=Fault.STALL), 0),
    "in mid-stream": (Behaviour(fault=Fault.STALL, after=2), 2),
}


@pytest.fixture
def gate() -> asyncio.Event:
    """What the patient backend waits for."""
    return asyncio.Event()


@pytest.fixture
async def patient(gate: asyncio.Event) -> AsyncIterator[ScriptedBackend]:
    """A backend whose answer stands still in the middle until its gate opens."""
    script: list[Step] = [STREAM_HEAD, chunk("first"), Hold(gate), chunk(" last", finish="stop"), usage(1, 2), DONE]
    async with ScriptedBackend(script) as backend:
        yield backend


async def begun(stub: llm_service_pb2_grpc.LLMServiceAsyncStub, backend: ScriptedBackend) -> Any:
    """A stream that stands still in the middle."""
    call = stub.ChatCompletionStream(chat_request(), timeout=60)
    await until(lambda: backend.requests)
    return call


async def refused(stub: llm_service_pb2_grpc.LLMServiceAsyncStub) -> None:
    """Call until nobody is let in any more."""
    code = grpc.StatusCode.OK
    async with asyncio.timeout(10):
        while code is grpc.StatusCode.OK:
            code = await stub.ListModels(pb.ListModelsRequest()).code()
    assert code is grpc.StatusCode.UNAVAILABLE


def watching(channel: grpc.aio.Channel, name: str) -> Any:
    """A Watch of a name."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    return stub.Watch(health_pb2.HealthCheckRequest(service=name))


async def not_ready(channel: grpc.aio.Channel) -> None:
    """Wait until the gateway says that it is not ready."""
    watch = watching(channel, "readiness")
    async with asyncio.timeout(10):
        while (await watch.read()).status != NOT_SERVING:
            pass
    watch.cancel()


async def test_a_running_stream_finishes_whole(patient: ScriptedBackend, gate: asyncio.Event) -> None:
    async with start_gateway(patient.url) as gateway:
        call = await begun(gateway.stub, patient)
        draining = asyncio.create_task(gateway.server.drain())
        await refused(gateway.stub)

        gate.set()
        outcome = await read_stream(call)

    assert outcome.failure is None
    assert outcome.text() == "first last"
    assert await draining == 0


@pytest.mark.parametrize("rpc", REQUESTS)
async def test_a_new_call_is_sent_elsewhere(patient: ScriptedBackend, gate: asyncio.Event, rpc: str) -> None:
    async with start_gateway(patient.url) as gateway:
        call = await begun(gateway.stub, patient)
        draining = asyncio.create_task(gateway.server.drain())
        await refused(gateway.stub)

        late = getattr(gateway.stub, rpc)(REQUESTS[rpc])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (late.read() if rpc.endswith("Stream") else late)
        gate.set()
        await read_stream(call)
        await draining

    failure = failure_of(caught.value)
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert "google.rpc.RetryInfo" in failure.details
    assert "grpc-retry-pushback-ms" not in failure.trailers, "the caller's channel may try another gateway at once"
    assert len(patient.requests) == 1


async def test_before_it_refuses_it_says_so_and_still_admits(simulator: Simulator) -> None:
    """Those who look for a gateway learn of it a little later: until then they must not meet a closed door."""
    async with start_gateway(simulator.url, server={"drain_delay_ms": 60_000}) as gateway:
        draining = asyncio.create_task(gateway.server.drain())
        await not_ready(gateway.channel)

        outcome = await stream(gateway)
        draining.cancel()
        await asyncio.gather(draining, return_exceptions=True)

    assert outcome.failure is None


async def test_after_the_delay_it_refuses(patient: ScriptedBackend, gate: asyncio.Event) -> None:
    async with start_gateway(patient.url, server={"drain_delay_ms": 50}) as gateway:
        call = await begun(gateway.stub, patient)
        draining = asyncio.create_task(gateway.server.drain())

        await refused(gateway.stub)

        gate.set()
        await read_stream(call)
        await draining


@pytest.mark.parametrize("rpc", ["ChatCompletion", "ChatCompletionStream"])
@pytest.mark.parametrize(("behaviour", "tokens"), POINTS.values(), ids=POINTS.keys())
async def test_after_the_grace_what_still_runs_is_cut_off_with_its_bill(
    simulator: Simulator, behaviour: Behaviour, tokens: int, rpc: str
) -> None:
    simulator.script(behaviour)
    async with start_gateway(simulator.url, server={"drain_grace_ms": 20}) as gateway:
        call = getattr(gateway.stub, rpc)(chat_request(), timeout=60)
        await simulator.wait_for(lambda now: behaviour.fault in now.faults)

        exit_code = await gateway.server.drain()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (read_all(call) if rpc.endswith("Stream") else call)
        await simulator.wait_for(lambda now: now.aborted == 1 and now.running == now.waiting == 0)

    failure = failure_of(caught.value)
    assert exit_code == 1
    assert (failure.code, failure.reason) == (grpc.StatusCode.ABORTED, "DRAIN_EXPIRED")
    assert failure.report.usage.completion_tokens == tokens
    assert [attempt.outcome for attempt in failure.report.attempts] == [outcome_pb2.Attempt.OUTCOME_CANCELLED]


async def read_all(call: Any) -> None:
    async for _ in call:
        pass


async def test_a_call_between_two_attempts_is_cut_off_too(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.HTTP, status=503, headers={"Retry-After": "20"}))
    server, retry = {"drain_grace_ms": 20}, {"max_backoff_ms": 60_000}
    async with start_gateway(simulator.url, server=server, retry=retry) as gateway:
        call = gateway.stub.ChatCompletionStream(chat_request(), timeout=60)
        await simulator.wait_for(lambda now: now.finished == 1)

        exit_code = await gateway.server.drain()
        outcome = await read_stream(call)

    assert exit_code == 1
    assert outcome.failure is not None
    assert outcome.failure.reason == "DRAIN_EXPIRED"


async def test_an_idle_gateway_goes_at_once(gateway: RunningGateway) -> None:
    async with asyncio.timeout(10):
        assert await gateway.server.drain() == 0

    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", gateway.server.port)


async def test_an_open_watch_does_not_hold_it(gateway: RunningGateway) -> None:
    """gRPC's own stop would wait for it as long as for a stream: here, for the 10 minutes of the default grace."""
    watch = watching(gateway.channel, "liveness")
    await watch.read()

    async with asyncio.timeout(10):
        assert await gateway.server.drain() == 0


async def test_said_twice_it_ends_at_once(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.STALL, after=2))
    async with start_gateway(simulator.url, server={"drain_delay_ms": 60_000}) as gateway:
        call = gateway.stub.ChatCompletionStream(chat_request(), timeout=60)
        await simulator.wait_for(lambda now: Fault.STALL in now.faults)
        draining = asyncio.create_task(gateway.server.drain())
        await not_ready(gateway.channel)

        gateway.server.end()
        gateway.server.end()
        outcome = await read_stream(call)

    assert await draining == 1
    assert outcome.failure is not None
    assert outcome.failure.reason == "DRAIN_EXPIRED"


# ------------------------------------------------------------------------------------------------------ real processes


async def test_sigterm_lets_a_running_stream_finish_and_exits_with_0(
    patient: ScriptedBackend, gate: asyncio.Event
) -> None:
    async with gateway_process(patient.url, SERVER__DRAIN_DELAY_MS="0") as process:
        async with grpc.aio.insecure_channel(process.address) as channel:
            stub = llm_service_pb2_grpc.LLMServiceStub(channel)
            call = await begun(stub, patient)

            process.send(signal.SIGTERM)
            await not_ready(channel)
            await refused(stub)
            gate.set()
            outcome = await read_stream(call)

        assert outcome.text() == "first last"
        assert (await process.log_line("stopped"))["cut_off"] == 0
        assert await process.exit_code() == 0


async def test_sigterm_after_whose_grace_a_stream_still_runs_exits_with_1(patient: ScriptedBackend) -> None:
    async with gateway_process(patient.url, SERVER__DRAIN_DELAY_MS="0", SERVER__DRAIN_GRACE_MS="50") as process:
        async with grpc.aio.insecure_channel(process.address) as channel:
            call = await begun(llm_service_pb2_grpc.LLMServiceStub(channel), patient)

            process.send(signal.SIGTERM)
            outcome = await read_stream(call)
            await patient.left.wait()

        assert outcome.failure is not None
        assert outcome.failure.reason == "DRAIN_EXPIRED"
        assert await process.exit_code() == 1


async def test_a_second_sigterm_ends_at_once(patient: ScriptedBackend) -> None:
    async with gateway_process(patient.url, SERVER__DRAIN_DELAY_MS="60000") as process:
        async with grpc.aio.insecure_channel(process.address) as channel:
            call = await begun(llm_service_pb2_grpc.LLMServiceStub(channel), patient)

            process.send(signal.SIGTERM)
            await not_ready(channel)
            process.send(signal.SIGTERM)
            outcome = await read_stream(call)

        assert outcome.failure is not None
        assert outcome.failure.reason == "DRAIN_EXPIRED"
        assert await process.exit_code() == 1


async def test_ctrl_c_does_not_wait_for_those_who_look_for_the_gateway(simulator: Simulator) -> None:
    async with gateway_process(simulator.url, SERVER__DRAIN_DELAY_MS="60000") as process:
        process.send(signal.SIGINT)

        assert await process.exit_code() == 0
