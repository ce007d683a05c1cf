# SPDX-License-Identifier: Apache-2.0
"""The arithmetic behind the figures."""

from __future__ import annotations

import math
import os
import sys
import time

import pytest

from tests.bench import processes
from tests.bench.statistics import percentile, ratio_of_medians, ratio_of_paired_medians
from tests.bench.workloads import Cost


@pytest.mark.parametrize(("percent", "expected"), [(0, 1), (50, 51), (99, 100), (100, 101)])
def test_a_percentile_is_a_sample(percent: float, expected: int) -> None:
    samples = [*range(101, 0, -1)]

    assert percentile(samples, percent) == expected


def test_a_ratio_lies_within_its_interval() -> None:
    ratio = ratio_of_medians([8.0, 9.0, 10.0, 11.0, 30.0], [2.0, 2.0, 2.5, 3.0, 2.0])

    assert ratio.low <= ratio.value <= ratio.high
    assert ratio.value == 5.0


def test_samples_without_a_spread_leave_no_doubt() -> None:
    ratio = ratio_of_medians([6.0] * 5, [2.0] * 5)

    assert (ratio.low, ratio.value, ratio.high) == (3.0, 3.0, 3.0)


def test_a_scattered_sample_widens_the_interval() -> None:
    calm = ratio_of_medians([9.0, 10.0, 11.0] * 3, [2.0] * 9)
    wild = ratio_of_medians([1.0, 10.0, 19.0] * 3, [2.0] * 9)

    assert wild.high - wild.low > calm.high - calm.low


def test_rounds_that_were_slow_for_both_leave_no_doubt_in_pairs() -> None:
    before = [10.0, 30.0, 11.0, 25.0, 12.0, 40.0, 9.0]
    after = [1.5 * sample for sample in before]

    paired, apart = ratio_of_paired_medians(after, before), ratio_of_medians(after, before)

    assert (paired.low, paired.value, paired.high) == (1.5, 1.5, 1.5)
    assert apart.low < 1.5 < apart.high


def test_a_ratio_to_nothing_is_no_good_one() -> None:
    assert ratio_of_paired_medians([1.0], [0.0]).high == math.inf


def test_a_cost_is_told_in_microseconds_per_unit() -> None:
    cost = Cost(cpu=0.5, units=10_000, seconds=2.0, answer=100, cpu_per_answer=0.005)

    assert (cost.micros, cost.busy) == (50.0, 0.25)


def test_the_cpu_of_a_process_is_what_the_kernel_counts() -> None:
    before = time.process_time()
    counted = processes.cpu_seconds(os.getpid())
    after = time.process_time()

    assert before <= counted <= after


def test_a_program_that_ends_at_its_start_is_told_with_its_last_words() -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such flag')"]
    broken = processes.Process("broken", command, port=processes.free_port(), cores=processes.CORES)

    with pytest.raises(RuntimeError, match="no such flag"):
        broken.__enter__()
