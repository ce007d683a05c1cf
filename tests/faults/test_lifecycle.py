# SPDX-License-Identifier: Apache-2.0
"""Rows 60 to 62, 72 and 73: signals to the gateway's process, and a port that is taken."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from llm_gateway.simulator import Fault
from tests.faults.invariants import MODEL, SAID, asking, saying
from tests.faults.matrix import OK, Ending, Expected, ending_of, row, told
from tests.faults.outside import process_scene
from tests.kit.calls import until
from tests.kit.health import NOT_SERVING, becomes
from tests.kit.processes import starting_gateway

if TYPE_CHECKING:
    from llm_gateway.simulator import Simulator
    from tests.faults.invariants import Streaming, Witness
    from tests.kit.processes import GatewayProcess

STREAMS = 50
SHED = Ending("RESOURCE_EXHAUSTED", "QUEUE_FULL")
PINGING = (
    ("grpc.keepalive_time_ms", 200),
    ("grpc.keepalive_timeout_ms", 1_000),
    ("grpc.http2.ping_timeout_ms", 1_000),
    ("grpc.http2.max_pings_without_data", 0),
)


async def exits(process: GatewayProcess) -> Ending:
    """How the process ends."""
    return Ending("EXIT", str(await process.exit_code()))


async def draining(witness: Witness, process: GatewayProcess) -> None:
    """It is told to end, and has heard it."""
    process.send(signal.SIGTERM)
    await until(lambda: [line for line in witness.logs.lines if line["message"] == "draining"])


async def stalled(witness: Witness, simulator: Simulator) -> Streaming:
    """A call that stands still in mid-stream."""
    simulator.script(saying(fault=Fault.STALL, after=5))
    call = witness.begin()
    await simulator.wait_for(lambda now: Fault.STALL in now.faults)
    return call


@row(60, "idle")
async def test_row_60_an_idle_gateway_goes(simulator: Simulator, expected: Expected) -> None:
    async with process_scene(simulator.url) as (witness, process):
        await draining(witness, process)

        assert await exits(process) in expected


@row(60, "running")
async def test_row_60_running_streams_finish_whole(simulator: Simulator, expected: Expected) -> None:
    prompt = asking(pace_ms=20)
    async with process_scene(simulator.url) as (witness, process):
        calls = [witness.begin(prompt) for _ in range(STREAMS)]
        for call in calls:
            await call.deltas(1)
        assert simulator.statistics().running == STREAMS
        await draining(witness, process)
        outcomes = await asyncio.gather(*(call.end() for call in calls))

        assert await process.exit_code() == 0
    for outcome in outcomes:
        assert ending_of(outcome) in expected
        assert outcome.text() == SAID


@row(60, "queued")
async def test_row_60_who_waits_is_sent_elsewhere(simulator: Simulator, expected: Expected) -> None:
    """Of three that come while the only seat is taken, one finds a place in the queue."""
    async with process_scene(simulator.url, ADMISSION__MAX_IN_FLIGHT="1", ADMISSION__MAX_QUEUED="1") as scene:
        witness, process = scene
        simulator.script(saying(pace=0.02))
        running = witness.begin()
        await running.deltas(1)
        ends = [asyncio.create_task(witness.stream()) for _ in range(3)]
        await until(lambda: sum(end.done() for end in ends) == 2)
        refused = [ending_of(end.result()) for end in ends if end.done()]
        [waiting] = [end for end in ends if not end.done()]
        process.send(signal.SIGTERM)
        outcome = await waiting

        assert not running.call.done()
        assert ending_of(await running.end()) == OK
        assert await process.exit_code() == 0
    assert refused == [Ending("RESOURCE_EXHAUSTED", "QUEUE_FULL")] * 2
    assert ending_of(outcome) in expected
    assert outcome.failure is not None
    assert "google.rpc.RetryInfo" in outcome.failure.details
    assert simulator.statistics().requests_seen == 1


@row(60, "twice")
async def test_row_60_told_twice_it_ends_at_once(simulator: Simulator, expected: Expected) -> None:
    async with process_scene(simulator.url) as (witness, process):
        call = await stalled(witness, simulator)
        await draining(witness, process)
        process.send(signal.SIGTERM)

        assert ending_of(await call.end()) in expected
        assert await process.exit_code() == 1
        await witness.aborted(simulator)


@row(61)
async def test_row_61_after_the_grace_an_answer_is_cut_off_with_its_bill(
    simulator: Simulator, expected: Expected
) -> None:
    async with process_scene(simulator.url, SERVER__DRAIN_GRACE_MS="300") as (witness, process):
        call = await stalled(witness, simulator)
        process.send(signal.SIGTERM)
        outcome = await call.end()
        await witness.aborted(simulator)

        assert await process.exit_code() == 1
    assert ending_of(outcome) in expected
    assert outcome.failure is not None
    usage = outcome.failure.report.usage
    assert (usage.completion_tokens, usage.estimated) == (5, True)


@row(62)
async def test_row_62_who_watches_the_health_delays_nothing(simulator: Simulator, expected: Expected) -> None:
    """Within the grace of ten minutes: it would take as long if it were waited for."""
    async with process_scene(simulator.url) as (witness, process):
        channel = witness.gateway.channel
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="liveness"))
        await watch.read()
        simulator.script(saying(pace=0.01))
        call = witness.begin()
        await call.deltas(1)
        process.send(signal.SIGTERM)
        await becomes(channel, "readiness", NOT_SERVING)
        assert not watch.done()

        assert ending_of(await call.end()) in expected
        assert await process.exit_code() == 0


@row(72)
async def test_row_72_a_port_that_is_taken_ends_the_start(simulator: Simulator, expected: Expected) -> None:
    async with process_scene(simulator.url) as (witness, process):
        port = process.address.rpartition(":")[2]
        async with starting_gateway(simulator.url, PORT=port) as second:
            said = ""
            while line := await second.line():
                said += line
            ending = await exits(second)

        assert ending_of(await witness.stream()) == OK
        await draining(witness, process)
    assert ending in expected
    assert f"cannot listen on 127.0.0.1:{port}; is another gateway running? PORT chooses another port" in said


@row(73, "caller", "afterwards", together=True)
async def test_row_73_a_frozen_gateway_is_given_up_and_forgets_who_has_left(
    simulator: Simulator, expected: Expected
) -> None:
    simulator.script(saying(" ".join([SAID] * 15), pace=0.02))
    async with process_scene(simulator.url, PINGING, SERVER__MIN_PING_INTERVAL_MS="10") as (witness, process):
        call = witness.begin("hello", said=" ".join([SAID] * 15))
        await call.deltas(5)
        process.send(signal.SIGSTOP)
        ending = await call.ending()
        assert process.state == "T"
        assert simulator.statistics().running == 1
        process.send(signal.SIGCONT)
        line = await witness.line(call)
        await witness.aborted(simulator)
        afterwards = await witness.stream()
        while ending_of(afterwards) == SHED:  # until it has caught up with its own work
            afterwards = await witness.stream()
        await draining(witness, process)

        assert await process.exit_code() == 0
    assert ending in expected.of("caller")
    assert ending_of(afterwards) in expected.of("afterwards")
    assert told(line) == Ending("CANCELLED", "–")
    assert line["model"] == MODEL
