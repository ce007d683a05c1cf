# SPDX-License-Identifier: Apache-2.0
"""Who cannot be served in time is told so at once, and when to come again."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from llm_gateway.admission import Admission, Limits
from llm_gateway.admission.refusals import not_in_time, queue_full, too_late, waited_too_long
from llm_gateway.admission.seats import Seats
from llm_gateway.admission.turns import estimated_wait
from llm_gateway.errors import DeadlineTooShort, QueueFull, QueueTimeout
from llm_gateway.generation import Priority
from tests.admission.callers import Caller, Clock, all_leave, comes, settle, ticket

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_gateway.errors import Rejected

HOLD = 10.0
"""How long a seat has been held, in seconds of the clock that stands still."""


class Measured:
    """An admission in which calls of a model have been seen to take HOLD."""

    def __init__(self, **limits: Any) -> None:
        self.clock = Clock()
        self.desk = Admission(Limits(**limits), clock=self.clock)
        self.callers: list[Caller] = []

    async def measure(self, model: str = "", seats: int | None = None) -> None:
        async with self.desk.admit(ticket(model=model, seats=seats)):
            self.clock.now += HOLD

    async def comes(self, remaining: float = 1e6, **fields: Any) -> Caller:
        self.callers.append(await comes(self.desk, deadline=self.clock.now + remaining, **fields))
        return self.callers[-1]

    async def end(self) -> None:
        await all_leave(*self.callers)
        await self.desk.drained()


def refusal(caller: Caller, kind: type[QueueFull | DeadlineTooShort]) -> float:
    """What it was told to wait."""
    assert isinstance(caller.error, kind)
    assert caller.error.retry_after is not None
    return caller.error.retry_after


async def test_a_full_queue_takes_nobody_else() -> None:
    door = Measured(max_in_flight=1, max_queued=2)
    for _ in range(3):
        await door.comes()

    refused = await door.comes()

    assert refusal(refused, QueueFull) == 1.0, "nothing was measured"
    assert door.desk.statistics().queued == 2

    await door.end()


async def test_a_queue_whose_requests_are_too_large_together_takes_nobody_else() -> None:
    door = Measured(max_in_flight=1, max_queued_bytes=100)
    await door.comes(size=1_000)
    await door.comes(size=60)
    refused = await door.comes(size=41)
    taken = await door.comes(size=40)

    assert refusal(refused, QueueFull) > 0
    assert taken.waits
    assert door.desk.statistics().queued_bytes == 100

    await door.end()


@pytest.mark.parametrize(("seats", "expected"), [(1, 3 * HOLD), (2, 1.5 * HOLD), (3, HOLD)])
async def test_a_full_queue_says_when_a_seat_is_expected(seats: int, expected: float) -> None:
    door = Measured(max_in_flight=seats, max_queued=2)
    await door.measure()
    for _ in range(seats + 2):
        await door.comes()

    assert refusal(await door.comes(), QueueFull) == pytest.approx(expected)

    await door.end()


@pytest.mark.parametrize(("hold", "expected"), [(0.0, 0.1), (1e-9, 0.1), (1e6, 60.0)])
async def test_a_wait_is_never_told_as_nothing_nor_as_for_ever(hold: float, expected: float) -> None:
    door = Measured(max_in_flight=1, max_queued=0)
    async with door.desk.admit(ticket()):
        door.clock.now += hold
    await door.comes()
    told = refusal(await door.comes(), QueueFull)

    assert told == (expected if hold else 1.0)

    await door.end()


@pytest.mark.parametrize("told", [queue_full, not_in_time, too_late, waited_too_long])
@pytest.mark.parametrize(("wait", "expected"), [(None, 1.0), (0.0, 0.1), (7.0, 7.0), (1e9, 60.0), (math.inf, 60.0)])
def test_whatever_the_refusal_the_caller_is_told_a_time_to_come_again(
    told: Callable[[float | None], Rejected], wait: float | None, expected: float
) -> None:
    assert told(wait).retry_after == expected


@pytest.mark.parametrize(("remaining", "waits"), [(2 * HOLD + 1, True), (2 * HOLD - 1, False)])
async def test_whose_deadline_leaves_no_time_for_the_wait_and_the_answer_is_refused_at_once(
    remaining: float, waits: bool
) -> None:
    door = Measured(max_in_flight=1)
    await door.measure()
    await door.comes()

    caller = await door.comes(remaining)

    assert caller.waits is waits
    assert waits or refusal(caller, DeadlineTooShort) == pytest.approx(HOLD)
    assert door.desk.statistics().rejected == ({} if waits else {"DEADLINE_TOO_SHORT": 1})

    await door.end()


@pytest.mark.parametrize(("time_limit", "waits"), [(HOLD / 10, True), (0.9 * HOLD, False), (1e3, False)])
async def test_a_call_with_a_time_limit_needs_no_more_time_for_its_answer(time_limit: float, waits: bool) -> None:
    door = Measured(max_in_flight=1)
    await door.measure()
    await door.comes()

    caller = await door.comes(1.5 * HOLD, soft=door.clock.now + time_limit)

    assert caller.waits is waits
    assert waits or refusal(caller, DeadlineTooShort) == pytest.approx(HOLD)

    await door.end()


async def test_nobody_is_refused_because_a_seat_is_expected_later_than_anybody_may_wait() -> None:
    """Who waits for one seat that is held for long is lucky now and then."""
    door = Measured(max_in_flight=1, max_wait=HOLD / 10)
    await door.measure()
    await door.comes()

    assert (await door.comes()).waits

    await door.end()


async def test_a_free_seat_is_given_however_little_time_is_left() -> None:
    door = Measured(max_in_flight=1)
    await door.measure()

    assert (await door.comes(HOLD / 100)).seated

    await door.end()


async def test_nobody_is_refused_for_an_estimate_that_nobody_can_make() -> None:
    door = Measured(max_in_flight=1)
    await door.comes()

    assert (await door.comes(HOLD)).waits

    await door.end()


async def test_who_waited_too_long_is_told_how_long_it_would_take() -> None:
    door = Measured(max_in_flight=1)
    await door.measure()
    await door.comes()
    waiting = await door.comes()

    error = door.desk._waited_too_long(waiting.ticket)

    assert isinstance(error, QueueTimeout)
    assert error.retry_after == pytest.approx(2 * HOLD)

    await door.end()


async def test_a_model_is_waited_for_by_its_own_seats_and_pace() -> None:
    door = Measured(max_in_flight=100, max_queued=3)
    await door.measure("slow", seats=2)
    async with door.desk.admit(ticket(model="fast")):
        pass
    for _ in range(5):
        await door.comes(model="slow", seats=2)

    assert refusal(await door.comes(model="slow", seats=2), QueueFull) == pytest.approx(4 * HOLD / 2)

    await door.end()


async def test_who_is_seated_but_not_done_yet_does_not_count_for_the_pace() -> None:
    door = Measured(max_in_flight=1)
    await door.comes()
    door.clock.now += 1e3
    await settle()

    assert door.desk.model_statistics("").in_flight == 1
    assert door.desk._estimated_wait(door.callers[0].ticket) is None

    await door.end()


# ---------------------------------------------------------------------------------------------------- the estimate


def seats_of(limit: int | None, in_flight: int, hold: float | None, *queued: Priority) -> Seats:
    seats = Seats(limit)
    seats.in_flight = in_flight
    if hold is not None:
        seats.held(hold)
    for priority in queued:
        seats.append(ticket(priority=priority))
    return seats


INTERACTIVE, BATCH = Priority.INTERACTIVE, Priority.BATCH


@pytest.mark.parametrize(
    ("seats", "others", "free", "priority", "expected"),
    [
        (seats_of(None, 4, None), (), 0, INTERACTIVE, None),
        (seats_of(None, 4, 8.0), (), 0, INTERACTIVE, 2.0),
        (seats_of(None, 4, 8.0, INTERACTIVE, BATCH), (), 0, INTERACTIVE, 4.0),
        (seats_of(None, 4, 8.0, INTERACTIVE, BATCH), (), 0, BATCH, 6.0),
        (seats_of(2, 2, 8.0), (), 5, INTERACTIVE, 4.0),
        (seats_of(2, 2, None), (seats_of(None, 2, 8.0),), 0, INTERACTIVE, 2.0),
        (seats_of(None, 2, 8.0), (seats_of(None, 2, 2.0),), 0, INTERACTIVE, 1 / (2 / 8 + 2 / 2)),
        (seats_of(2, 2, 8.0), (seats_of(None, 2, 2.0),), 0, INTERACTIVE, 4.0),
        (seats_of(None, 2, 8.0), (seats_of(2, 2, 8.0, *[INTERACTIVE] * 50),), 0, INTERACTIVE, 2.0),
        (seats_of(None, 2, 8.0), (seats_of(3, 2, 8.0, *[INTERACTIVE] * 50),), 0, INTERACTIVE, 4.0),
    ],
    ids=[
        "nothing measured",
        "the next seat",
        "behind one of its class",
        "batch is behind all",
        "the model is full",
        "of a model not measured, by the pace of others",
        "the paces of two models together",
        "the longer of both waits",
        "who waits for a full model is not ahead",
        "as many as it has seats are",
    ],
)
def test_the_wait_is_estimated(
    seats: Seats, others: tuple[Seats, ...], free: int, priority: Priority, expected: float | None
) -> None:
    wait = estimated_wait(seats, (seats, *others), free, priority)

    assert wait == (expected if expected is None else pytest.approx(expected))


def test_the_mean_follows_what_is_measured_now() -> None:
    seats = Seats(None)
    for _ in range(100):
        seats.held(10.0)
    for _ in range(100):
        seats.held(1.0)

    assert seats.mean_hold == pytest.approx(1.0, rel=0.01)


def test_the_first_few_count_alike() -> None:
    seats = Seats(None)
    for hold in (1.0, 2.0, 6.0):
        seats.held(hold)

    assert seats.mean_hold == pytest.approx(3.0)


def test_calls_that_take_the_same_time_are_usually_done_in_it() -> None:
    assert seats_of(None, 0, 4.0).usual_hold == 4.0
    assert Seats(None).usual_hold == 0.0


def test_the_more_the_times_differ_the_longer_a_usual_call_may_take() -> None:
    seats = seats_of(None, 0, 1.0)
    seats.held(3.0)

    assert seats.usual_hold == pytest.approx(2.0 + 2 * 1.0), "the mean, and twice the mean deviation"

    seats.held(2.0)

    assert seats.usual_hold == pytest.approx(2.0 + 2 * 2 / 3), "it comes closer again"
