# SPDX-License-Identifier: Apache-2.0
"""Who has little time left gives way to who has more, and never to an empty seat."""

from __future__ import annotations

from typing import Any

import pytest

from llm_gateway.admission import Admission, Limits
from llm_gateway.errors import DeadlineTooShort
from llm_gateway.generation import Priority
from tests.admission.callers import Caller, Clock, all_leave, comes, settle, ticket

LATER = 3600.0
HOLDS = (5.0, 35.0)
"""How long seats are held, one as often as the other: seconds of the clock that stands still."""
LITTLE = 75.0
"""Enough for a wait and two means on arrival; once the longer hold has passed, not for what a call may take."""


class Spread:
    """An admission whose calls have been seen to take HOLDS; its few seats are all taken."""

    def __init__(self, seats: int) -> None:
        self.clock = Clock()
        self.desk = Admission(Limits(max_in_flight=seats), clock=self.clock)
        self.seats = seats

    async def fill(self, **fields: Any) -> list[Caller]:
        for _ in range(50):
            for hold in HOLDS:
                async with self.desk.admit(ticket()):
                    self.clock.now += hold
        return [await comes(self.desk, **fields) for _ in range(self.seats)]

    async def waits(self, remaining: float, **fields: Any) -> Caller:
        caller = await comes(self.desk, deadline=self.clock.now + remaining, **fields)
        assert caller.waits
        return caller

    async def end(self, *callers: Caller) -> None:
        """They have held their seats for the longer time, and leave."""
        self.clock.now += max(HOLDS)
        for caller in callers:
            caller.leave()
        await settle()


async def test_where_nobody_has_the_time_that_a_call_may_take_the_seats_are_not_left_empty() -> None:
    spread = Spread(3)
    seated = await spread.fill()
    waiting = [await spread.waits(LITTLE) for _ in range(3)]

    await spread.end(*seated)

    assert [caller.seated for caller in waiting] == [True] * 3

    await all_leave(*waiting)


async def test_who_has_little_time_left_gives_way_to_who_has_more() -> None:
    """However many there are: each of their seats would most likely be wasted."""
    spread = Spread(1)
    seated = await spread.fill()
    late = [await spread.waits(LITTLE) for _ in range(2)]
    behind = await spread.waits(LATER)

    await spread.end(*seated)

    assert [type(caller.error) for caller in late] == [DeadlineTooShort] * 2
    assert behind.seated

    await all_leave(behind)


@pytest.mark.parametrize("seats", [3, None], ids=["its own", "the gateway's"])
async def test_nobody_gives_way_where_there_is_a_seat_for_each(seats: int | None) -> None:
    spread = Spread(3)
    seated = await spread.fill(model="other")
    await all_leave(*seated)
    seated = [await comes(spread.desk, seats=1)]
    waiting = [await spread.waits(remaining, seats=1) for remaining in (LITTLE, LATER)]
    await spread.end()

    spread.desk.resize("", seats)
    await settle()

    assert [caller.seated for caller in waiting] == [True, True]

    await all_leave(*seated, *waiting)


async def test_nobody_gives_way_to_a_class_that_goes_later() -> None:
    spread = Spread(1)
    seated = await spread.fill()
    late, batch = await spread.waits(LITTLE), await spread.waits(LATER, priority=Priority.BATCH)

    await spread.end(*seated)

    assert [late.seated, batch.waits] == [True, True]

    await all_leave(late, batch)


async def test_nobody_gives_way_to_a_call_that_leaves_at_the_same_moment() -> None:
    spread = Spread(1)
    await all_leave(*await spread.fill())
    seated = spread.desk.admit(ticket())
    await seated.__aenter__()
    late, leaving = await spread.waits(LITTLE), await spread.waits(LATER)
    await spread.end()

    leaving.task.cancel()
    await seated.__aexit__(None, None, None)
    await settle()

    assert late.seated

    await all_leave(late)


async def test_a_call_that_will_not_hold_its_seat_for_long_does_not_give_way() -> None:
    """Its own time limit ends it before the deadline does."""
    spread = Spread(1)
    seated = await spread.fill()
    short = await spread.waits(LITTLE, soft=spread.clock.now + LITTLE - 30)
    behind = await spread.waits(LATER)

    await spread.end(*seated)

    assert [short.seated, behind.waits] == [True, True]

    await all_leave(short, behind)
