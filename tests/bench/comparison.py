# SPDX-License-Identifier: Apache-2.0
"""What a comparison found: each figure's ratio, how sure that is, and whether it is good enough."""

from __future__ import annotations

from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table

from tests.bench.before_after import AFTER, BEFORE, UNITS
from tests.bench.report import conditions, machine, spread
from tests.bench.statistics import ratio_of_paired_medians

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.before_after import Samples
    from tests.bench.statistics import Ratio

FEWEST_ROUNDS = 9
REACH: Final = 1.05
"""After costs no more than so many times what before does."""


def verdict(ratio: Ratio) -> str:
    """Reached or missed where the whole interval is on one side, else open."""
    if ratio.high <= REACH:
        return f"≤ {REACH:g} reached"
    return f"≤ {REACH:g} missed" if ratio.low > REACH else f"≤ {REACH:g} open"


def ratios(samples: Samples) -> dict[str, Ratio]:
    """After over before."""
    return {figure: ratio_of_paired_medians(sides[AFTER], sides[BEFORE]) for figure, sides in samples.figures.items()}


def table(samples: Samples, *, before: str) -> Table:
    """All figures."""
    found = Table(title=f"After against before ({before}): median (range), ratio of medians", title_justify="left")
    found.add_column("figure", no_wrap=True)
    for column in ("", BEFORE, AFTER, "ratio [95 %]", "upper bound"):
        found.add_column(column, justify="right", no_wrap=True)
    for figure, ratio in ratios(samples).items():
        sides = samples.figures[figure]
        row = [figure, UNITS[figure], *(spread(sides[side]) for side in (BEFORE, AFTER))]
        found.add_row(*row, f"{ratio.value:.3f} [{ratio.low:.3f} – {ratio.high:.3f}]", verdict(ratio))
    return found


def remarks(samples: Samples) -> Iterator[str]:
    """What a reader should know of the conditions."""
    yield from conditions(samples.foreign, samples.waves)
    reached = sum(ratio.high <= REACH for ratio in ratios(samples).values())
    rounds = len(samples.waves) // 2
    yield f"{reached} of {len(UNITS)} upper bounds are ≤ {REACH:g}; rounds: {rounds}."
    if rounds < FEWEST_ROUNDS:
        yield f"An interval from fewer than {FEWEST_ROUNDS} rounds is narrower than the truth."


def as_json(samples: Samples, *, before: str) -> dict[str, Any]:
    """The same, and every sample."""
    return {
        "machine": machine(samples.foreign),
        "before": before,
        "figures": {
            figure: {
                "unit": UNITS[figure],
                "ratio": asdict(ratio),
                "reached": ratio.high <= REACH,
                **{
                    side: {"median": median(values), "samples": values}
                    for side, values in samples.figures[figure].items()
                },
            }
            for figure, ratio in ratios(samples).items()
        },
        "memory": [asdict(wave) for wave in samples.waves],
    }
