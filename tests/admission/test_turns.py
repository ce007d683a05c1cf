# SPDX-License-Identifier: Apache-2.0
"""Batch calls let interactive ones go first, and get their share of the seats all the same."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.admission.seats import Seats
from llm_gateway.admission.turns import next_in_turn
from llm_gateway.generation import Priority
from tests.admission.callers import ticket

if TYPE_CHECKING:
    from llm_gateway.admission import Ticket

MODELS = ("a", "b", "c")


class Queue:
    """Calls that wait for models, and never run out where they are told not to."""

    def __init__(self, share: float) -> None:
        self.models = {model: Seats(None) for model in MODELS}
        self._share = share
        self._numbers = count()

    def add(self, model: str, priority: Priority) -> Ticket:
        added = ticket(model=model, priority=priority)
        added.group = self.models[model]
        added.number = next(self._numbers)
        added.group.append(added)
        return added

    def serve(self) -> Ticket | None:
        served = next_in_turn(self.models.values(), self._share)
        if served is not None:
            served.group.remove(served)
        return served

    def serve_endless(self) -> Ticket:
        """Serve one, and let another like it come."""
        served = self.serve()
        assert served is not None
        self.add(served.model, served.priority)
        return served


def test_every_tenth_seat_goes_to_batch_while_both_wait() -> None:
    queue = Queue(0.1)
    for priority in Priority:
        for _ in range(2):
            queue.add("a", priority)

    served = [queue.serve_endless().priority for _ in range(40)]

    assert served == ([Priority.INTERACTIVE] * 9 + [Priority.BATCH]) * 4


@given(share=st.floats(0.01, 1.0))
def test_batch_has_its_share_of_any_run_of_seats_and_hardly_more(share: float) -> None:
    queue = Queue(share)
    for priority in Priority:
        for _ in range(2):
            queue.add("a", priority)
    batch = 0
    for handed_out in range(1, 200):
        batch += queue.serve_endless().priority is Priority.BATCH

        assert int(handed_out * share) <= batch <= handed_out * share + 1


def test_nothing_is_earned_while_no_batch_call_waits() -> None:
    queue = Queue(0.1)
    for _ in range(30):
        queue.add("a", Priority.INTERACTIVE)
    for _ in range(20):
        queue.serve()
    queue.add("a", Priority.BATCH)

    served = queue.serve()

    assert served is not None
    assert served.priority is Priority.INTERACTIVE


def test_what_was_earned_is_lost_when_the_last_batch_call_leaves() -> None:
    queue = Queue(0.1)
    for _ in range(2):
        queue.add("a", Priority.INTERACTIVE)
    leaving = queue.add("a", Priority.BATCH)
    for _ in range(9):
        queue.serve_endless()
    leaving.group.remove(leaving)
    queue.add("a", Priority.BATCH)

    served = [queue.serve_endless().priority for _ in range(10)]

    assert served == [Priority.INTERACTIVE] * 9 + [Priority.BATCH]


def test_batch_has_all_seats_that_nobody_else_wants_and_owes_nothing_for_them() -> None:
    queue = Queue(0.1)
    for _ in range(30):
        queue.add("a", Priority.BATCH)
    for _ in range(15):
        queue.serve()
    for _ in range(2):
        queue.add("a", Priority.INTERACTIVE)

    served = [queue.serve_endless().priority for _ in range(10)]

    assert served == [Priority.INTERACTIVE] * 9 + [Priority.BATCH]


def test_the_share_is_one_for_all_models_together() -> None:
    queue = Queue(0.1)
    for model in MODELS:
        for priority in Priority:
            queue.add(model, priority)

    served = [queue.serve_endless() for _ in range(300)]
    batch = [one.model for one in served if one.priority is Priority.BATCH]

    assert len(batch) == pytest.approx(30, abs=len(MODELS))
    assert {model: batch.count(model) for model in MODELS} == pytest.approx(dict.fromkeys(MODELS, 10), abs=1)


@pytest.mark.parametrize("period", [2, 7, 10, 20])
def test_a_model_that_is_nearly_always_full_does_not_miss_its_turn(period: int) -> None:
    """Every so often one of its seats comes free; the seats of the others may never be in its batch calls' favour."""
    queue = Queue(0.1)
    for model in ("a", "b"):
        for priority in Priority:
            queue.add(model, priority)
    full = queue.models["a"]
    full.limit = 1
    served = []
    for turn in range(40 * period):
        full.in_flight = int(turn % period != 0)
        served.append(queue.serve_endless())

    assert [one for one in served if one.model == "a" and one.priority is Priority.BATCH]


def test_where_nobody_waits_it_is_nobodys_turn() -> None:
    assert Queue(0.1).serve() is None


@pytest.mark.parametrize("priority", Priority)
def test_a_full_model_is_passed_by(priority: Priority) -> None:
    queue = Queue(0.1)
    queue.add("a", priority)
    queue.models["a"].limit = 0
    expected = queue.add("b", priority)

    assert queue.serve() is expected
    assert queue.serve() is None


@given(st.lists(st.tuples(st.sampled_from(MODELS), st.sampled_from(Priority)), max_size=60))
def test_within_a_class_of_a_model_the_order_is_kept(comings: list[tuple[str, Priority]]) -> None:
    queue = Queue(0.3)
    for model, priority in comings:
        queue.add(model, priority)
    served = [one for _ in comings if (one := queue.serve()) is not None]

    assert len(served) == len(comings)
    for line in {(one.model, one.priority) for one in served}:
        numbers = [one.number for one in served if (one.model, one.priority) == line]
        assert numbers == sorted(numbers)
