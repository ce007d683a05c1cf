# SPDX-License-Identifier: Apache-2.0
"""A free seat is taken at once; there are never more than there are, in the gateway and per model."""

from __future__ import annotations

import asyncio

import pytest

from llm_gateway.admission import Admission, AdmissionStatistics, SeatStatistics
from llm_gateway.admission.admission import MAX_IDLE_MODELS
from llm_gateway.errors import CancelledByOperator
from tests.admission.callers import all_leave, comes, desk_of, settle, ticket


async def test_a_free_seat_is_taken_without_a_turn_of_the_loop() -> None:
    entering = desk_of(1).admit(ticket()).__aenter__()

    with pytest.raises(StopIteration):
        entering.send(None)


async def test_one_more_than_there_are_seats_waits() -> None:
    desk = desk_of(2)
    callers = [await comes(desk) for _ in range(3)]

    assert [caller.seated for caller in callers] == [True, True, False]
    assert callers[2].waits

    await all_leave(*callers)


async def test_a_seat_that_comes_free_is_there_for_the_next() -> None:
    desk = desk_of(1)
    async with desk.admit(ticket()):
        pass

    async with desk.admit(ticket()):
        assert desk.statistics().in_flight == 1


@pytest.mark.parametrize("error", [KeyError, asyncio.CancelledError], ids=["an error", "a cancellation"])
async def test_a_seat_comes_free_however_the_call_ends(error: type[BaseException]) -> None:
    desk = desk_of(1)

    with pytest.raises(error):
        async with desk.admit(ticket()):
            raise error

    assert desk.statistics() == AdmissionStatistics(max_in_flight=1, admitted=1)


async def test_a_model_has_no_more_seats_than_its_own() -> None:
    desk = desk_of(8)
    callers = [await comes(desk, model="small", seats=1) for _ in range(2)]

    assert [caller.seated for caller in callers] == [True, False]

    await all_leave(*callers)


async def test_a_model_that_is_full_does_not_hold_up_another() -> None:
    desk = desk_of(8)
    full = [await comes(desk, model="small", seats=1) for _ in range(3)]
    other = await comes(desk, model="large", seats=1)

    assert other.seated

    await all_leave(*full, other)


async def test_a_seat_of_the_gateway_passes_by_who_waits_for_a_full_model() -> None:
    """The call for the other model came last, and is the only one that can take the seat."""
    desk = desk_of(2)
    small, large = await comes(desk, model="small", seats=1), await comes(desk, model="large")
    waiting = [await comes(desk, model="small", seats=1), await comes(desk, model="large")]

    large.leave()
    await settle()

    assert [caller.seated for caller in waiting] == [False, True]

    await all_leave(small, *waiting)


async def test_more_seats_by_a_new_configuration_are_for_those_who_wait_first() -> None:
    desk = desk_of(8)
    old = [await comes(desk, model="m", seats=1) for _ in range(2)]
    new = await comes(desk, model="m", seats=2)

    assert [caller.seated for caller in (*old, new)] == [True, True, False]

    await all_leave(*old, new)


async def test_fewer_seats_by_a_new_configuration_take_nobodys_away() -> None:
    desk = desk_of(8)
    old = [await comes(desk, model="m", seats=2) for _ in range(2)]
    new = await comes(desk, model="m", seats=1)
    old[0].leave()
    await settle()

    assert [old[1].seated, new.seated] == [True, False]

    await all_leave(*old, new)


@pytest.mark.parametrize(("seats", "expected"), [(0, 0), (1, 0), (2, 1), (3, 2), (None, 3)])
async def test_seats_that_a_model_is_given_while_callers_wait_are_theirs_at_once(
    seats: int | None, expected: int
) -> None:
    desk = desk_of(4)
    callers = [await comes(desk, model="m", seats=1) for _ in range(5)]

    desk.resize("m", seats)
    await settle()

    assert [caller.seated for caller in callers] == [True] * (1 + expected) + [False] * (4 - expected)
    assert desk.model_statistics("m").limit == seats

    desk.resize("m", None)
    await all_leave(*callers)


async def test_a_model_that_nobody_asked_for_has_the_seats_that_its_first_call_says() -> None:
    desk = desk_of(8)
    desk.resize("m", 5)
    callers = [await comes(desk, model="m", seats=1) for _ in range(2)]

    assert [caller.seated for caller in callers] == [True, False]

    await all_leave(*callers)


async def test_the_calls_are_told_oldest_first_whether_they_run_or_wait() -> None:
    desk = desk_of(1)
    callers = [await comes(desk) for _ in range(3)]

    assert desk.calls() == tuple(caller.ticket for caller in callers)

    await all_leave(*callers)

    assert desk.calls() == ()


@pytest.mark.parametrize("request_id", ["runs", "waits"])
async def test_a_call_is_found_by_its_id_and_can_be_ended_by_an_operator(request_id: str) -> None:
    desk = desk_of(1)
    callers = {name: await comes(desk, request_id=name) for name in ("runs", "waits")}
    [found] = desk.find(request_id)
    assert found is callers[request_id].ticket

    found.watchdog.interrupt(CancelledByOperator("Ended by an operator."))

    assert isinstance(await callers[request_id].end(), CancelledByOperator)
    assert desk.find(request_id) == ()

    await all_leave(*callers.values())


async def test_nobody_is_found_who_is_not_there() -> None:
    assert desk_of(1).find("nobody") == ()


async def test_the_seats_and_the_queue_of_a_model_are_told() -> None:
    desk = desk_of(8)
    callers = [await comes(desk, model="m", seats=1, size=7) for _ in range(3)]
    other = await comes(desk, model="n")

    assert desk.model_statistics("m") == SeatStatistics(limit=1, in_flight=1, queued=2, queued_bytes=14)
    assert desk.model_statistics("n") == SeatStatistics(limit=None, in_flight=1, queued=0, queued_bytes=0)

    await all_leave(*callers, other)


async def test_a_model_that_nobody_asked_for_has_nobody() -> None:
    assert desk_of(1).model_statistics("m") == SeatStatistics(limit=None, in_flight=0, queued=0, queued_bytes=0)


async def test_names_that_changed_configurations_have_left_behind_do_not_fill_the_memory() -> None:
    desk = desk_of(8)
    async with desk.admit(ticket(model="busy", seats=3)):
        for number in range(3 * MAX_IDLE_MODELS):
            async with desk.admit(ticket(model=f"m{number}", seats=1)):
                pass

        assert len(desk._models) <= MAX_IDLE_MODELS
        assert desk.model_statistics("busy").in_flight == 1


async def test_who_was_admitted_rejected_and_evicted_is_counted() -> None:
    desk = desk_of(1, max_queued=1)
    callers = [await comes(desk) for _ in range(3)]
    callers[1].task.cancel()
    await settle()

    assert desk.statistics() == AdmissionStatistics(
        in_flight=1, max_in_flight=1, admitted=1, rejected={"QUEUE_FULL": 1}, evicted={"CANCELLED": 1}
    )

    await all_leave(*callers)


async def test_it_tells_what_it_is() -> None:
    desk: Admission = desk_of(3)
    async with desk.admit(ticket()):
        assert repr(desk) == "<Admission: 1 of 3 in flight, 0 queued, draining=False>"
