# SPDX-License-Identifier: Apache-2.0
"""What active probes do to an endpoint's ejection, and what they leave alone."""

from __future__ import annotations

import pytest

from llm_gateway.backends.base import Readiness
from llm_gateway.upstream.ejection import Ejection, FailureKind, Health
from tests.upstream.ejecting import POLICY, eject, fail, probe
from tests.upstream.fakes import Clock

LOCAL, ANSWER, SLOW = FailureKind
READY, LOADING, SILENT, DOWN = Readiness


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ejection(clock: Clock) -> Ejection:
    return Ejection(POLICY, clock=clock)


def test_probes_in_a_row_that_find_it_down_eject_it(ejection: Ejection) -> None:
    probe(ejection, DOWN, DOWN, READY, DOWN, DOWN)
    assert ejection.available()

    probe(ejection, DOWN)
    assert ejection.health is Health.EJECTED


@pytest.mark.parametrize("finding", [DOWN, SILENT])
def test_what_answers_calls_is_not_down_whatever_a_probe_says(ejection: Ejection, finding: Readiness) -> None:
    """A backend under load may be slow to answer a probe."""
    for _ in range(10):
        probe(ejection, finding, finding)
        assert ejection.available()

        ejection.succeeded(ejection.began())


def test_while_probes_find_it_down_it_is_ejected(ejection: Ejection, clock: Clock) -> None:
    probe(ejection, DOWN, DOWN)
    for _ in range(100):
        probe(ejection, DOWN)
        clock.pass_(2.0)

        assert ejection.health is Health.EJECTED


def test_a_prober_that_stops_locks_nobody_out(ejection: Ejection, clock: Clock) -> None:
    probe(ejection, DOWN, DOWN, DOWN)
    assert ejection.ejected_for() == POLICY.longest

    clock.pass_(POLICY.longest)
    assert ejection.available()


@pytest.mark.parametrize("findings", [[SILENT] * 3, [DOWN, SILENT, DOWN]], ids=["silent", "or down"])
def test_silence_ejects_while_there_is_another_endpoint(ejection: Ejection, findings: list[Readiness]) -> None:
    probe(ejection, *findings[:-1])
    assert ejection.available()
    assert not ejection.dead

    probe(ejection, findings[-1])
    assert ejection.health is Health.EJECTED
    assert ejection.dead


def test_silence_never_ejects_the_last_endpoint_and_that_it_is_down_does(ejection: Ejection) -> None:
    probe(ejection, *[SILENT] * 100, DOWN, DOWN, spared=True)
    assert ejection.available()

    probe(ejection, DOWN, spared=True)
    assert ejection.health is Health.EJECTED


def test_what_was_spared_is_ejected_by_the_next_silence_once_there_is_another(ejection: Ejection) -> None:
    probe(ejection, *[SILENT] * 3, spared=True)
    probe(ejection, SILENT)

    assert ejection.health is Health.EJECTED


@pytest.mark.parametrize("finding", [SILENT, DOWN])
def test_silence_prolongs_no_ejection_and_ends_no_trial(ejection: Ejection, clock: Clock, finding: Readiness) -> None:
    probe(ejection, *[finding] * 3)
    for _ in range(int(POLICY.longest)):
        probe(ejection, SILENT)
        clock.pass_(1.0)
    assert ejection.available()

    term = ejection.began()
    probe(ejection, SILENT, SILENT)
    ejection.succeeded(term)
    assert ejection.health is Health.HEALTHY


def test_silence_is_no_other_life_that_ends_an_ejection_for_answers(ejection: Ejection) -> None:
    eject(ejection, ANSWER)
    probe(ejection, SILENT, SILENT, SILENT, READY)

    assert ejection.health is Health.EJECTED


def test_one_that_was_silent_and_answers_probes_again_is_on_probation(ejection: Ejection) -> None:
    probe(ejection, SILENT, SILENT, SILENT, READY)

    assert ejection.health is Health.PROBATION


