# SPDX-License-Identifier: Apache-2.0
"""Who may come in: as many as there are seats, until the gateway drains."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.admission import Admission, AdmissionStatistics
from llm_gateway.deadline import NEVER, Watchdog
from llm_gateway.errors import DrainExpired, Draining, QueueFull


def caller() -> Watchdog:
    return Watchdog(NEVER)


async def test_one_more_than_there_are_seats_is_refused() -> None:
    admission = Admission(2)

    with admission.admit(caller()), admission.admit(caller()), pytest.raises(QueueFull) as caught:
        admission.admit(caller()).__enter__()

    assert caught.value.retry_after == 1.0


async def test_a_seat_that_comes_free_is_there_for_the_next() -> None:
    admission = Admission(1)
    with admission.admit(caller()):
        pass

    with admission.admit(caller()):
        assert admission.statistics().in_flight == 1


@pytest.mark.parametrize("error", [KeyError, asyncio.CancelledError], ids=["an error", "a cancellation"])
async def test_a_seat_comes_free_however_the_call_ends(error: type[BaseException]) -> None:
    admission = Admission(1)

    with pytest.raises(error), admission.admit(caller()):
        raise error

    assert admission.statistics() == AdmissionStatistics(in_flight=0, max_in_flight=1, draining=False)


async def test_who_was_refused_holds_no_seat() -> None:
    admission = Admission(1)
    with admission.admit(caller()):
        for _ in range(3):
            with pytest.raises(QueueFull):
                admission.admit(caller()).__enter__()

        assert admission.statistics().in_flight == 1


async def test_in_a_drain_nobody_new_comes_in() -> None:
    admission = Admission(8)
    admission.drain()

    with pytest.raises(Draining) as caught:
        admission.admit(caller()).__enter__()

    assert caught.value.retry_after is not None
    assert admission.statistics().draining


async def test_who_is_in_stays_in_during_a_drain() -> None:
    admission = Admission(8)
    with admission.admit(caller()):
        admission.drain()

        assert admission.statistics().in_flight == 1


async def test_an_empty_gateway_is_drained_at_once() -> None:
    await Admission(1).drained()


async def test_a_drain_is_over_when_the_last_one_has_left() -> None:
    admission = Admission(8)
    with ExitStack() as first, ExitStack() as last:
        first.enter_context(admission.admit(caller()))
        last.enter_context(admission.admit(caller()))
        drained = asyncio.create_task(admission.drained())

        first.close()
        await asyncio.sleep(0)
        assert not drained.done()

        last.close()
        await drained


async def test_after_the_grace_everybody_who_is_in_is_interrupted() -> None:
    admission = Admission(8)
    ended: list[DrainExpired] = []

    async def call() -> None:
        watchdog = caller()
        try:
            with admission.admit(watchdog), watchdog:
                await asyncio.get_running_loop().create_future()
        except DrainExpired as error:
            ended.append(error)

    calls = [asyncio.create_task(call()) for _ in range(3)]
    await asyncio.sleep(0)
    admission.expire()
    await asyncio.gather(*calls)

    assert len(ended) == 3
    assert len({id(error) for error in ended}) == 3, "one traceback each"
    assert admission.statistics().in_flight == 0


async def test_it_tells_what_it_is() -> None:
    admission = Admission(3)
    with admission.admit(caller()):
        assert repr(admission) == "<Admission: 1 of 3 in flight, draining=False>"


@given(seats=st.integers(1, 4), comings=st.lists(st.one_of(st.just("comes"), st.integers(0, 5)), max_size=40))
async def test_the_seats_are_counted_whoever_comes_and_goes(seats: int, comings: list[str | int]) -> None:
    """Against the simplest model there is: a list of those who are in; a number says who of them leaves."""
    admission = Admission(seats)
    inside: list[ExitStack] = []
    for coming in comings:
        if coming == "comes":
            stack = ExitStack()
            try:
                stack.enter_context(admission.admit(caller()))
            except QueueFull:
                assert len(inside) == seats
            else:
                inside.append(stack)
        elif isinstance(coming, int) and coming < len(inside):
            inside.pop(coming).close()

        assert admission.statistics().in_flight == len(inside) <= seats

    for stack in inside:
        stack.close()
    await admission.drained()
