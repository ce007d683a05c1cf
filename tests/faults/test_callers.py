# SPDX-License-Identifier: Apache-2.0
"""Rows 28 to 33: callers who leave, who fall silent, who do not read, and whose time is up."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from llm_gateway.simulator import Behaviour, Fault
from tests.faults.invariants import MODEL, SAID, saying, scene
from tests.faults.matrix import OK, Ending, Expected, ending_of, row, told
from tests.kit.calls import chat_request, until
from tests.kit.processes import caller_process
from tests.kit.scripted import STREAM_HEAD, Pause, ScriptedBackend, chunk
from tests.kit.sockets import connecting_to, deaf_listener
from tests.kit.waiting import settled

if TYPE_CHECKING:
    from llm_gateway.simulator import Simulator
    from tests.faults.invariants import Streaming, Witness

ONE_SEAT = {"max_in_flight": 1}
LONG = " ".join([SAID] * 15)
"""Takes some ten seconds at the pace of `long_answer`."""
PIECES = [f"{number:06}" + "x" * 65_530 for number in range(1000)]
"""64 MB: several times what all buffers between a backend and a caller hold."""


def long_answer() -> Behaviour:
    """One that is still under way when its caller does whatever it does."""
    return saying(LONG, pace=0.02)


async def leaving(witness: Witness, call: Streaming) -> Ending:
    """The caller leaves: how the call ends, and that its seat is free for the next one."""
    call.leave()
    return told(await witness.line(call))


# ------------------------------------------------------------------------------------------------------------- leaving


@row(28, "before the backend is asked")
async def test_row_28_a_caller_leaves_while_the_gateway_connects(expected: Expected) -> None:
    health = {"probe_interval_ms": 60_000, "probe_timeout_ms": 50, "load_interval_ms": 0}
    with deaf_listener() as port:
        async with scene(f"http://127.0.0.1:{port}", timeouts={"connect_ms": 60_000}, health=health) as witness:
            others = await settled(lambda: connecting_to(port), calm=0.3)
            call = witness.begin(timeout=60)
            await until(lambda: connecting_to(port) > others)

            assert await leaving(witness, call) in expected
            await until(lambda: connecting_to(port) <= others)


@row(28, "queued")
async def test_row_28_a_caller_leaves_the_queue(simulator: Simulator, expected: Expected) -> None:
    async with scene(simulator.url, model=ONE_SEAT) as witness:
        simulator.script(long_answer())
        holder = witness.begin(said=LONG)
        await holder.deltas(1)
        call = witness.begin()
        await until(lambda: witness.gateway.server.queued == 1)

        assert await leaving(witness, call) in expected
        await until(lambda: witness.gateway.server.queued == 0)
        assert simulator.statistics().requests_seen == 1
        holder.leave()
        assert ending_of(await witness.stream()) == OK


POINTS = {
    "before the first token": [saying(fault=Fault.SLOW_HEADER), saying(fault=Fault.STALL, role_first=True)],
    "in mid-stream": [saying(fault=Fault.STALL, after=5)],
}


@row(28, "before the first token", "in mid-stream")
async def test_row_28_a_caller_leaves_frees_the_backend(simulator: Simulator, case: str, expected: Expected) -> None:
    for behaviour in POINTS[case]:
        simulator.script(behaviour)
    async with scene(simulator.url, model=ONE_SEAT) as witness:
        for count, behaviour in enumerate(POINTS[case], 1):
            call = witness.begin()
            await simulator.wait_for(lambda now, fault=behaviour.fault: fault in now.faults)  # type: ignore[misc]

            assert await leaving(witness, call) in expected
            await witness.aborted(simulator, count)
        assert ending_of(await witness.stream()) == OK


@row(28, "after the last token")
async def test_row_28_a_caller_leaves_with_the_whole_answer(simulator: Simulator, expected: Expected) -> None:
    async with scene(simulator.url, model=ONE_SEAT) as witness:
        call = witness.begin()
        while not call.events or call.events[-1].WhichOneof("event") != "completed":
            call.events.append(await anext(call.rest))

        assert await leaving(witness, call) in expected
        assert ending_of(await witness.stream()) == OK
    assert simulator.statistics().aborted == 0


# ------------------------------------------------------------------------------------------------------- falling silent


@row(29)
async def test_row_29_an_abandoned_call_is_ended_by_the_gateways_limit(
    simulator: Simulator, expected: Expected
) -> None:
    """Since grpcio 1.83 a call whose iterator is left is not cancelled; that the channel is there keeps it going."""
    async with scene(simulator.url, timeout_ms=700) as witness:
        simulator.script(long_answer())
        request = chat_request()
        request.model = MODEL
        call = witness.gateway.stub.ChatCompletionStream(request)
        witness.others += 1
        async for event in call:
            if event.WhichOneof("event") == "delta":
                break

        ending = told(await witness.strange_line())
        await witness.aborted(simulator)

        assert not call.done()
        call.cancel()  # what is left of it on this side

    assert ending in expected


@row(30)
async def test_row_30_a_caller_who_is_killed_has_left(simulator: Simulator, expected: Expected) -> None:
    simulator.script(long_answer())
    async with scene(simulator.url, default_model=MODEL) as witness:
        witness.others += 1
        async with caller_process(witness.gateway.address) as caller:
            words = [(await caller.line()).strip() for _ in range(5)]
            caller.send(signal.SIGKILL)
            line = await witness.strange_line()
            await witness.aborted(simulator)

            assert await caller.exit_code() == -signal.SIGKILL

    assert words == ["started", *["delta"] * 4]
    assert told(line) in expected
    assert (line["completion_tokens"] >= 4, line["usage_estimated"]) == (True, True)


@row(31)
async def test_row_31_a_caller_who_is_frozen_is_found_gone(simulator: Simulator, expected: Expected) -> None:
    simulator.script(saying(fault=Fault.STALL, after=3))
    server = {"keepalive_time_ms": 100, "keepalive_timeout_ms": 1_000}
    async with scene(simulator.url, default_model=MODEL, server=server) as witness:
        witness.others += 1
        async with caller_process(witness.gateway.address) as caller:
            assert (await caller.line()).strip() == "started"
            await simulator.wait_for(lambda now: Fault.STALL in now.faults)
            caller.send(signal.SIGSTOP)
            line = await witness.strange_line()
            await witness.aborted(simulator)

            assert caller.state == "T"

    assert told(line) in expected
    assert line["completion_tokens"] == 3


@row(32)
async def test_row_32_a_caller_who_never_reads_holds_the_backend_back_and_is_ended(expected: Expected) -> None:
    """What the backend could send is all that anybody can hold of it: that it stands still bounds the memory."""
    chunks = list(map(chunk, PIECES))
    size = sum(map(len, chunks))
    async with ScriptedBackend([STREAM_HEAD, *chunks, Pause()]) as backend:
        async with scene(backend.url, server={"max_stall_ms": 1_000}) as witness:
            call = witness.begin("hello", said="".join(PIECES))
            await until(lambda: backend.sent)
            sent = await settled(lambda: backend.sent, calm=0.3)
            assert not backend.left.is_set()

            line = await witness.line(call)
            await asyncio.wait_for(backend.left.wait(), 10)
            outcome = await call.end()

        assert sent <= backend.sent < size / 2
    assert ending_of(outcome) in expected
    assert told(line) == ending_of(outcome)


# ------------------------------------------------------------------------------------------------------------ deadlines

TRIES = 10
"""A status of ours leaves 50 ms before the deadline: on a busy machine it may come too late, when gRPC has ended it."""


@row(33, "1 ms")
async def test_row_33_a_deadline_that_cannot_be_met_hangs_nothing(simulator: Simulator, expected: Expected) -> None:
    async with scene(simulator.url) as witness:
        for _ in range(TRIES):
            witness.lost += 1  # such a call may never come to a handler
            simulator.script(saying(fault=Fault.STALL))
            assert await witness.begin(timeout=0.001).ending() in expected
        await simulator.wait_for(lambda now: now.running == now.waiting == 0)


@row(33, "in mid-stream")
async def test_row_33_a_deadline_in_mid_stream_is_told_with_the_bill(simulator: Simulator, expected: Expected) -> None:
    endings: list[Ending] = []
    async with scene(simulator.url) as witness:
        while not endings or (len(endings) < TRIES and endings[-1] not in expected):
            simulator.script(saying(fault=Fault.STALL, after=5))
            call = witness.begin(timeout=1.0)
            endings.append(await call.ending())
            await witness.aborted(simulator, len(endings))
            line = await witness.line(call)
            assert (line["completion_tokens"], line["usage_estimated"]) == (5, True)

    assert endings[-1] in expected
    assert set(endings[:-1]) <= {Ending("DEADLINE_EXCEEDED", "–")}


@row(33, "at the finish")
async def test_row_33_an_answer_that_ends_with_its_deadline_has_one_ending(
    simulator: Simulator, expected: Expected
) -> None:
    """The witness finds fault with a call that has two, and with `completed` before a bad status."""
    count = 30
    async with scene(simulator.url) as witness:
        simulator.script(*[Behaviour(text="canary one two three", pace=0.01)] * count)
        calls = [witness.begin(said="canary one two three", timeout=0.04 + 0.002 * number) for number in range(count)]
        witness.lost += count
        endings = await asyncio.gather(*(call.ending() for call in calls))
        await simulator.wait_for(lambda now: now.running == now.waiting == 0)

    for ending in endings:
        assert ending in expected
