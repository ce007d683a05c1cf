# SPDX-License-Identifier: Apache-2.0
"""How many retries there may be."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.upstream.budget import RetryBudget, RetryStatistics
from tests.upstream.fakes import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def granted(budget: RetryBudget, asked: int = 1000) -> int:
    return sum(budget.withdraw() for _ in range(asked))


def request(budget: RetryBudget, calls: int) -> None:
    for _ in range(calls):
        budget.request()


@pytest.mark.parametrize(
    ("calls", "retries"), [(0, 50), (1, 50), (250, 50), (254, 50), (255, 51), (500, 100), (2000, 400)]
)
def test_retries_are_a_share_of_the_calls_but_never_less_than_the_floor(clock: Clock, calls: int, retries: int) -> None:
    budget = RetryBudget(share=0.2, floor=50, clock=clock)
    request(budget, calls)

    assert granted(budget) == retries


def test_a_budget_of_nothing_grants_nothing(clock: Clock) -> None:
    budget = RetryBudget(share=0.0, floor=0, clock=clock)
    request(budget, 1000)

    assert granted(budget) == 0


def test_what_was_granted_is_free_again_when_it_has_left_the_window(clock: Clock) -> None:
    budget = RetryBudget(floor=10, window=10.0, clock=clock)
    granted(budget)
    clock.pass_(9.0)
    assert granted(budget) == 0

    clock.pass_(1.0)
    assert granted(budget) == 10


def test_calls_that_have_left_the_window_earn_no_retries(clock: Clock) -> None:
    budget = RetryBudget(floor=10, window=10.0, clock=clock)
    request(budget, 1000)
    clock.pass_(10.0)

    assert granted(budget) == 10


@pytest.mark.parametrize("silence", [10.0, 15.0, 1e6])
def test_after_a_silence_nothing_is_left_in_the_window(clock: Clock, silence: float) -> None:
    budget = RetryBudget(window=10.0, clock=clock)
    for _ in range(30):
        request(budget, 10)
        granted(budget, 3)
        clock.pass_(0.7)
    clock.pass_(silence)

    assert budget.statistics() == RetryStatistics(requests=0, retries=0, refused=0)


def test_the_statistics_tell_what_is_in_the_window_and_all_that_was_refused(clock: Clock) -> None:
    budget = RetryBudget(floor=2, window=10.0, clock=clock)
    for _ in range(2):
        request(budget, 3)
        granted(budget, 5)
        clock.pass_(10.0)
    request(budget, 1)
    granted(budget, 1)

    assert budget.statistics() == RetryStatistics(requests=1, retries=1, refused=6)


@pytest.mark.parametrize("rate", [1, 10, 100, 1000])
def test_a_total_outage_costs_a_share_of_the_calls_and_the_first_ones_are_rescued(clock: Clock, rate: int) -> None:
    """Every call of a minute fails, and asks for two retries."""
    budget = RetryBudget(share=0.2, floor=50, window=10.0, clock=clock)
    retries = 0
    for second in range(60):
        request(budget, rate)
        retries += granted(budget, 2 * rate)
        clock.pass_(1.0)
        assert retries >= min(2 * rate * (second + 1), 50)

    assert retries <= 6 * max(50, 0.2 * rate * 10)


@given(
    st.lists(st.tuples(st.sampled_from(["request", "withdraw", "pass"]), st.integers(1, 40)), max_size=60),
    st.integers(0, 10),
    st.floats(0, 1),
)
def test_no_retry_is_granted_beyond_the_share_or_the_floor_of_the_window(
    steps: list[tuple[str, int]], floor: int, share: float
) -> None:
    """And none is refused within them: the window is counted here from the times of all that ever happened."""
    clock = Clock()
    budget = RetryBudget(share, floor, 10.0, clock)
    calls: list[float] = []
    retries: list[float] = []

    def in_window(times: list[float]) -> int:
        return sum(math.floor(clock.now) - math.floor(time) < 10 for time in times)

    for step, count in steps:
        if step == "pass":
            clock.pass_(count / 4)
            continue
        for _ in range(count):
            if step == "request":
                budget.request()
                calls.append(clock.now)
            elif budget.withdraw():
                retries.append(clock.now)
                assert in_window(retries) <= max(floor, share * in_window(calls))
            else:
                assert in_window(retries) + 1 > max(floor, share * in_window(calls))

    statistics = budget.statistics()
    assert (statistics.requests, statistics.retries) == (in_window(calls), in_window(retries))
