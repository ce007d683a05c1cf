# SPDX-License-Identifier: Apache-2.0
"""Whatever callers, operators and the clock do in whatever order: never too many, nobody overtaken, nothing lost."""

from __future__ import annotations

import asyncio
from itertools import groupby
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from llm_gateway.admission import Admission, AdmissionStatistics, Limits
from llm_gateway.deadline import NEVER
from llm_gateway.errors import CancelledByOperator, DeadlineTooShort, Rejected
from llm_gateway.generation import Priority
from tests.admission.callers import Caller, Clock, settle

if TYPE_CHECKING:
    from collections.abc import Callable

MODELS: dict[str, int | None] = {"": None, "small": 1, "medium": 2, "large": 4}
MAX_QUEUED = 6
MAX_QUEUED_BYTES = 100
PICKS = st.integers(0, 30)
"""Who of those there are; wraps around."""


class AnySequence(RuleBasedStateMachine):
    """An admission with several models, and everything that can happen to it.

    What must be is told from what the callers see, not from how the admission counts.
    """

    @initialize(seats=st.integers(1, 4), share=st.sampled_from([0.1, 0.5, 1.0]))
    def opens(self, seats: int, share: float) -> None:
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.seats = seats
        limits = Limits(
            max_in_flight=seats, max_queued=MAX_QUEUED, max_queued_bytes=MAX_QUEUED_BYTES, batch_share=share
        )
        self.desk = Admission(limits, clock=self.clock)
        self.callers: list[Caller] = []
        self.draining = False
        self.own = dict(MODELS)
        self.most = dict(MODELS)
        self.waited: list[Caller] = []
        self.seat_given_back = False

    def run(self, *steps: Callable[[], object]) -> None:
        """Do it all in one turn of the loop, then let everybody move."""

        async def act() -> None:
            for step in steps:
                step()
            await settle()

        self.runner.run(act())

    def of(self, pick: int, callers: list[Caller]) -> Caller:
        return callers[pick % len(callers)]

    @property
    def seated(self) -> list[Caller]:
        return [caller for caller in self.callers if caller.seated]

    @property
    def waiting(self) -> list[Caller]:
        return [caller for caller in self.callers if caller.waits]

    # ---------------------------------------------------------------------------------------------- what can happen

    @rule(
        models=st.lists(st.sampled_from(sorted(MODELS)), min_size=1, max_size=3),
        priority=st.sampled_from(Priority),
        size=st.integers(0, 40),
        patience=st.sampled_from([NEVER, 50.0, 500.0]),
    )
    def some_come(self, models: list[str], priority: Priority, size: int, patience: float) -> None:
        def come() -> None:
            for model in models:
                until = self.clock.now + patience
                self.callers.append(
                    Caller(self.desk, deadline=until, model=model, seats=self.own[model], priority=priority, size=size)
                )

        self.run(come)

    @precondition(lambda self: self.seated)
    @rule(pick=PICKS)
    def one_leaves(self, pick: int) -> None:
        self.run(self.of(pick, self.seated).leave)

    @precondition(lambda self: self.seated or self.waiting)
    @rule(pick=PICKS)
    def one_is_cancelled(self, pick: int) -> None:
        self.run(self.of(pick, self.seated + self.waiting).task.cancel)

    @precondition(lambda self: self.seated or self.waiting)
    @rule(pick=PICKS)
    def an_operator_ends_one(self, pick: int) -> None:
        caller = self.of(pick, self.seated + self.waiting)
        self.run(lambda: caller.ticket.watchdog.interrupt(CancelledByOperator("Enough.")))

    @precondition(lambda self: self.seated and self.waiting)
    @rule(seat=PICKS, picks=st.lists(PICKS, min_size=1, max_size=3), newcomers=st.integers(0, 2))
    def a_seat_comes_free_as_others_leave_and_come(self, seat: int, picks: list[int], newcomers: int) -> None:
        """All in one turn of the loop: the seat may have been handed to one who is cancelled before it sits down."""
        leaver = self.of(seat, self.seated)
        cancelled = {self.of(pick, self.waiting) for pick in picks}
        model = leaver.ticket.model

        async def act() -> None:
            leaver.leave()
            await asyncio.sleep(0)  # it leaves in this turn; whoever is handed the seat sits down in the next
            for caller in cancelled:
                caller.task.cancel()
            for _ in range(newcomers):
                self.callers.append(Caller(self.desk, model=model, seats=self.own[model]))
            await settle()

        self.seat_given_back = True
        self.runner.run(act())

    @rule(model=st.sampled_from(sorted(MODELS)), seats=st.sampled_from([1, 2, 4, None]))
    def a_model_is_given_other_seats(self, model: str, seats: int | None) -> None:
        self.own[model] = seats
        self.run(lambda: self.desk.resize(model, seats))

    @rule(seconds=st.sampled_from([1.0, 60.0, 600.0]))
    def time_passes(self, seconds: float) -> None:
        """Deadlines pass, and the timers that tell of them are late: the real clock goes slower than ours."""
        self.clock.now += seconds

    @precondition(lambda self: len(self.callers) > 10)
    @rule()
    def it_drains(self) -> None:
        self.draining = True
        self.run(self.desk.drain)

    # ------------------------------------------------------------------------------------------------- what must be

    def seated_of(self, model: str) -> int:
        return len([caller for caller in self.seated if caller.ticket.model == model])

    def has_a_seat_free(self, model: str) -> bool:
        own = self.own[model]
        return len(self.seated) < self.seats and (own is None or self.seated_of(model) < own)

    @invariant()
    def there_are_never_more_than_there_are_seats(self) -> None:
        """Who had a seat when the model was given fewer may keep it, but it is nobody's after them."""
        assert len(self.seated) <= self.seats
        for model, own in self.own.items():
            seated, most = self.seated_of(model), self.most[model]
            if own is None:
                self.most[model] = None
                continue
            self.most[model] = max(own, seated if most is None else min(most, seated))
            assert seated <= max(own, self.seats if most is None else most)

    @invariant()
    def no_seat_is_lost(self) -> None:
        """Where one is free, nobody waits who could take it; so that a newcomer who takes it overtakes nobody."""
        assert not [caller for caller in self.waiting if self.has_a_seat_free(caller.ticket.model)]

    @invariant()
    def nobody_with_time_left_is_sent_away_from_a_seat_that_stays_free(self) -> None:
        """But where whom they gave way to gave the seat back at once."""
        for caller in self.waited:
            sent_away = caller.gone and isinstance(caller.error, DeadlineTooShort)
            if sent_away and caller.ticket.watchdog.deadline > self.clock.now and not self.seat_given_back:
                assert not self.has_a_seat_free(caller.ticket.model)
        self.waited, self.seat_given_back = self.waiting, False

    @invariant()
    def nobody_is_overtaken_by_their_like(self) -> None:
        def like(caller: Caller) -> tuple[str, str]:
            return caller.ticket.model, caller.ticket.priority

        for _, line in groupby(sorted(self.callers, key=like), key=like):
            waited = False
            for caller in line:  # sorting keeps the order in which they came
                assert not (waited and caller.was_seated)
                waited = waited or caller.waits

    @invariant()
    def nobody_is_seated_after_their_deadline(self) -> None:
        for caller in self.callers:
            seated = caller.ticket.seated
            assert seated is None or seated < caller.ticket.watchdog.deadline

    @invariant()
    def the_gauges_are_exact(self) -> None:
        statistics = self.desk.statistics()

        assert statistics.in_flight == len(self.seated)
        assert statistics.queued == len(self.waiting) <= MAX_QUEUED
        assert statistics.queued_bytes == sum(one.ticket.size for one in self.waiting) <= MAX_QUEUED_BYTES
        assert set(self.desk.calls()) == {one.ticket for one in self.seated + self.waiting}
        for model in MODELS:
            own = self.desk.model_statistics(model)
            assert own.in_flight == len([one for one in self.seated if one.ticket.model == model])
            assert own.queued == len([one for one in self.waiting if one.ticket.model == model])
            assert own.queued_bytes == sum(one.ticket.size for one in self.waiting if one.ticket.model == model)

    @invariant()
    def everybody_has_one_ending(self) -> None:
        statistics = self.desk.statistics()
        seated = [caller for caller in self.callers if caller.was_seated]
        turned_away = [caller for caller in self.callers if caller.gone and not caller.was_seated]

        assert len(seated) == statistics.admitted
        assert len(turned_away) == sum(statistics.rejected.values()) + sum(statistics.evicted.values())
        assert len(seated) + len(turned_away) + len(self.waiting) == len(self.callers)

    @invariant()
    def who_is_turned_away_is_told_when_to_come_again(self) -> None:
        for caller in self.callers:
            if isinstance(caller.error, Rejected):
                assert caller.error.retry_after is not None
                assert 0 < caller.error.retry_after <= 60

    @invariant()
    def in_a_drain_nobody_waits(self) -> None:
        assert not (self.draining and self.waiting)

    def teardown(self) -> None:
        async def all_leave() -> None:
            for caller in self.callers:
                caller.leave()
            await asyncio.gather(*(caller.task for caller in self.callers), return_exceptions=True)
            await self.desk.drained()

        if not hasattr(self, "desk"):
            return
        with self.runner:
            self.runner.run(all_leave())
        statistics = self.desk.statistics()

        assert statistics == AdmissionStatistics(
            max_in_flight=self.seats,
            draining=self.draining,
            admitted=statistics.admitted,
            rejected=statistics.rejected,
            evicted=statistics.evicted,
        )
        assert not self.desk.calls()
        assert not self.desk._waiting


AnySequence.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnySequence = AnySequence.TestCase
