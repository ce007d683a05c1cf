# SPDX-License-Identifier: Apache-2.0
"""Rows 34 to 36: callers without a deadline, links on which packets vanish, and pings, welcome and not."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc

from llm_gateway.simulator import Fault
from llm_gateway.v1 import llm_service_pb2_grpc
from tests.faults.invariants import MODEL, SAID, saying, scene
from tests.faults.matrix import Expected, ending_of, row, told
from tests.kit.calls import chat_request
from tests.kit.http2 import ACK, STREAM, Kind, http2_client
from tests.kit.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llm_gateway.simulator import Simulator
    from tests.faults.invariants import Witness

LIMIT = 2_000
DEADLINES = {"none": [], "endless": [("grpc-timeout", b"99999999H")]}
NOTICES_SOON = {"keepalive_time_ms": 100, "keepalive_timeout_ms": 1_000, "min_ping_interval_ms": 10}


@asynccontextmanager
async def calling_through(witness: Witness, address: str, options: dict[str, int] | None = None) -> AsyncIterator[None]:
    """The witness calls over another channel, meanwhile."""
    async with grpc.aio.insecure_channel(address, options=list((options or {}).items())) as channel:
        witness.stub = llm_service_pb2_grpc.LLMServiceStub(channel)
        yield
    witness.stub = None


def pinging(interval: int) -> dict[str, Any]:
    """Options of a channel that pings so often, in milliseconds, whatever it gets."""
    return {
        "grpc.keepalive_time_ms": interval,
        "grpc.keepalive_timeout_ms": 1_000,
        "grpc.http2.ping_timeout_ms": 1_000,
        "grpc.http2.max_pings_without_data": 0,
        "grpc.use_local_subchannel_pool": 1,  # or the connections of another channel would serve
    }


@row(34, "none", "endless")
async def test_row_34_a_call_without_a_deadline_ends_by_the_gateways_limit(
    simulator: Simulator, case: str, expected: Expected
) -> None:
    simulator.script(saying(fault=Fault.STALL, after=3))
    async with scene(simulator.url, timeout_ms=LIMIT) as witness:
        witness.others += 1
        async with http2_client(witness.gateway.server.port) as client:
            request = chat_request()
            request.model = MODEL
            number = client.call(STREAM, request, DEADLINES[case])
            await client.receive_end(number)
        line = await witness.strange_line()
        await witness.aborted(simulator)

    assert simulator.statistics().faults == {Fault.STALL: 1}
    assert told(line) in expected
    assert line["timeout_ms"] == LIMIT


@row(35, "at the gateway", "at the caller", together=True)
async def test_row_35_both_ends_of_a_dead_link_notice(simulator: Simulator, expected: Expected) -> None:
    simulator.script(saying(SAID * 15, pace=0.02))
    async with (
        scene(simulator.url, server=NOTICES_SOON) as witness,
        Proxy(f"http://{witness.gateway.address}") as proxy,
        calling_through(witness, f"127.0.0.1:{proxy.port}", pinging(200)),
    ):
        call = witness.begin("hello", said=SAID * 15)
        await call.deltas(5)
        proxy.hold()
        ending = await call.ending()
        line = await witness.line(call)
        await witness.aborted(simulator)

        assert proxy.counts.connections == 1
        proxy.cut_all()
        proxy.let_go()

    assert told(line) in expected.of("at the gateway")
    assert ending in expected.of("at the caller")


@row(35, "to the backend")
async def test_row_35_a_dead_link_to_the_backend_ends_the_answer_and_is_closed(
    simulator: Simulator, expected: Expected
) -> None:
    health = {"load_interval_ms": 0, "probe_interval_ms": 60_000}
    async with (
        Proxy(simulator.url) as proxy,
        scene(proxy.url, timeouts={"idle_ms": 300}, health=health) as witness,
    ):
        simulator.script(saying(pace=0.02))
        call = witness.begin()
        await call.deltas(3)
        proxy.hold()
        outcome = await call.end()
        simulator_sees = simulator.statistics().running
        proxy.let_go()
        await witness.aborted(simulator)

    assert ending_of(outcome) in expected
    assert (simulator_sees, proxy.counts.cuts) == (1, 0)


@row(36, "allowed")
async def test_row_36_pings_as_often_as_allowed_are_welcome(simulator: Simulator, expected: Expected) -> None:
    """A library's channel pings once a second at most; a bare one does as it likes."""
    simulator.script(saying(fault=Fault.STALL, after=3, seconds=0.7))
    async with scene(simulator.url, server={"min_ping_interval_ms": 20}) as witness:
        witness.others += 1
        async with http2_client(witness.gateway.server.port) as client:
            request = chat_request()
            request.model = MODEL
            number = client.call(STREAM, request)
            await simulator.wait_for(lambda now: Fault.STALL in now.faults)
            for count in range(8):
                await asyncio.sleep(0.05)
                client.send(Kind.PING, count.to_bytes(8, "big"))
                pong = await client.receive_until(Kind.PING, flags=ACK)
                assert pong.payload == count.to_bytes(8, "big")
            await client.receive_end(number)

        assert told(await witness.strange_line()) in expected


@row(36, "too often")
async def test_row_36_a_caller_who_pings_too_often_is_sent_away_and_no_other(
    simulator: Simulator, expected: Expected
) -> None:
    simulator.script(saying(fault=Fault.STALL, after=3))
    async with scene(simulator.url) as witness:
        async with calling_through(witness, witness.gateway.address, pinging(50)):
            call = witness.begin()
            await simulator.wait_for(lambda now: Fault.STALL in now.faults)

            assert await call.ending() in expected
            assert "ping" in str(await call.call.details()).lower()
        await witness.aborted(simulator)
