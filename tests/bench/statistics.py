# SPDX-License-Identifier: Apache-2.0
"""Medians, percentiles, and how sure a ratio of medians is."""

from __future__ import annotations

import math
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
    drawn = [_ratio(chance.choices(ours, k=len(ours)), chance.choices(theirs, k=len(theirs))) for _ in range(RESAMPLES)]
    return _with_interval(_ratio(ours, theirs), drawn)


def ratio_of_paired_medians(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """The same of samples taken in pairs, and drawn in pairs: what made a whole round slow is in both."""
    chance = random.Random(SEED)
    pairs = list(zip(ours, theirs, strict=True))
    drawn = []
    for _ in range(RESAMPLES):
        some_ours, some_theirs = zip(*chance.choices(pairs, k=len(pairs)), strict=True)
        drawn.append(_ratio(some_ours, some_theirs))
    return _with_interval(_ratio(ours, theirs), drawn)


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """A difference of times may come out as nothing; then nothing can be said of the ratio, and nothing good is."""
    divisor = median(theirs)
    return median(ours) / divisor if divisor > 0 else math.inf


def _with_interval(value: float, drawn: Sequence[float]) -> Ratio:
    edge = 100 * (1 - CONFIDENCE) / 2
    return Ratio(value, percentile(drawn, edge), percentile(drawn, 100 - edge))
