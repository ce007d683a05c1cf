# SPDX-License-Identifier: Apache-2.0
"""Medians, percentiles, and how sure a ratio of medians is."""

from __future__ import annotations

import random
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

RESAMPLES = 2000
CONFIDENCE = 0.95
SEED = 20


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of medians with its bootstrap interval."""

    value: float
    low: float
    high: float


def percentile(samples: Sequence[float], percent: float) -> float:
    """The value that so many in a hundred do not exceed."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]


def ratio_of_medians(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Ours over theirs; the interval holds 95 of 100 ratios of samples drawn anew from these."""
    chance = random.Random(SEED)  # the same samples give the same interval
    drawn = [
        median(chance.choices(ours, k=len(ours))) / median(chance.choices(theirs, k=len(theirs)))
        for _ in range(RESAMPLES)
    ]
    edge = 100 * (1 - CONFIDENCE) / 2
    return Ratio(median(ours) / median(theirs), percentile(drawn, edge), percentile(drawn, 100 - edge))
