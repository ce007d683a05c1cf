# SPDX-License-Identifier: Apache-2.0
"""Who may come in: a bounded number of calls at once, and nobody new while the gateway drains."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_gateway.errors import DrainExpired, Draining, QueueFull

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_gateway.deadline import Watchdog


@dataclass(frozen=True, slots=True)
class AdmissionStatistics:
    """A snapshot: how many calls run, how many may, and whether anybody new is let in."""

    in_flight: int
    max_in_flight: int
    draining: bool


class Admission:
    """Seats for running calls. It limits concurrency, not rates.

    `drain` closes the door for good; `drained` waits until the last one has left, and `expire` ends those who stay.
    """

    def __init__(self, max_in_flight: int) -> None:
        self._max_in_flight = max_in_flight
        self._running: set[Watchdog] = set()
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    @contextmanager
    def admit(self, watchdog: Watchdog) -> Iterator[None]:
        """Hold a seat. Raises Draining or QueueFull; within, `watchdog` is how the call can be ended from here."""
        if self._draining:
            raise Draining("The gateway is shutting down.")
        if len(self._running) >= self._max_in_flight:
            raise QueueFull("The gateway is serving as many calls as it can.")
        self._running.add(watchdog)
        self._empty.clear()
        try:
            yield
        finally:
            watchdog.close()
            self._running.discard(watchdog)
            if not self._running:
                self._empty.set()

    def drain(self) -> None:
        """Let nobody new in, from now on."""
        self._draining = True

    async def drained(self) -> None:
        """Wait until no call runs."""
        await self._empty.wait()

    def expire(self) -> None:
        """End the calls that still run, for the grace of the drain is over."""
        for watchdog in tuple(self._running):
            watchdog.interrupt(DrainExpired("The gateway is shutting down and could not wait for the answer's end."))

    def statistics(self) -> AdmissionStatistics:
        """What is so now."""
        return AdmissionStatistics(len(self._running), self._max_in_flight, self._draining)

    def __repr__(self) -> str:
        return f"<Admission: {len(self._running)} of {self._max_in_flight} in flight, draining={self._draining}>"
