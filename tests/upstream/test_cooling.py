# SPDX-License-Identifier: Apache-2.0
"""How long an endpoint that refuses calls because it is busy is passed over."""

from __future__ import annotations

import pytest

from llm_gateway import errors as e
from llm_gateway.upstream.cooling import Cooling

FULL = e.BackendOverloaded("503")


@pytest.fixture
def cooling() -> Cooling:
    return Cooling()


def pauses(cooling: Cooling, error: e.GatewayError, times: int) -> list[float]:
    """Those that come of refusals in a row, each of a call that was sent when the last pause was over."""
    lengths = []
    for _ in range(times):
        now = cooling.until
        cooling.refused(error, cooling.term, now)
        lengths.append(cooling.until - now)
    return lengths


def test_a_pause_that_nobody_asked_for_is_short_and_twice_as_long_each_time_up_to_a_limit(cooling: Cooling) -> None:
    assert pauses(cooling, FULL, 6) == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_an_answer_ends_it_and_the_next_one_is_short_again(cooling: Cooling) -> None:
    pauses(cooling, FULL, 4)

    assert cooling.answered(cooling.term)
    assert cooling.until == 0.0
    assert pauses(cooling, FULL, 1) == [1.0]


def test_calls_that_were_under_way_together_say_the_same_once(cooling: Cooling) -> None:
    for _ in range(50):
        cooling.refused(FULL, 0, now=100.0)

    assert cooling.until == 101.0


def test_the_answer_to_a_call_that_was_sent_before_the_refusal_ends_nothing(cooling: Cooling) -> None:
    cooling.refused(FULL, 0, now=100.0)

    assert not cooling.answered(0)
    assert cooling.until == 101.0


@pytest.mark.parametrize(("asked", "pause"), [(0.5, 0.5), (7.0, 7.0), (3600.0, 60.0)])
def test_what_is_asked_for_is_heeded_within_reason(cooling: Cooling, asked: float, pause: float) -> None:
    assert pauses(cooling, e.BackendRateLimited("429", retry_after=asked), 3) == [pause] * 3


def test_a_pause_that_was_asked_for_is_shortened_by_no_guess_and_by_no_answer(cooling: Cooling) -> None:
    cooling.refused(e.BackendRateLimited("429", retry_after=30.0), cooling.term, now=100.0)
    cooling.refused(FULL, cooling.term, now=101.0)
    guessed = cooling.until
    cooling.refused(e.BackendRateLimited("429", retry_after=30.0), cooling.term, now=102.0)

    assert not cooling.answered(cooling.term)
    assert (guessed, cooling.until) == (130.0, 132.0)


def test_a_spent_quota_is_left_alone_for_long(cooling: Cooling) -> None:
    spent = e.BackendRateLimited("429")
    spent.retry_after = None

    assert pauses(cooling, spent, 2) == [60.0, 60.0]
