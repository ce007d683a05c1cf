# SPDX-License-Identifier: Apache-2.0
"""An endpoint's ejection against a model of it, whatever befalls it in whatever order; and that it always comes back.

The model remembers the calls themselves, where the code counts terms.
"""

from __future__ import annotations

from itertools import cycle

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from llm_gateway.backends.base import Readiness
from llm_gateway.deadline import NEVER
from llm_gateway.upstream.ejection import Ejection, EjectionPolicy, FailureKind, Health

POLICY = EjectionPolicy(jitter=0.0)
PROMISE = 15.0
"""Seconds after its recovery within which an endpoint is asked again."""


class Call:
    """One call that is under way; `term` is what the code gave it."""

    def __init__(self, term: int) -> None:
        self.term = term
        self.answered = False


class Model:
    """The rules, said plainly."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.health = Health.HEALTHY
        self.until = NEVER
        self.trial = False
        self.trial_since = 0.0
        self.believed: set[Call] = set()  # whose success counts
        self.blamable: set[Call] = set()  # whose failure counts
        self.row: list[FailureKind] = []
        self.broken = 0  # since an answer ended well
        self.probes: list[Readiness] = []  # since one was heeded
        self.said: Readiness | None = None
        self.ejections = 0
        self.healthy_since = -NEVER
        self.curable = False
        self.was_healthy = True

    def clock(self) -> float:
        return self.now

    @property
    def available(self) -> bool:
        return self.health is Health.HEALTHY or (self.health is Health.PROBATION and not self.trial)

    @property
    def better_than_nobody(self) -> bool:
        return self.health is Health.PROBATION and self.said is Readiness.READY

    def advance(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= self.until:
            self.become(Health.PROBATION, NEVER)

    def become(self, health: Health, until: float) -> None:
        self.health, self.until, self.trial = health, until, False
        if health is Health.HEALTHY:
            self.healthy_since = self.now

    def shut(self, health: Health, until: float) -> None:
        self.become(health, until)
        self.believed, self.blamable = set(), set()
        self.trial_since = self.now
        self.advance(0)

    def begin(self, call: Call) -> None:
        if self.health is Health.PROBATION and not self.trial:
            self.trial, self.trial_since, self.until = True, self.now, self.now + POLICY.longest
            self.blamable = set()
        self.believed.add(call)
        self.blamable.add(call)

    def ask(self, call: Call) -> None:
        """A question is no trial, and is not believed."""
        self.blamable.add(call)

    def succeed(self, call: Call) -> None:
        call.answered = True
        if call in self.believed:
            self.row, self.probes = [], []
            if self.health is not Health.HEALTHY:
                self.become(Health.HEALTHY, NEVER)

    def complete(self, call: Call) -> None:
        if call in self.believed:
            self.broken = 0

    def fail(self, call: Call, kind: FailureKind, *, spared: bool) -> None:
        if call not in self.blamable or self.health in {Health.EJECTED, Health.LOADING}:
            return
        self.row.append(kind)
        self.broken += call.answered
        unreachable = self.row[-POLICY.local_failures :] == [FailureKind.LOCAL] * POLICY.local_failures
        too_many = max(len(self.row), self.broken) >= POLICY.answer_failures and not spared
        if self.health is Health.PROBATION:
            if spared and kind is not FailureKind.LOCAL:
                self.become(Health.HEALTHY, NEVER)
            else:
                self.eject(kind, self.trial_since)
        elif unreachable or too_many:
            if self.now - self.healthy_since >= POLICY.longest:
                self.ejections = 0
            self.eject(kind, self.now)

    def eject(self, kind: FailureKind, since: float) -> None:
        self.ejections += 1
        self.curable = kind is FailureKind.LOCAL
        self.shut(Health.EJECTED, since + min(POLICY.longest, self.ejections * POLICY.base))

    def abandon(self, call: Call) -> None:
        if self.trial and call in self.blamable:
            self.become(Health.PROBATION, NEVER)

    def probed(self, readiness: Readiness, *, spared: bool) -> None:
        self.said = readiness
        self.probes.append(readiness)
        last = self.probes[-POLICY.probe_failures :]
        soon = self.now + POLICY.longest
        if last == [Readiness.DOWN] * POLICY.probe_failures:
            if self.health is not Health.EJECTED:
                self.shut(Health.EJECTED, soon)
            self.curable, self.until = True, max(self.until, soon)
        elif readiness is Readiness.LOADING:
            if self.health is not Health.LOADING:
                self.was_healthy = self.health is Health.HEALTHY
                self.shut(Health.LOADING, soon)
            self.until = soon
        elif readiness is Readiness.READY:
            self.found_ready()
        elif self.is_silent and not spared and self.health is Health.HEALTHY:
            self.shut(Health.EJECTED, soon)
            self.curable = True

    def found_ready(self) -> None:
        if self.health is Health.LOADING:
            self.become(Health.HEALTHY if self.was_healthy else Health.PROBATION, NEVER)
        elif self.health is Health.EJECTED and self.curable:
            self.become(Health.PROBATION, NEVER)

    @property
    def is_silent(self) -> bool:
        """Or down."""
        last = self.probes[-POLICY.probe_failures :]
        return len(last) == POLICY.probe_failures and {*last} <= {Readiness.DOWN, Readiness.SILENT}


class EjectionMachine(RuleBasedStateMachine):
    """Calls, probes and time, as they come. Beside the model runs a pool's memory of who is available."""

    calls = Bundle("calls")
    questions = Bundle("questions")

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.ejection = Ejection(POLICY, clock=self.model.clock, uniform=lambda low, high: (low + high) / 2,
                                 on_change=self.changed)  # fmt: skip
        self.remembered: tuple[tuple[bool, bool], float] | None = None
        self.under_way: list[Call] = []

    def changed(self) -> None:
        self.remembered = None

    @rule(target=calls)
    def a_call_begins(self) -> Call:
        call = Call(self.ejection.began())
        self.model.begin(call)
        self.under_way.append(call)
        return call

    @rule(target=calls, count=st.integers(1, 6))
    def calls_begin(self, count: int) -> object:
        return multiple(*(self.a_call_begins() for _ in range(count)))

    @rule(target=questions)
    def a_question_is_asked(self) -> Call:
        question = Call(self.ejection.term)
        self.model.ask(question)
        return question

    @rule(question=consumes(questions), spared=st.booleans())
    def a_question_does_not_reach_it(self, question: Call, spared: bool) -> None:
        self.ejection.failed(FailureKind.LOCAL, spared=spared, term=question.term)
        self.model.fail(question, FailureKind.LOCAL, spared=spared)

    @rule(call=calls)
    def it_gives_its_first_token(self, call: Call) -> None:
        was = self.model.health
        returned = self.ejection.succeeded(call.term)
        self.model.succeed(call)

        assert returned == (was is not self.model.health)

    @rule(call=consumes(calls))
    def it_ends_well(self, call: Call) -> None:
        self.under_way.remove(call)
        self.it_gives_its_first_token(call)
        self.ejection.completed(call.term)
        self.model.complete(call)

    @rule(call=consumes(calls), kind=st.sampled_from(FailureKind), spared=st.booleans())
    def it_fails(self, call: Call, kind: FailureKind, spared: bool) -> None:
        self.under_way.remove(call)
        ejected = self.ejection.failed(kind, spared=spared, term=call.term, broken=call.answered)
        was = self.model.health
        self.model.fail(call, kind, spared=spared)

        assert ejected == (self.model.health is Health.EJECTED and was is not Health.EJECTED)
        assert not (ejected and spared and kind is not FailureKind.LOCAL)

    @rule(call=consumes(calls))
    def it_ends_from_our_side(self, call: Call) -> None:
        self.under_way.remove(call)
        self.ejection.abandoned(call.term)
        self.model.abandon(call)

    @rule(readiness=st.sampled_from(Readiness), times=st.integers(1, 3), spared=st.booleans())
    def it_is_probed(self, readiness: Readiness, times: int, spared: bool) -> None:
        for _ in range(times):
            self.ejection.probed(readiness, spared=spared)
            self.model.probed(readiness, spared=spared)

    @rule(seconds=st.integers(1, 24))
    def time_passes(self, seconds: int) -> None:
        self.model.advance(seconds / 2)

    @rule(
        kinds=st.lists(st.sampled_from(FailureKind), min_size=1, max_size=4),
        found=st.sampled_from([Readiness.READY, Readiness.SILENT]),
    )
    def it_recovers_while_earlier_calls_still_fail(self, kinds: list[FailureKind], found: Readiness) -> None:
        """Whatever is told of calls that were begun before, and however slow it answers probes, it is asked again."""
        late = list(self.under_way)
        for half_second, kind in zip(range(int(2 * PROMISE) + 1), cycle(kinds), strict=False):
            if self.ejection.available():
                break
            if half_second % 4 == 3:
                self.it_is_probed(found, 1, spared=False)
            if late:
                call = late.pop()
                self.ejection.failed(kind, spared=False, term=call.term, broken=call.answered)
                self.model.fail(call, kind, spared=False)
            self.model.advance(0.5)

        assert self.ejection.available()

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        self.a_pool_remembers_rightly()

        assert self.ejection.health is self.model.health
        assert self.ejection.available() is self.model.available
        assert self.ejection.consecutive_failures == max(len(self.model.row), self.model.broken)
        assert self.ejection.dead is self.model.is_silent
        assert self.ejection.changes_at == self.model.until
        ejected = self.model.health is Health.EJECTED
        assert self.ejection.ejected_for() == (self.model.until - self.model.now if ejected else None)

    def a_pool_remembers_rightly(self) -> None:
        """What it knows holds until `changes_at` or `on_change`: asked first, for asking makes time pass."""
        if self.remembered is not None and self.model.now < self.remembered[1]:
            assert self.remembered[0] == (self.model.available, self.model.better_than_nobody)
        known = self.ejection.available(), self.ejection.better_than_nobody
        self.remembered = known, self.ejection.changes_at


def test_whatever_befalls_an_endpoint_it_is_as_the_model_says_and_comes_back() -> None:
    run_state_machine_as_test(EjectionMachine)
