# SPDX-License-Identifier: Apache-2.0
"""In a drain nobody new comes in, who waits is sent away, who runs goes on until the grace is over."""

from __future__ import annotations

import asyncio

import pytest

from llm_gateway.errors import CancelledByOperator, DrainExpired, Draining
from tests.admission.callers import all_leave, comes, desk_of, settle, ticket


async def test_nobody_new_comes_in() -> None:
    desk = desk_of(8)
    desk.drain()

    with pytest.raises(Draining) as caught:
        await desk.admit(ticket()).__aenter__()

    assert caught.value.retry_after == 0.1
    assert desk.statistics().draining
    assert desk.statistics().rejected == {"DRAINING": 1}


async def test_who_waits_is_sent_away() -> None:
    desk = desk_of(1)
    seated = await comes(desk)
    waiting = [await comes(desk, model=model, size=3) for model in "aab"]

    desk.drain()

    assert (desk.statistics().queued, desk.statistics().queued_bytes) == (0, 0)
    errors = [await caller.end() for caller in waiting]
    assert all(isinstance(error, Draining) for error in errors)
    assert len({id(error) for error in errors}) == 3, "one traceback each"
    assert desk.statistics().evicted == {"DRAINING": 3}

    await all_leave(seated)


async def test_who_is_in_stays_in() -> None:
    desk = desk_of(8)
    async with desk.admit(ticket()):
        desk.drain()

        assert desk.statistics().in_flight == 1


async def test_who_was_just_handed_a_seat_is_in() -> None:
    desk = desk_of(1)
    first = desk.admit(ticket())
    await first.__aenter__()
    waiting = await comes(desk)

    await first.__aexit__(None, None, None)
    desk.drain()
    await settle()

    assert waiting.seated

    await all_leave(waiting)


async def test_who_leaves_at_the_moment_of_the_drain_has_left() -> None:
    desk = desk_of(1)
    seated, leaving = await comes(desk), await comes(desk)

    leaving.task.cancel()
    desk.drain()

    assert isinstance(await leaving.end(), asyncio.CancelledError)
    assert desk.statistics().evicted == {"CANCELLED": 1}

    await all_leave(seated)


async def test_an_empty_gateway_is_drained_at_once() -> None:
    await desk_of(1).drained()


async def test_a_drain_is_over_when_the_last_one_has_left() -> None:
    desk = desk_of(8)
    first, last = await comes(desk), await comes(desk)
    drained = asyncio.create_task(desk.drained())

    first.leave()
    await settle()
    assert not drained.done()

    last.leave()
    await drained


async def test_after_the_grace_everybody_who_is_in_is_interrupted() -> None:
    desk = desk_of(8)
    callers = [await comes(desk) for _ in range(3)]

    desk.expire()

    errors = [await caller.end() for caller in callers]
    assert all(isinstance(error, DrainExpired) for error in errors)
    assert len({id(error) for error in errors}) == 3, "one traceback each"
    assert desk.statistics().in_flight == 0


async def test_who_was_sent_away_is_not_interrupted_too() -> None:
    desk = desk_of(1)
    seated, waiting = await comes(desk), await comes(desk)

    desk.drain()
    desk.expire()

    assert isinstance(await seated.end(), DrainExpired)
    assert isinstance(await waiting.end(), Draining)


async def test_who_waits_can_be_ended_before_the_drain_gets_to_it() -> None:
    desk = desk_of(1)
    seated, waiting = await comes(desk), await comes(desk)

    waiting.ticket.watchdog.interrupt(CancelledByOperator("Enough."))
    desk.drain()

    assert isinstance(await waiting.end(), CancelledByOperator)

    await all_leave(seated)
