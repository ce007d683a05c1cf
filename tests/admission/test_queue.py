# SPDX-License-Identifier: Apache-2.0
"""Who waits gets a seat in turn; who leaves the queue leaves it at once, and what they were given goes on."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from llm_gateway.admission import Admission, Limits
from llm_gateway.deadline import NEVER, TimeLimitReached
from llm_gateway.errors import CancelledByOperator, DeadlineTooShort, QueueTimeout
from llm_gateway.generation import Priority
from tests.admission.callers import Caller, Clock, all_leave, comes, desk_of, settle, ticket

if TYPE_CHECKING:
    from collections.abc import Callable

SOON = 0.005
"""Seconds until something that is meant to happen in a test."""
LATER = 3600.0


async def test_who_came_first_is_served_first() -> None:
    desk = desk_of(1)
    callers = [await comes(desk) for _ in range(4)]
    served = []
    for caller in callers:
        await settle()
        served.append([one.seated for one in callers].index(True))
        caller.leave()
    await all_leave(*callers)

    assert served == [0, 1, 2, 3]


async def test_a_newcomer_does_not_overtake_who_was_handed_the_seat_but_has_not_sat_down_yet() -> None:
    desk = desk_of(1)
    first = desk.admit(ticket())
    await first.__aenter__()
    waiting = await comes(desk)

    await first.__aexit__(None, None, None)  # and no turn of the loop
    newcomer = Caller(desk)
    await settle()

    assert [waiting.seated, newcomer.seated] == [True, False]

    await all_leave(waiting, newcomer)


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (lambda caller: caller.task.cancel(), asyncio.CancelledError),
        (lambda caller: caller.ticket.watchdog.interrupt(CancelledByOperator("Enough.")), CancelledByOperator),
    ],
    ids=["cancelled", "interrupted"],
)
class TestWhoIsEnded:
    """Each of these holds for a caller who cancels and for one whom an operator ends."""

    async def test_while_it_waits_leaves_the_queue(
        self, end: Callable[[Caller], object], expected: type[BaseException]
    ) -> None:
        desk = desk_of(1)
        seated, ended, behind = [await comes(desk, size=5) for _ in range(3)]

        end(ended)

        assert isinstance(await ended.end(), expected)
        assert (desk.statistics().queued, desk.statistics().queued_bytes) == (1, 5)
        assert desk.model_statistics("").queued == 1
        assert not ended.was_seated

        await all_leave(seated, behind)

    async def test_at_the_moment_in_which_it_is_handed_a_seat_hands_it_on(
        self, end: Callable[[Caller], object], expected: type[BaseException]
    ) -> None:
        desk = desk_of(1)
        first = desk.admit(ticket())
        await first.__aenter__()
        ended, behind = await comes(desk), await comes(desk)

        await first.__aexit__(None, None, None)
        end(ended)
        await settle()

        assert isinstance(ended.error, expected)
        assert not ended.was_seated
        assert behind.seated

        await all_leave(behind)

    async def test_at_the_moment_before_a_seat_comes_free_is_passed_by(
        self, end: Callable[[Caller], object], expected: type[BaseException]
    ) -> None:
        desk = desk_of(1)
        first = desk.admit(ticket())
        await first.__aenter__()
        ended, behind = await comes(desk), await comes(desk)

        end(ended)
        await first.__aexit__(None, None, None)
        await settle()

        assert isinstance(ended.error, expected)
        assert behind.seated
        assert desk.statistics().queued == 0

        await all_leave(behind)

    async def test_when_there_is_nobody_to_hand_it_on_to_leaves_it_free(
        self, end: Callable[[Caller], object], expected: type[BaseException]
    ) -> None:
        desk = desk_of(1)
        first = desk.admit(ticket())
        await first.__aenter__()
        ended = await comes(desk)

        await first.__aexit__(None, None, None)
        end(ended)

        assert isinstance(await ended.end(), expected)
        assert desk.statistics().in_flight == 0
        await desk.drained()


async def test_a_call_that_was_ended_before_it_came_does_not_wait() -> None:
    desk = desk_of(1)
    seated = await comes(desk)
    ended = ticket()
    ended.watchdog.interrupt(CancelledByOperator("Enough."))
    caller = await comes(desk, ended)

    assert isinstance(caller.error, CancelledByOperator)
    assert desk.statistics().evicted == {"CANCELLED_BY_OPERATOR": 1}

    await all_leave(seated)


async def test_nobody_waits_longer_than_the_longest_wait() -> None:
    desk = desk_of(1, max_wait=SOON)
    seated, late = await comes(desk), await comes(desk)

    error = await late.end()

    assert isinstance(error, QueueTimeout)
    assert error.retry_after == 1.0, "nothing was measured"
    assert desk.statistics().queued == 0

    await all_leave(seated)


async def test_a_deadline_that_passes_in_the_queue_says_that_nothing_was_tried() -> None:
    desk = desk_of(1)
    seated, late = await comes(desk), await comes(desk, deadline=time.monotonic() + SOON)

    assert isinstance(await late.end(), DeadlineTooShort)
    assert desk.statistics().evicted == {"DEADLINE_TOO_SHORT": 1}

    await all_leave(seated)


async def test_a_time_limit_that_passes_in_the_queue_is_the_gateways_to_heed() -> None:
    desk = desk_of(1)
    seated, late = await comes(desk), await comes(desk, soft=time.monotonic() + SOON)

    assert isinstance(await late.end(), TimeLimitReached)
    assert desk.statistics().evicted == {"TIME_LIMIT": 1}

    await all_leave(seated)


async def test_the_longest_wait_is_over_with_the_wait() -> None:
    """The call then runs for as long as it takes."""
    desk = desk_of(1, max_wait=2 * SOON)
    first, second = await comes(desk), await comes(desk)
    first.leave()
    await asyncio.sleep(4 * SOON)

    assert second.seated

    await all_leave(second)


async def test_a_seat_never_goes_to_a_call_whose_deadline_has_passed() -> None:
    """Its own timer may be late, when a seat comes free in the turn of the loop in which it is due."""
    clock = Clock()
    desk = Admission(Limits(max_in_flight=1), clock=clock)
    seated, late, behind = (
        await comes(desk),
        await comes(desk, deadline=clock.now + LATER),
        await comes(desk),
    )
    clock.now += LATER

    seated.leave()
    await settle()

    assert isinstance(late.error, DeadlineTooShort)
    assert [late.was_seated, behind.seated] == [False, True]

    await all_leave(behind)


async def test_a_call_with_too_little_time_left_lets_the_next_one_have_the_seat() -> None:
    """Else each seat of a long queue goes to a call that does not get done."""
    clock = Clock()
    desk = Admission(Limits(max_in_flight=1), clock=clock)
    seated, late, behind = (
        await comes(desk),
        await comes(desk, deadline=clock.now + LATER),
        await comes(desk),
    )
    clock.now += 0.6 * LATER

    seated.leave()
    await settle()

    assert isinstance(late.error, DeadlineTooShort)
    assert behind.seated

    await all_leave(behind)


async def test_a_call_with_little_time_left_gets_a_seat_that_nobody_else_wants() -> None:
    clock = Clock()
    desk = Admission(Limits(max_in_flight=1), clock=clock)
    seated, hasty = await comes(desk), await comes(desk, deadline=clock.now + LATER)
    clock.now += 0.6 * LATER

    seated.leave()
    await settle()

    assert hasty.seated

    await all_leave(hasty)


async def test_interactive_goes_before_batch() -> None:
    desk = desk_of(1)
    seated = await comes(desk)
    batch, interactive = await comes(desk, priority=Priority.BATCH), await comes(desk)

    seated.leave()
    await settle()

    assert [batch.seated, interactive.seated] == [False, True]

    await all_leave(batch, interactive)


async def test_whoever_waited_longest_goes_first_among_models() -> None:
    desk = desk_of(1)
    seated = await comes(desk)
    waiting = [await comes(desk, model=model) for model in ("b", "a", "c")]
    served = []
    for caller in (seated, *waiting):
        caller.leave()
        await settle()
        served.append([one.gone for one in waiting].count(True))

    assert served == [0, 1, 2, 3]


async def test_the_watchdog_is_left_open_for_what_comes_after() -> None:
    """A call that waited for its seat still has its deadline."""
    desk = desk_of(1)
    first = await comes(desk)
    waited = await comes(desk, deadline=NEVER, soft=time.monotonic() + 4 * SOON)
    first.leave()

    assert isinstance(await waited.end(), TimeLimitReached)
    assert waited.was_seated
