# SPDX-License-Identifier: Apache-2.0
"""Where a call's time goes: every wait in its own account, and the gaps between tokens in bounded memory."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.observability.stopwatch import MAX_GAPS, Stopwatch

GAPS = st.lists(st.integers(0, 1000), min_size=1, max_size=200)


def of_gaps(gaps: list[int]) -> Stopwatch:
    """A stopwatch that has seen tokens with these gaps between them; whole seconds, so that the sums are exact."""
    stopwatch = Stopwatch()
    now = 1_000_000.0
    stopwatch.arrived(now)
    for gap in gaps:
        now += gap
        stopwatch.arrived(now)
    return stopwatch


def test_before_anything_came_there_is_nothing_to_tell() -> None:
    timing = Stopwatch().timing()

    assert (timing.queue, timing.upstream, timing.client_stall) == (0.0, 0.0, 0.0)
    assert timing.time_to_first_token is None
    assert (timing.inter_token_p50, timing.inter_token_p95, timing.inter_token_max) == (None, None, None)


def test_it_runs_from_the_moment_it_is_made() -> None:
    before = time.monotonic()
    stopwatch = Stopwatch()
    made = time.monotonic()

    total = stopwatch.timing().total

    assert before <= stopwatch.started <= made
    assert 0 <= total <= time.monotonic() - before


def test_the_queue_ends_with_the_seat() -> None:
    stopwatch = Stopwatch()
    stopwatch.seated()
    queue = stopwatch.timing().queue

    assert 0 <= queue <= stopwatch.timing().total
    assert stopwatch.timing().queue == queue


def test_each_wait_is_accounted_to_whom_it_was_for() -> None:
    stopwatch = Stopwatch()
    upstream = [-stopwatch.wait() + stopwatch.upstream_done() for _ in range(3)]
    client = [-stopwatch.wait() + stopwatch.client_done() for _ in range(2)]

    timing = stopwatch.timing()

    assert timing.upstream == pytest.approx(sum(upstream))
    assert timing.client_stall == pytest.approx(sum(client))
    assert timing.gateway_overhead == pytest.approx(
        timing.total - timing.queue - timing.upstream - timing.client_stall, abs=1e-9
    )


def test_the_time_to_the_first_token_is_that_of_the_first() -> None:
    stopwatch = Stopwatch()
    stopwatch.arrived(stopwatch.started + 2.5)
    stopwatch.arrived(stopwatch.started + 9.0)

    assert stopwatch.timing().time_to_first_token == pytest.approx(2.5)


def test_one_token_has_no_gaps() -> None:
    timing = of_gaps([]).timing()

    assert timing.inter_token_p50 is timing.inter_token_p95 is timing.inter_token_max is None


@pytest.mark.parametrize(
    ("gaps", "p50", "p95"), [([7], 7, 7), ([1, 2], 1, 2), ([3, 1, 2], 2, 3), (list(range(1, 101)), 50, 95)],
    ids=["one", "two", "three", "a hundred"],
)  # fmt: skip
def test_a_percentile_is_the_nearest_rank(gaps: list[int], p50: int, p95: int) -> None:
    timing = of_gaps(gaps).timing()

    assert (timing.inter_token_p50, timing.inter_token_p95) == (p50, p95)


@given(gaps=GAPS)
def test_so_many_gaps_do_not_exceed_a_percentile_and_no_smaller_gap_will_do(gaps: list[int]) -> None:
    timing = of_gaps(gaps).timing()

    assert timing.inter_token_max == max(gaps)
    for percent, value in ((50, timing.inter_token_p50), (95, timing.inter_token_p95)):
        assert value in gaps
        needed = math.ceil(len(gaps) * percent / 100)
        assert sum(gap <= value for gap in gaps) >= needed
        assert sum(gap < value for gap in gaps) < needed


@pytest.mark.parametrize("count", [0, 1, 2, MAX_GAPS, MAX_GAPS + 1, MAX_GAPS + 2, 5 * MAX_GAPS + 3])
def test_what_came_is_counted_exactly_though_few_gaps_are_kept(count: int) -> None:
    stopwatch = Stopwatch()
    for now in range(count):
        stopwatch.arrived(float(now))

    assert stopwatch.arrivals == count


@pytest.mark.parametrize("count", [MAX_GAPS - 1, MAX_GAPS, MAX_GAPS + 1, 10 * MAX_GAPS])
def test_the_gaps_of_a_long_answer_take_bounded_memory_and_still_tell(count: int) -> None:
    gaps = [index % 100 + 1 for index in range(count)]
    gaps[count // 2] = 5_000
    stopwatch = of_gaps(gaps)

    timing = stopwatch.timing()

    assert len(stopwatch._gaps) < MAX_GAPS
    assert timing.inter_token_max == 5_000, "the longest is never passed over"
    assert timing.inter_token_p50 == pytest.approx(50, abs=5)
    assert timing.inter_token_p95 == pytest.approx(95, abs=5)
