# SPDX-License-Identifier: Apache-2.0
"""What is said of before and after, given the samples."""

from __future__ import annotations

import io
import random

import pytest
from rich.console import Console

from tests.bench import comparison
from tests.bench.before_after import AFTER, BEFORE, UNITS, Samples, shuffled
from tests.bench.memory import Wave
from tests.bench.run import PACED_128
from tests.bench.statistics import Ratio

WAVE = Wave(streams=1, few=0, errors=0, together=1, before=0, with_few=0, with_all=0, after=0)


@pytest.fixture
def samples() -> Samples:
    """Nine rounds: all as it was, but for one figure that is a tenth worse."""
    found = Samples(waves=[WAVE] * 18)
    for figure in UNITS:
        for number in range(9):
            found.add(figure, BEFORE, 10.0 + number)
            found.add(figure, AFTER, (10.0 + number) * (1.1 if figure == PACED_128 else 1.0))
    return found


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (Ratio(1.0, 0.9, 1.05), "≤ 1.05 reached"),
        (Ratio(1.0, 0.9, 1.06), "≤ 1.05 open"),
        (Ratio(1.2, 1.06, 1.3), "≤ 1.05 missed"),
    ],
)
def test_the_upper_bound_decides(ratio: Ratio, expected: str) -> None:
    assert comparison.verdict(ratio) == expected


def test_every_figure_has_its_row_and_verdict(samples: Samples) -> None:
    printed = io.StringIO()

    Console(width=200, file=printed).print(comparison.table(samples, before="abc"))

    rows = [line for line in printed.getvalue().splitlines() if "1.05" in line]
    assert len(rows) == len(UNITS)
    assert [PACED_128 in row for row in rows] == ["missed" in row for row in rows]


def test_the_json_says_which_figures_reach_it(samples: Samples) -> None:
    figures = comparison.as_json(samples, before="abc")["figures"]

    assert [name for name, figure in figures.items() if not figure["reached"]] == [PACED_128]


@pytest.mark.parametrize(("waves", "warned"), [(16, True), (18, False)])
def test_too_few_rounds_are_told(samples: Samples, waves: int, warned: bool) -> None:
    samples.waves = [WAVE] * waves

    remarks = " ".join(comparison.remarks(samples))

    assert ("fewer than 9 rounds" in remarks) == warned


def test_neither_side_is_always_first() -> None:
    chance = random.Random(1)
    orders = {tuple(shuffled((BEFORE, AFTER), chance)) for _ in range(20)}

    assert orders == {(BEFORE, AFTER), (AFTER, BEFORE)}
