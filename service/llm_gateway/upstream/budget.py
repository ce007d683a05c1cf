# SPDX-License-Identifier: Apache-2.0
"""How many more attempts than calls there may be: in an outage, retries must not become a load of their own."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

BUCKETS = 10


@dataclass(frozen=True, slots=True)
class RetryStatistics:
    """A snapshot: calls and retries in the window, retries that were refused since the start."""

    requests: int
    retries: int
    refused: int


class RetryBudget:
    """Retries up to a share of the calls of the last `window` seconds, but always up to `floor`.

    So a total outage under load costs 1 + `share` attempts per call, while a quiet gateway and the first calls of an
    outage are still rescued. A hedge is a retry. The window slides in tenths.
    """

    __slots__ = ("_clock", "_floor", "_granted", "_number", "_refused", "_requested", "_requests", "_retries", "_share",
                 "_width")  # fmt: skip

    def __init__(
        self, share: float = 0.2, floor: int = 50, window: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._share = share
        self._floor = floor
        self._width = window / BUCKETS
        self._clock = clock
        self._number = int(clock() / self._width)
        self._requested = [0] * BUCKETS  # by the tenth of the window
        self._granted = [0] * BUCKETS
        self._requests = 0  # their sums
        self._retries = 0
        self._refused = 0

    def request(self) -> None:
        """Say that a call begins."""
        number = int(self._clock() / self._width)
        if number != self._number:
            self._slide(number)
        self._requested[number % BUCKETS] += 1
        self._requests += 1

    def withdraw(self) -> bool:
        """Take leave for one retry or hedge; False: there is none now."""
        number = int(self._clock() / self._width)
        if number != self._number:
            self._slide(number)
        if self._retries + 1 > max(self._floor, self._share * self._requests):
            self._refused += 1
            return False
        self._granted[number % BUCKETS] += 1
        self._retries += 1
        return True

    def statistics(self) -> RetryStatistics:
        """What is so now."""
        self._slide(int(self._clock() / self._width))
        return RetryStatistics(self._requests, self._retries, self._refused)

    def _slide(self, number: int) -> None:
        """Forget the tenths that have left the window."""
        for left in range(self._number + 1, min(number, self._number + BUCKETS) + 1):
            self._requests -= self._requested[left % BUCKETS]
            self._retries -= self._granted[left % BUCKETS]
            self._requested[left % BUCKETS] = self._granted[left % BUCKETS] = 0
        self._number = number
