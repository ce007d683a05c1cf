# SPDX-License-Identifier: Apache-2.0
"""Times one call on a monotonic clock, at a few nanoseconds a token and in bounded memory."""

from __future__ import annotations

import time
from array import array

from llm_gateway.generation import Timing

MAX_GAPS = 4096


class Stopwatch:
    """Where a call's time goes, in seconds. `wait` begins a wait; `upstream_done` or `client_done` ends it and says for
    whom it was.
    """

    __slots__ = ("_first", "_gaps", "_last", "_longest", "_queue", "_since", "_skip", "_skipped", "_stall", "_started",
                 "_upstream")  # fmt: skip

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._queue = 0.0
        self._first: float | None = None
        self._last = 0.0
        self._longest = 0.0
        self._since = 0.0
        self._upstream = 0.0
        self._stall = 0.0
        self._gaps = array("d")
        self._skip = 1
        self._skipped = 0

    @property
    def started(self) -> float:
        """When the call was accepted."""
        return self._started

    @property
    def arrivals(self) -> int:
        """How often something to deliver came: told by the gaps that were kept, so that counting costs nothing."""
        return 0 if self._first is None else 1 + len(self._gaps) * self._skip + self._skipped

    @property
    def time_to_first_token(self) -> float | None:
        """Seconds from then to the first thing to deliver; None where nothing has come."""
        return None if self._first is None else self._first - self._started

    @property
    def total(self) -> float:
        """Seconds from then to now."""
        return time.monotonic() - self._started

    def seated(self) -> None:
        """Say that the call has a seat."""
        self._queue = time.monotonic() - self._started

    def wait(self) -> float:
        """Say that a wait begins, for a backend or for the caller; gives the time."""
        self._since = now = time.monotonic()
        return now

    def upstream_done(self) -> float:
        """Say that the wait for a backend is over; gives the time."""
        now = time.monotonic()
        self._upstream += now - self._since
        return now

    def client_done(self) -> float:
        """Say that the wait for the caller is over; gives the time."""
        now = time.monotonic()
        self._stall += now - self._since
        return now

    def arrived(self, now: float) -> None:
        """Say that something to deliver came."""
        if self._first is None:
            self._first = now
        else:
            self._gap(now - self._last)
        self._last = now

    def timing(self) -> Timing:
        """What was measured until now."""
        gaps = sorted(self._gaps)
        return Timing(
            queue=self._queue,
            time_to_first_token=self.time_to_first_token,
            inter_token_p50=_percentile(gaps, 50),
            inter_token_p95=_percentile(gaps, 95),
            inter_token_max=self._longest if gaps else None,
            upstream=self._upstream,
            client_stall=self._stall,
            total=self.total,
        )

    def _gap(self, gap: float) -> None:
        """Keep a gap; of a long answer, every second, fourth … one, so that the memory stays bounded."""
        self._longest = max(self._longest, gap)
        self._skipped += 1
        if self._skipped < self._skip:
            return
        self._skipped = 0
        self._gaps.append(gap)
        if len(self._gaps) >= MAX_GAPS:
            self._gaps = self._gaps[::2]
            self._skip *= 2


def _percentile(ordered: list[float], percent: int) -> float | None:
    """The least value that `percent` of the values do not exceed (the nearest rank); None of none."""
    if not ordered:
        return None
    rank = -(-percent * len(ordered) // 100)
    return ordered[rank - 1]
