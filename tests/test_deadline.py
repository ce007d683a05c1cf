# SPDX-License-Identifier: Apache-2.0
"""When a call must end, and the watchdog that ends its waiting: every way in which it can, and must not."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.deadline import NEVER, TimeLimitReached, Watchdog, call_deadline
from llm_gateway.errors import DeadlineExceeded, DrainExpired, FirstTokenTimeout, SlowCaller, StreamStalled

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_gateway.errors import GatewayError

SOON = 0.005
"""Seconds until something that is meant to happen in a test."""
LATER = 3600.0
SECONDS = st.floats(0, 1e6)


# ------------------------------------------------------------------------------------------------------ call_deadline


@given(now=SECONDS, remaining=st.none() | st.floats(-10, 1e6), cap=SECONDS)
def test_a_call_ends_within_both_limits_and_never_in_the_past(now: float, remaining: float | None, cap: float) -> None:
    deadline = call_deadline(now, remaining, cap)

    assert now <= deadline <= now + cap
    assert remaining is None or deadline <= max(now, now + remaining)


@given(remaining=SECONDS)
def test_the_callers_deadline_is_met_a_little_early(remaining: float) -> None:
    """Early enough for the details to arrive, and by no more than 50 ms or 5 %."""
    early = remaining - call_deadline(0.0, remaining, NEVER)

    assert early == pytest.approx(min(0.05, remaining * 0.05), abs=1e-9)


@given(shorter=SECONDS, longer=SECONDS)
def test_a_later_deadline_of_the_callers_never_ends_the_call_earlier(shorter: float, longer: float) -> None:
    shorter, longer = sorted((shorter, longer))

    assert call_deadline(0.0, shorter, LATER) <= call_deadline(0.0, longer, LATER)


def test_without_a_deadline_of_the_callers_the_gateways_limit_is_all() -> None:
    assert call_deadline(100.0, None, 7.0) == 107.0


# ----------------------------------------------------------------------------------------------------------- watchdog


def soon() -> float:
    return time.monotonic() + SOON


def stalled() -> GatewayError:
    return StreamStalled("too late")


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_what_ends_in_time_is_not_disturbed() -> None:
    watchdog = Watchdog(time.monotonic() + LATER)
    with watchdog:
        watchdog.expect(time.monotonic() + LATER, stalled)
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("watchdog", "expected"),
    [
        (lambda: Watchdog(soon()), DeadlineExceeded),
        (lambda: Watchdog(time.monotonic() - 1), DeadlineExceeded),
        (lambda: Watchdog(NEVER, soon()), TimeLimitReached),
        (lambda: Watchdog(NEVER, time.monotonic() - 1), TimeLimitReached),
        (lambda: Watchdog(soon(), time.monotonic() + LATER), DeadlineExceeded),
    ],
    ids=["deadline", "a deadline that has passed", "time limit", "a time limit that has passed", "the earlier of both"],
)
async def test_a_limit_that_passes_ends_the_waiting(
    watchdog: Callable[[], Watchdog], expected: type[Exception]
) -> None:
    with pytest.raises(expected), watchdog():
        await forever()


async def test_the_limit_of_a_phase_ends_the_waiting_with_its_own_error() -> None:
    watchdog = Watchdog(time.monotonic() + LATER)

    async def waiting() -> None:
        with watchdog:
            watchdog.expect(soon(), stalled)
            await forever()

    with pytest.raises(StreamStalled, match="too late"):
        await waiting()


async def test_a_limit_that_moves_away_does_not_strike() -> None:
    watchdog = Watchdog(time.monotonic() + LATER)
    with watchdog:
        watchdog.expect(soon(), stalled)
        watchdog.extend(time.monotonic() + LATER)
        await asyncio.sleep(3 * SOON)


async def test_a_limit_whose_error_is_none_yet_strikes_where_it_was_moved_to() -> None:
    watchdog = Watchdog(time.monotonic() + LATER)
    asked: list[float] = []

    def in_a_while() -> GatewayError | None:
        asked.append(time.monotonic())
        if len(asked) > 1:
            return stalled()
        watchdog.extend(soon())
        return None

    async def waiting() -> None:
        with watchdog:
            watchdog.expect(soon(), in_a_while)
            await forever()

    with pytest.raises(StreamStalled):
        await waiting()
    assert asked[1] - asked[0] >= SOON


async def test_a_limit_that_comes_nearer_strikes_at_its_new_time() -> None:
    """As where the long wait for the first token becomes the short one for the next."""
    watchdog = Watchdog(time.monotonic() + LATER)

    async def waiting() -> None:
        with watchdog:
            watchdog.expect(time.monotonic() + LATER, lambda: FirstTokenTimeout("not this one"))
            await asyncio.sleep(0)
            watchdog.expect(soon(), stalled)
            await forever()

    with pytest.raises(StreamStalled):
        await waiting()


async def test_a_limit_is_of_one_phase_and_gone_with_it() -> None:
    watchdog = Watchdog(time.monotonic() + LATER)
    with watchdog:
        watchdog.expect(soon(), stalled)
    with watchdog:
        await asyncio.sleep(3 * SOON)


async def test_a_limit_set_before_the_waiting_begins_holds_in_it() -> None:
    watchdog = Watchdog(time.monotonic() + LATER)
    watchdog.expect(soon(), stalled)
    with pytest.raises(StreamStalled), watchdog:
        await forever()


async def test_a_limit_without_an_error_strikes_nobody() -> None:
    """Nothing was expected, so that nothing can be late; the deadline still is."""
    watchdog = Watchdog(soon())

    async def waiting() -> None:
        with watchdog:
            watchdog.extend(time.monotonic() + SOON / 2)
            await forever()

    with pytest.raises(DeadlineExceeded):
        await waiting()


@pytest.mark.parametrize("soft", [False, True], ids=["the limit of the phase", "the time limit"])
async def test_a_hold_is_not_struck_by(soft: bool) -> None:
    watchdog = Watchdog(time.monotonic() + LATER, soon() if soft else NEVER)
    with watchdog:
        if not soft:
            watchdog.expect(soon(), stalled)
        watchdog.hold(NEVER)
        await asyncio.sleep(3 * SOON)


async def test_a_deadline_strikes_in_a_hold() -> None:
    watchdog = Watchdog(soon())

    async def waiting() -> None:
        with watchdog:
            watchdog.hold(NEVER)
            await forever()

    with pytest.raises(DeadlineExceeded):
        await waiting()


async def test_a_time_limit_that_passed_in_a_hold_strikes_after_it() -> None:
    watchdog = Watchdog(time.monotonic() + LATER, soon())

    async def waiting() -> None:
        with watchdog:
            watchdog.hold(NEVER)
            await asyncio.sleep(2 * SOON)
            watchdog.extend(time.monotonic() + LATER)
            await forever()

    with pytest.raises(TimeLimitReached):
        await waiting()


async def test_a_time_limit_strikes_once() -> None:
    """What is left to do then is to end the answer well, and that must not be cut off."""
    watchdog = Watchdog(time.monotonic() + LATER, soon())
    with pytest.raises(TimeLimitReached), watchdog:
        await forever()

    with watchdog:
        watchdog.extend(time.monotonic() + LATER)
        await asyncio.sleep(3 * SOON)


async def test_the_deadline_is_told() -> None:
    assert Watchdog(42.0).deadline == 42.0


# ---------------------------------------------------------------------------------------------------------- interrupt


async def test_an_interruption_ends_the_waiting() -> None:
    watchdog = Watchdog(NEVER)
    asyncio.get_running_loop().call_soon(watchdog.interrupt, DrainExpired("enough"))

    with pytest.raises(DrainExpired, match="enough"), watchdog:
        await forever()


async def test_an_interruption_between_two_waits_ends_the_next_before_it_begins() -> None:
    watchdog = Watchdog(NEVER)
    watchdog.interrupt(DrainExpired("enough"))

    with pytest.raises(DrainExpired), watchdog:
        raise AssertionError("begun")


async def test_the_first_of_two_interruptions_counts() -> None:
    watchdog = Watchdog(NEVER)
    loop = asyncio.get_running_loop()
    loop.call_soon(watchdog.interrupt, DrainExpired("first"))
    loop.call_soon(watchdog.interrupt, DrainExpired("second"))

    with pytest.raises(DrainExpired, match="first"), watchdog:
        await forever()


async def test_an_interruption_and_a_deadline_at_once_are_one_ending() -> None:
    """Two cancellations would leave the task cancelled once more than was taken back."""
    task = asyncio.current_task()
    assert task is not None
    watchdog = Watchdog(time.monotonic() - 1)
    asyncio.get_running_loop().call_soon(watchdog.interrupt, DrainExpired("enough"))

    with pytest.raises(DrainExpired), watchdog:
        await forever()

    assert task.cancelling() == 0
    await asyncio.sleep(0)


@pytest.mark.parametrize("what", ["interruption", "deadline"])
async def test_what_comes_while_the_watchdog_defers_is_raised_when_it_resumes(what: str) -> None:
    watchdog = Watchdog(soon() if what == "deadline" else NEVER)

    async def deferring() -> list[str]:
        steps = []
        with watchdog:
            watchdog.defer()
            if what == "interruption":
                watchdog.interrupt(DrainExpired("enough"))
            await asyncio.sleep(3 * SOON)
            steps.append("not broken off")
            with pytest.raises(DeadlineExceeded if what == "deadline" else DrainExpired):
                watchdog.resume()
        return steps

    assert await deferring() == ["not broken off"]


async def test_a_watchdog_that_deferred_heeds_what_comes_afterwards() -> None:
    watchdog = Watchdog(NEVER)

    async def waiting() -> None:
        with watchdog:
            watchdog.defer()
            watchdog.resume()
            watchdog.interrupt(DrainExpired("enough"))
            await forever()

    with pytest.raises(DrainExpired):
        await waiting()


@pytest.mark.parametrize("limit", [None, LATER], ids=["alone", "though a phase has longer"])
async def test_a_write_that_takes_too_long_ends_the_call(limit: float | None) -> None:
    watchdog = Watchdog(NEVER)

    async def writing() -> None:
        with watchdog:
            if limit is not None:
                watchdog.expect(time.monotonic() + limit, stalled)
            watchdog.hold(soon())
            await forever()

    with pytest.raises(SlowCaller):
        await writing()


async def test_a_write_that_ended_in_time_leaves_no_limit_behind() -> None:
    watchdog = Watchdog(NEVER)
    with watchdog:
        watchdog.hold(soon())
        watchdog.extend(NEVER)
        await asyncio.sleep(3 * SOON)


async def test_an_interruption_strikes_in_a_hold() -> None:
    watchdog = Watchdog(NEVER)
    asyncio.get_running_loop().call_soon(watchdog.interrupt, DrainExpired("enough"))

    async def waiting() -> None:
        with watchdog:
            watchdog.hold(NEVER)
            await forever()

    with pytest.raises(DrainExpired):
        await waiting()


# ------------------------------------------------------------------------------------------------------- cancellation


async def test_the_task_is_as_free_afterwards_as_before() -> None:
    """The watchdog works by a cancellation of its own, and takes it back."""
    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(DeadlineExceeded), Watchdog(time.monotonic() - 1):
        await forever()

    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_a_cancellation_from_outside_is_one() -> None:
    async def waiting() -> None:
        with Watchdog(time.monotonic() + LATER):
            await forever()

    task = asyncio.create_task(waiting())
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_from_outside_beats_ours() -> None:
    """The caller has left: nobody is there to be told that it was late."""
    watchdog = Watchdog(NEVER)

    async def waiting() -> None:
        with watchdog:
            await forever()

    task = asyncio.create_task(waiting())
    await asyncio.sleep(0)
    watchdog.interrupt(DrainExpired("enough"))
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_bodys_own_is_kept() -> None:
    """What went wrong while it was being ended is more than that it was ended."""

    async def waiting() -> None:
        with Watchdog(time.monotonic() - 1):
            try:
                await forever()
            except asyncio.CancelledError:
                raise KeyError from None

    with pytest.raises(KeyError):
        await waiting()


async def test_an_error_of_the_bodys_passes_when_nothing_struck() -> None:
    with pytest.raises(KeyError), Watchdog(time.monotonic() + LATER):
        raise KeyError


async def test_it_strikes_beside_a_timeout_of_asyncios() -> None:
    """Both cancel the task; each takes back its own."""
    watchdog = Watchdog(NEVER)
    asyncio.get_running_loop().call_soon(watchdog.interrupt, DrainExpired("enough"))

    async def waiting() -> None:
        with watchdog:
            async with asyncio.timeout(0):
                await forever()

    with pytest.raises(DrainExpired):
        await waiting()
