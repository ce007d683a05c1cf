# SPDX-License-Identifier: Apache-2.0
"""Rows 16 to 25: backends that break, fall silent or talk nonsense after the first token; and odd but good answers."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from llm_gateway.simulator import Fault
from tests.faults.invariants import CANARY, SAID, UNDISTURBED, asking, saying, scene
from tests.faults.matrix import Expected, attempts_of, ending_of, row
from tests.kit.proxy import Cut, Line, Proxy
from tests.kit.scripted import DONE, STREAM_HEAD, Close, ScriptedBackend, chunk, event

if TYPE_CHECKING:
    from llm_gateway.simulator import Behaviour, Simulator

IDLE = 300
"""Milliseconds, for an idle timer that is meant to pass."""
PACED = asking(pace_ms=5)


def assert_broken(outcome: Any) -> None:
    """Something was delivered, in one attempt, and nothing looks like an end."""
    assert 0 < len(outcome.text()) < len(SAID)
    assert outcome.finish() == "UNSPECIFIED"
    assert [name for name, _ in attempts_of(outcome)] == ["a"]
    assert outcome.failure.report.last_sequence == len(outcome.events)


@row(16)
@pytest.mark.parametrize("fault", [Fault.RESET, Fault.CUT, Fault.EOF])
async def test_row_16_half_an_answer_never_looks_whole(simulator: Simulator, fault: Fault, expected: Expected) -> None:
    simulator.script(saying(fault=fault, after=10, pace=0.005))
    async with scene(simulator.url) as witness:
        outcome = await witness.stream()

    assert ending_of(outcome) in expected
    assert simulator.statistics().faults == {fault: 1}
    assert_broken(outcome)


@row(16)
@pytest.mark.parametrize("cut", [Cut.RESET, Cut.CLOSE, Cut.HALF])
async def test_row_16_an_answer_that_breaks_inside_an_event_is_broken(
    simulator: Simulator, cut: Cut, expected: Expected
) -> None:
    async with Proxy(simulator.url) as proxy, scene(proxy.url, health=UNDISTURBED) as witness:
        await proxy.stop()  # the connection of the first probe was not begun like this
        proxy.line = Line(cut=cut, after=5_000)
        await proxy.accept()
        outcome = await witness.stream(PACED)
        await witness.aborted(simulator)

    assert ending_of(outcome) in expected
    assert proxy.counts.cuts
    assert_broken(outcome)


def silences() -> dict[str, Behaviour]:
    """Ways to send nothing that carries a choice."""
    return {
        "stall": saying(fault=Fault.STALL, after=10, pace=0.005),
        "comments": saying(fault=Fault.KEEP_ALIVES, after=10, pace=0.005),
    }


async def fall_silent(simulator: Simulator, how: str, expected: Expected) -> None:
    """The backend falls silent after some tokens; the idle timer ends it, not before its time."""
    simulator.script(silences()[how])
    async with scene(simulator.url, timeouts={"idle_ms": IDLE}) as witness:
        call = witness.begin()
        await call.deltas(1)
        began = time.monotonic()
        outcome = await call.end()
        await witness.aborted(simulator)

    assert ending_of(outcome) in expected
    assert time.monotonic() - began >= IDLE / 1000
    assert simulator.statistics().faults == {silences()[how].fault: 1}
    assert_broken(outcome)


@row(17)
async def test_row_17_a_backend_that_falls_silent_is_given_up_by_the_idle_timer(
    simulator: Simulator, expected: Expected
) -> None:
    await fall_silent(simulator, "stall", expected)


@row(17)
async def test_row_17_a_network_that_falls_silent_is_given_up_by_the_idle_timer(
    simulator: Simulator, expected: Expected
) -> None:
    async with (
        Proxy(simulator.url) as proxy,
        scene(proxy.url, timeouts={"idle_ms": IDLE}, health=UNDISTURBED) as witness,
    ):
        call = witness.begin(asking(pace_ms=20))
        await call.deltas(3)
        proxy.hold()
        outcome = await call.end()
        proxy.let_go()
        await witness.aborted(simulator)

    assert ending_of(outcome) in expected
    assert_broken(outcome)


@row(18)
async def test_row_18_comments_are_no_sign_of_life(simulator: Simulator, expected: Expected) -> None:
    await fall_silent(simulator, "comments", expected)


@row(19)
async def test_row_19_a_slow_answer_takes_as_long_as_it_takes(simulator: Simulator, expected: Expected) -> None:
    said = f"{CANARY} goes slowly"
    timeouts = {"idle_ms": 1_000, "first_token_ms": 1_000}
    async with scene(simulator.url, timeouts=timeouts) as witness:
        began = time.monotonic()
        outcome = await witness.stream(asking(said, pace_ms=300), said=said)

    assert ending_of(outcome) in expected
    assert time.monotonic() - began > 1.0
    assert attempts_of(outcome) == [("a", "")]


GARBAGE = {
    "no JSON": saying(fault=Fault.GARBAGE, body=f"{CANARY} {{not json".encode()),
    "not an object": saying(fault=Fault.NULL_EVENT),
    "another schema": saying(fault=Fault.GARBAGE, body=f'{{"choices": "{CANARY}"}}'.encode()),
}


@row(20, "before the first token", "after it")
@pytest.mark.parametrize("behaviour", GARBAGE.values(), ids=GARBAGE)
async def test_row_20_nonsense_ends_the_answer_and_is_not_told(
    simulator: Simulator, behaviour: Behaviour, case: str, expected: Expected
) -> None:
    simulator.script(at(behaviour, case))
    async with scene(simulator.url) as witness:
        outcome = await witness.stream()
        await witness.aborted(simulator)

    assert ending_of(outcome) in expected
    assert simulator.statistics().faults == {behaviour.fault: 1}
    assert simulator.statistics().requests_seen == 1


@row(21, "before the first token", "after it")
async def test_row_21_an_error_under_http_200_is_an_error(simulator: Simulator, case: str, expected: Expected) -> None:
    simulator.script(*[at(saying(fault=Fault.ERROR_EVENT), case)] * 3)
    async with scene(simulator.url) as witness:
        outcome = await witness.stream()

    assert ending_of(outcome) in expected
    assert simulator.statistics().faults == {Fault.ERROR_EVENT: 3 if case == "before the first token" else 1}


def at(behaviour: Behaviour, case: str) -> Behaviour:
    """A fault before the first token, or after some."""
    return replace(behaviour, after=0 if case == "before the first token" else 10, pace=0.005)


@row(22)
@pytest.mark.parametrize("fault", [Fault.DRIBBLE, Fault.CRLF, Fault.NO_SPACE, Fault.MULTI_LINE, Fault.BURST])
async def test_row_22_odd_framing_does_not_change_the_text(
    simulator: Simulator, fault: Fault, expected: Expected
) -> None:
    said = f"{CANARY}: naïve 日本語 🌍👩‍👩‍👧 e\u0301 a\u2028b\u0085c end"
    simulator.script(saying(said, fault=fault))
    async with scene(simulator.url) as witness:
        outcome = await witness.stream(said=said)

    assert ending_of(outcome) in expected
    assert outcome.text() == said
    assert simulator.statistics().faults == {fault: 1}


@row(23, "before the first token", "after it")
async def test_row_23_an_event_without_an_end_is_not_read_to_its_end(case: str, expected: Expected) -> None:
    first = [] if case == "before the first token" else [chunk("first")]
    piece = b"x" * 65536
    endless = ScriptedBackend([STREAM_HEAD, *first, b'data: {"', *[piece] * 1000, Close])
    async with endless as backend, scene(backend.url, backend={"max_event_bytes": 2**20}) as witness:
        outcome = await witness.stream(said="first")

    assert ending_of(outcome) in expected
    assert 2**20 < backend.sent < 500 * len(piece)
    assert len(backend.requests) == 1


@row(24, "whole")
@pytest.mark.parametrize("fault", [Fault.NO_DONE, Fault.DUPLICATE_FINISH, Fault.LATE_DATA])
async def test_row_24_what_is_wrong_behind_the_end_does_not_make_an_answer_bad(
    simulator: Simulator, fault: Fault, expected: Expected
) -> None:
    simulator.script(saying(fault=fault))
    async with scene(simulator.url) as witness:
        outcomes = [await witness.stream()]
        outcomes += [await witness.stream(said=f"{CANARY} {number}") for number in range(3)]

    for outcome in outcomes:
        assert ending_of(outcome) in expected
    assert simulator.statistics().faults == {fault: 1}


@row(24, "no finish reason")
async def test_row_24_done_without_a_finish_reason_is_no_end(simulator: Simulator, expected: Expected) -> None:
    simulator.script(saying(fault=Fault.NO_FINISH, after=10, pace=0.005))
    async with scene(simulator.url) as witness:
        outcome = await witness.stream()

    assert ending_of(outcome) in expected
    assert simulator.statistics().faults == {Fault.NO_FINISH: 1}
    assert_broken(outcome)


@row(25)
async def test_row_25_a_usage_that_is_missing_is_estimated(simulator: Simulator, expected: Expected) -> None:
    simulator.script(saying(fault=Fault.NO_USAGE))
    async with scene(simulator.url) as witness:
        outcome = await witness.stream()

    assert ending_of(outcome) in expected
    assert simulator.statistics().faults == {Fault.NO_USAGE: 1}
    assert outcome.completed.usage.estimated
    assert outcome.completed.usage.completion_tokens > 0


@row(25)
@pytest.mark.parametrize("number", [-1, 2**31, 2**64, 1e300, "many", None])
async def test_row_25_a_usage_that_is_absurd_is_estimated(number: Any, expected: Expected) -> None:
    counts = {"prompt_tokens": 3, "completion_tokens": number, "total_tokens": 3}
    absurd = event({"id": "1", "object": "chat.completion.chunk", "model": "m", "choices": [], "usage": counts})
    said = "one two three"
    script = [STREAM_HEAD, *(chunk(word) for word in re.findall(" ?[a-z]+", said)), chunk(finish="stop"), absurd, DONE]
    async with ScriptedBackend([*script, Close]) as backend, scene(backend.url) as witness:
        outcome = await witness.stream(said=said)

    assert ending_of(outcome) in expected
    usage = outcome.completed.usage
    assert (usage.completion_tokens, usage.estimated) == (3, True)