@pytest.mark.parametrize(("finding", "better"), [(READY, True), (SILENT, False), (DOWN, False)])
def test_one_on_probation_is_better_than_nobody_while_its_probes_find_it_ready(
    ejection: Ejection, clock: Clock, finding: Readiness, better: bool
) -> None:
    eject(ejection, ANSWER)
    probe(ejection, READY, finding)
    assert not ejection.better_than_nobody

    clock.pass_(POLICY.base)
    ejection.began()
    assert ejection.better_than_nobody is better
    assert not ejection.available()


@pytest.mark.parametrize(
    ("kind", "findings", "health"),
    [
        (LOCAL, [READY], Health.PROBATION),
        (ANSWER, [READY], Health.EJECTED),
        (SLOW, [READY], Health.EJECTED),
        (None, [DOWN, DOWN, DOWN, READY], Health.PROBATION),
        (ANSWER, [DOWN, DOWN, DOWN, READY], Health.PROBATION),
        (ANSWER, [DOWN, DOWN, READY], Health.EJECTED),
        (ANSWER, [LOADING, READY], Health.PROBATION),
        (LOCAL, [LOADING, READY], Health.PROBATION),
        (None, [LOADING, READY], Health.HEALTHY),
        (None, [LOADING], Health.LOADING),
        (None, [LOADING, DOWN, DOWN], Health.LOADING),
        (None, [LOADING, DOWN, DOWN, DOWN], Health.EJECTED),
        (None, [DOWN, DOWN, DOWN, LOADING, READY], Health.PROBATION),
        (ANSWER, [LOADING], Health.LOADING),
    ],
)
def test_a_probe_ends_what_it_can_judge(
    ejection: Ejection, kind: FailureKind | None, findings: list[Readiness], health: Health
) -> None:
    """That it can be reached says nothing of its answers; that it was down or loading means another life."""
    if kind is not None:
        eject(ejection, kind)
    probe(ejection, *findings)

    assert ejection.health is health
    assert ejection.available() is (health in {Health.HEALTHY, Health.PROBATION})


def test_a_probe_ends_no_ejection_of_an_endpoint_whose_trial_was_answered_badly(
    ejection: Ejection, clock: Clock
) -> None:
    """Although the first one was for failures to reach it."""
    eject(ejection, LOCAL)
    clock.pass_(POLICY.base)
    fail(ejection, ANSWER)
    probe(ejection, READY)

    assert ejection.health is Health.EJECTED


def test_a_probe_does_not_prolong_an_ejection_for_answers(ejection: Ejection, clock: Clock) -> None:
    eject(ejection, ANSWER)
    for _ in range(4):
        clock.pass_(POLICY.base / 4)
        probe(ejection, READY)

    assert ejection.health is Health.PROBATION


def test_a_probe_does_not_end_probation(ejection: Ejection, clock: Clock) -> None:
    eject(ejection, ANSWER)
    clock.pass_(POLICY.base)
    probe(ejection, READY)
    assert ejection.health is Health.PROBATION

    ejection.began()
    probe(ejection, READY)
    assert not ejection.available()


def test_a_probe_leaves_the_row_of_failures(ejection: Ejection) -> None:
    fail(ejection, *[ANSWER] * 4)
    probe(ejection, READY)

    assert fail(ejection, ANSWER) is True


def test_while_it_says_that_it_loads_it_is_loading(ejection: Ejection, clock: Clock) -> None:
    for _ in range(100):
        probe(ejection, LOADING)
        clock.pass_(2.0)

        assert ejection.health is Health.LOADING
        assert ejection.ejected_for() is None


def test_loading_without_another_word_ends(ejection: Ejection, clock: Clock) -> None:
    probe(ejection, LOADING)
    clock.pass_(POLICY.longest)

    assert ejection.health is Health.PROBATION


def test_failures_of_calls_begun_before_it_loaded_count_for_nothing(ejection: Ejection) -> None:
    terms = [ejection.began() for _ in range(10)]
    probe(ejection, LOADING, READY)

    assert not any(ejection.failed(LOCAL, spared=False, term=term) for term in terms)
    assert ejection.available()
