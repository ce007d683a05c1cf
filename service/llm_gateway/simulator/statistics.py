# SPDX-License-Identifier: Apache-2.0
"""The simulator's own account of what happened to requests, which tests wait on instead of sleeping."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from types import MappingProxyType
from typing import TypeAlias

from llm_gateway.simulator.options import Fault, Statistics

Predicate: TypeAlias = Callable[[Statistics], bool]


class Visit:
    """One generation request, from waiting over running to its end; it is always counted in one place."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._open = True
        self._seated = False
        ledger.requests_seen += 1
        ledger.waiting += 1
        ledger.changed()

    def seated(self) -> None:
        """It has a seat in the engine."""
        self._seated = True
        self._ledger.waiting -= 1
        self._ledger.running += 1
        self._ledger.changed()

    def ended(self) -> None:
        """The server was done with it first."""
        if self._close():
            self._ledger.finished += 1
            self._ledger.changed()

    def left(self) -> None:
        """The client was done with it first."""
        if self._close():
            self._ledger.aborted += 1
            self._ledger.changed()

    def _close(self) -> bool:
        if not self._open:
            return False
        self._open = False
        if self._seated:
            self._ledger.running -= 1
        else:
            self._ledger.waiting -= 1
        return True


class Ledger:
    """Counts requests, and wakes those who wait for a count."""

    def __init__(self) -> None:
        self.requests_seen = 0
        self.running = 0
        self.waiting = 0
        self.finished = 0
        self.aborted = 0
        self.connections = 0
        self.faults: Counter[Fault] = Counter()
        self._waiters: list[tuple[Predicate, asyncio.Future[None]]] = []

    def snapshot(self) -> Statistics:
        """The counts of this moment."""
        return Statistics(
            requests_seen=self.requests_seen,
            running=self.running,
            waiting=self.waiting,
            finished=self.finished,
            aborted=self.aborted,
            connections=self.connections,
            faults=MappingProxyType(dict(self.faults)),
        )

    def changed(self) -> None:
        """Called after every change: wakes those whose predicate has come true."""
        if not self._waiters:
            return
        now = self.snapshot()
        for predicate, future in self._waiters:
            if not future.done() and predicate(now):
                future.set_result(None)

    def struck(self, fault: Fault) -> None:
        """Count one fault that was really played."""
        self.faults[fault] += 1
        self.changed()

    async def wait_for(self, predicate: Predicate, timeout: float) -> Statistics:  # noqa: ASYNC109 (the public signature)
        """Return once `predicate` holds; TimeoutError, with the last counts, after `timeout` seconds."""
        if predicate(now := self.snapshot()):
            return now
        waiter = (predicate, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            await asyncio.wait_for(waiter[1], timeout)
        except TimeoutError:
            raise TimeoutError(f"not within {timeout} s; the counts are {self.snapshot()}") from None
        finally:
            self._waiters.remove(waiter)
        return self.snapshot()
