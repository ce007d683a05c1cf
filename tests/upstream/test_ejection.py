# SPDX-License-Identifier: Apache-2.0
"""When an endpoint is asked no more for how calls went, and how it comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_gateway.backends.base import Readiness
from llm_gateway.deadline import NEVER
from llm_gateway.upstream.ejection import Ejection, EjectionPolicy, FailureKind, Health
from tests.upstream.ejecting import POLICY, break_off, eject, fail, probe
from tests.upstream.fakes import Clock

if TYPE_CHECKING:
    from collections.abc import Callable

LOCAL, ANSWER, SLOW = FailureKind


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ejection(clock: Clock) -> Ejection:
    return Ejection(POLICY, clock=clock)


# ------------------------------------------------------------------------------------------------------------- healthy


def test_what_was_never_asked_is_healthy(ejection: Ejection) -> None:
    assert ejection.health is Health.HEALTHY
    assert ejection.available()
    assert ejection.ejected_for() is None
    assert ejection.changes_at == NEVER


def test_while_all_is_well_no_clock_is_read() -> None:
    def clock() -> float:
        raise AssertionError("read")

    ejection = Ejection(POLICY, clock=clock)
    term = ejection.began()
    ejection.succeeded(term)
    ejection.abandoned(ejection.began())

    assert fail(ejection, ANSWER) is False
    assert ejection.available()


@pytest.mark.parametrize(
    "kinds",
    [
        [LOCAL] * 3,
        [ANSWER] * 5,
        [SLOW] * 5,
        [ANSWER, SLOW, ANSWER, SLOW, LOCAL],
        [LOCAL, LOCAL, ANSWER, LOCAL, LOCAL],
        [ANSWER, LOCAL, LOCAL, LOCAL],
    ],
    ids="-".join,
)
def test_failures_in_a_row_eject(ejection: Ejection, kinds: list[FailureKind]) -> None:
    assert fail(ejection, *kinds[:-1]) is False
    assert ejection.available()
    assert fail(ejection, kinds[-1]) is True
    assert ejection.health is Health.EJECTED
    assert not ejection.available()


def test_a_success_ends_the_row(ejection: Ejection) -> None:
    for kinds in ([LOCAL] * 2, [ANSWER] * 4):
        fail(ejection, *kinds)
        ejection.succeeded(ejection.began())

        assert ejection.consecutive_failures == 0
        fail(ejection, *kinds)
        assert ejection.available()
        ejection.succeeded(ejection.began())


def test_what_ended_from_our_side_neither_ends_the_row_nor_lengthens_it(ejection: Ejection) -> None:
    fail(ejection, *[ANSWER] * 4)
    for _ in range(10):
        ejection.abandoned(ejection.began())

    assert ejection.consecutive_failures == 4
    assert fail(ejection, ANSWER) is True


def test_answers_that_break_off_one_after_another_eject_although_each_had_begun(ejection: Ejection) -> None:
    assert break_off(ejection, 4) is False
    assert ejection.consecutive_failures == 4
    assert break_off(ejection, 1) is True


def test_an_answer_that_ended_well_ends_the_row_of_those_that_broke_off(ejection: Ejection) -> None:
    for _ in range(3):
        break_off(ejection, 4)
        term = ejection.began()
        ejection.succeeded(term)
        ejection.completed(term)

        assert ejection.consecutive_failures == 0
    assert ejection.available()


def test_an_answer_that_ended_from_our_side_leaves_that_row_as_it_is(ejection: Ejection) -> None:
    break_off(ejection, 4)
    term = ejection.began()
    ejection.succeeded(term)
    ejection.abandoned(term)

    assert ejection.consecutive_failures == 4
    assert break_off(ejection, 1) is True


def test_the_last_endpoint_is_not_ejected_for_answers_that_break_off(ejection: Ejection) -> None:
    assert break_off(ejection, 100, spared=True) is False
    assert ejection.available()


def test_one_that_breaks_off_every_answer_is_ejected_for_longer_each_time_its_trial_has_begun_well(
    ejection: Ejection, clock: Clock
) -> None:
    break_off(ejection, 5)
    lengths = []
    for _ in range(6):
        lengths.append(ejection.ejected_for())
        clock.pass_(lengths[-1] or 0.0)
        break_off(ejection, 1)

    assert lengths == [2, 4, 6, 8, 10, 10]


def test_an_answer_that_was_begun_before_the_ejection_and_ends_well_ends_no_row(ejection: Ejection) -> None:
    term = ejection.began()
    break_off(ejection, 5)
    ejection.completed(term)

    assert ejection.consecutive_failures == 5


@pytest.mark.parametrize("kind", [ANSWER, SLOW])
def test_the_last_endpoint_of_a_model_is_never_ejected_for_its_answers(ejection: Ejection, kind: FailureKind) -> None:
    assert fail(ejection, *[kind] * 100, spared=True) is False
    assert ejection.available()


def test_the_last_endpoint_is_ejected_when_it_cannot_be_reached(ejection: Ejection) -> None:
    fail(ejection, *[ANSWER] * 10, spared=True)

    assert fail(ejection, LOCAL, LOCAL, spared=True) is False
    assert fail(ejection, LOCAL, spared=True) is True


def test_what_was_spared_is_ejected_by_its_next_failure_once_there_is_another(ejection: Ejection) -> None:
    fail(ejection, *[ANSWER] * 10, spared=True)

    assert fail(ejection, ANSWER, spared=False) is True


# ------------------------------------------------------------------------------------------------------------- ejected


def test_an_ejection_ends_by_itself(ejection: Ejection, clock: Clock) -> None:
    eject(ejection, ANSWER)
    assert ejection.ejected_for() == POLICY.base
    assert ejection.changes_at == clock.now + POLICY.base

    clock.pass_(POLICY.base - 0.5)
    assert ejection.ejected_for() == 0.5
    assert not ejection.available()

    clock.pass_(0.5)
    assert ejection.health is Health.PROBATION
    assert ejection.ejected_for() is None
    assert ejection.available()


def test_each_ejection_in_a_row_is_longer_up_to_a_limit(ejection: Ejection, clock: Clock) -> None:
    eject(ejection, ANSWER)
    lengths = []
    for _ in range(7):
        lengths.append(ejection.ejected_for())
        clock.pass_(lengths[-1] or 0.0)
        fail(ejection, ANSWER)

    assert lengths == [2, 4, 6, 8, 10, 10, 10]


@pytest.mark.parametrize(("healthy_for", "length"), [(9.9, 4.0), (10.0, 2.0)])
def test_earlier_ejections_are_forgotten_once_it_has_stayed_well(
    ejection: Ejection, clock: Clock, healthy_for: float, length: float
) -> None:
    """So one that comes and goes is out for longer each time, although its trials go well."""
    eject(ejection, ANSWER)
    clock.pass_(2.0)
    ejection.succeeded(ejection.began())
    clock.pass_(healthy_for)
    eject(ejection, ANSWER)

    assert ejection.ejected_for() == length


@pytest.mark.parametrize(("uniform", "length"), [(min, 1.6), (max, 2.4)], ids=["shortest", "longest"])
def test_the_length_varies_by_a_share(clock: Clock, uniform: Callable[[float, float], float], length: float) -> None:
    ejection = Ejection(EjectionPolicy(), clock=clock, uniform=uniform)
    eject(ejection, ANSWER)

    assert ejection.ejected_for() == pytest.approx(length)


@pytest.mark.parametrize("kind", FailureKind)
def test_failures_of_calls_begun_before_it_do_not_prolong_it(
    ejection: Ejection, clock: Clock, kind: FailureKind
) -> None:
    terms = [ejection.began() for _ in range(20)]
    eject(ejection, ANSWER)
    clock.pass_(1.0)

    assert [ejection.failed(kind, spared=False, term=term) for term in terms] == [False] * 20
    assert ejection.ejected_for() == 1.0


def test_a_success_of_a_call_begun_before_it_does_not_end_it(ejection: Ejection) -> None:
    term = ejection.began()
    eject(ejection, ANSWER)
    ejection.succeeded(term)

    assert ejection.health is Health.EJECTED


# ----------------------------------------------------------------------------------------------------------- probation


@pytest.fixture
def on_probation(ejection: Ejection, clock: Clock) -> Ejection:
    eject(ejection, ANSWER)
    clock.pass_(POLICY.base)
    return ejection


def test_probation_has_one_trial(on_probation: Ejection) -> None:
    assert on_probation.available()
    on_probation.began()

    assert not on_probation.available()
    assert on_probation.health is Health.PROBATION


def test_a_trial_that_goes_well_ends_it(on_probation: Ejection) -> None:
    on_probation.succeeded(on_probation.began())

    assert on_probation.health is Health.HEALTHY
    assert on_probation.consecutive_failures == 0
    assert on_probation.changes_at == NEVER
    assert fail(on_probation, *[ANSWER] * 4) is False


def test_the_end_of_a_trial_that_went_well_is_the_end_of_any_call(on_probation: Ejection) -> None:
    term = on_probation.began()
    on_probation.succeeded(term)
    on_probation.abandoned(term)

    assert on_probation.health is Health.HEALTHY


@pytest.mark.parametrize("kind", FailureKind)
def test_a_trial_that_fails_ejects_again(on_probation: Ejection, kind: FailureKind) -> None:
    assert fail(on_probation, kind) is True
    assert on_probation.ejected_for() == 2 * POLICY.base


def test_a_trial_that_ended_from_our_side_is_open_again(on_probation: Ejection) -> None:
    on_probation.abandoned(on_probation.began())

    assert on_probation.available()
    assert on_probation.changes_at == NEVER


@pytest.mark.parametrize("kind", [ANSWER, SLOW])
def test_a_trial_of_the_last_endpoint_need_only_reach_it(on_probation: Ejection, kind: FailureKind) -> None:
    assert fail(on_probation, kind, spared=True) is False
    assert on_probation.health is Health.HEALTHY
    assert fail(on_probation, kind, spared=False) is True


def test_a_trial_that_does_not_reach_the_last_endpoint_ejects_it_again(on_probation: Ejection) -> None:
    assert fail(on_probation, LOCAL, spared=True) is True


def test_an_ejection_after_a_trial_counts_from_where_the_trial_was_begun(on_probation: Ejection, clock: Clock) -> None:
    """For only then is it known to have been ill."""
    term = on_probation.began()
    clock.pass_(3.0)

    assert on_probation.failed(SLOW, spared=False, term=term) is True
    assert on_probation.ejected_for() == 2 * POLICY.base - 3.0


def test_a_trial_whose_failure_took_longer_than_the_ejection_leaves_none(on_probation: Ejection, clock: Clock) -> None:
    term = on_probation.began()
    clock.pass_(2 * POLICY.base)

    assert on_probation.failed(SLOW, spared=False, term=term) is False
    assert on_probation.available()


def test_a_trial_that_hangs_holds_up_nobody_for_long(on_probation: Ejection, clock: Clock) -> None:
    on_probation.began()
    assert on_probation.changes_at == clock.now + POLICY.longest

    clock.pass_(POLICY.longest)
    assert on_probation.available()


def test_a_trial_that_is_slow_and_goes_well_counts_although_another_was_begun(
    on_probation: Ejection, clock: Clock
) -> None:
    """Else an endpoint that takes long to its first token would never come back."""
    term = on_probation.began()
    clock.pass_(POLICY.longest)
    on_probation.began()
    on_probation.succeeded(term)

    assert on_probation.health is Health.HEALTHY


def test_a_trial_that_hung_does_not_fail_the_next_one(on_probation: Ejection, clock: Clock) -> None:
    term = on_probation.began()
    clock.pass_(POLICY.longest)
    on_probation.began()

    assert on_probation.failed(SLOW, spared=False, term=term) is False
    assert on_probation.health is Health.PROBATION
    on_probation.abandoned(term)
    assert not on_probation.available()


@pytest.mark.parametrize("trial", ["open", "under way", "passed"])
def test_failures_of_calls_begun_before_the_ejection_are_not_the_trials(
    ejection: Ejection, clock: Clock, trial: str
) -> None:
    terms = [ejection.began() for _ in range(10)]
    eject(ejection, ANSWER)
    clock.pass_(POLICY.base)
    if trial != "open":
        term = ejection.began()
        if trial == "passed":
            ejection.succeeded(term)
    before = ejection.health, ejection.available()
    for kind in FailureKind:
        for late in terms:
            ejection.failed(kind, spared=False, term=late)

    assert (ejection.health, ejection.available()) == before


def test_a_late_success_or_end_of_a_call_begun_before_the_ejection_is_not_the_trials(
    ejection: Ejection, clock: Clock
) -> None:
    late = ejection.began()
    eject(ejection, ANSWER)
    clock.pass_(POLICY.base)
    ejection.began()
    ejection.succeeded(late)
    ejection.abandoned(late)

    assert ejection.health is Health.PROBATION
    assert not ejection.available()


# ----------------------------------------------------------------------------------------------------------- the count


def test_ejections_are_counted_whatever_they_were_for_and_loading_is_none(ejection: Ejection) -> None:
    probe(ejection, Readiness.LOADING)
    assert ejection.ejections == 0

    probe(ejection, Readiness.READY)
    eject(ejection, ANSWER)
    assert ejection.ejections == 1

    for _ in range(2 * POLICY.probe_failures):
        probe(ejection, Readiness.DOWN)
    assert ejection.ejections == 1, "it still is"
