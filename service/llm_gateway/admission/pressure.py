# SPDX-License-Identifier: Apache-2.0
"""Sheds new calls while the gateway itself is short of memory, or of time on its event loop."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_gateway.admission.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Callable

BEAT = 0.1
BEATS_PER_READING = 10

SHORT_OF_MEMORY = "The gateway is short of memory."
SHORT_OF_TIME = "The gateway is overloaded and cannot keep up with its calls."


@dataclass(frozen=True, slots=True)
class PressureStatistics:
    """A snapshot: the share of memory in use (None: there is no limit), and how late the event loop is, in seconds."""

    memory_share: float | None
    loop_lag: float


class Pressure:
    """Why no new call may come in now, if there is a reason.

    A heartbeat on the event loop tells how late the loop is, and reads the memory once a second. After a block, the
    beat and the calls that came meanwhile run in no certain order; so a late beat counts until the next one that is on
    time. Times are in seconds, `max_memory` is a share.
    """

    def __init__(
        self,
        *,
        max_memory: float = 0.9,
        max_loop_lag: float = 1.0,
        memory: Memory | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_memory = max_memory
        self._max_loop_lag = max_loop_lag
        self._memory = memory or Memory()
        self._clock = clock
        self._share: float | None = None
        self._short_of_memory = False
        self._lag = 0.0
        self._due = float("inf")
        self._beats = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to watch. Until then there is never a reason."""
        self._read()
        self._expect_beat()

    def stop(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due = float("inf")
        self._lag = 0.0
        self._short_of_memory = False

    def reason(self) -> str | None:
        """Why a new call is to be shed, as a sentence; None where it may come in. Every call asks."""
        if self._short_of_memory:
            return SHORT_OF_MEMORY
        if self._lag > self._max_loop_lag or self._clock() - self._due > self._max_loop_lag:
            return SHORT_OF_TIME
        return None

    def statistics(self) -> PressureStatistics:
        """What was found last."""
        return PressureStatistics(self._share, max(self._lag, self._clock() - self._due, 0.0))

    def _expect_beat(self) -> None:
        self._due = self._clock() + BEAT
        self._timer = asyncio.get_running_loop().call_later(BEAT, self._beat)

    def _beat(self) -> None:
        self._lag = max(0.0, self._clock() - self._due)
        self._beats += 1
        if self._beats % BEATS_PER_READING == 0:
            self._read()
        self._expect_beat()

    def _read(self) -> None:
        self._share = self._memory.share()
        self._short_of_memory = self._share is not None and self._share >= self._max_memory
