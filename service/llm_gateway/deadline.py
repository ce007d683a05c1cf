# SPDX-License-Identifier: Apache-2.0
"""Time limits of one call: when it must end, and a watchdog that ends its waiting with a typed error."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Self

from llm_gateway.errors import DeadlineExceeded, SlowCaller

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from llm_gateway.errors import GatewayError

EARLY_END_SHARE = 0.05
EARLY_END_MAX = 0.05
NEVER = math.inf


def call_deadline(now: float, remaining: float | None, cap: float) -> float:
    """When a call must end, on the monotonic clock in seconds.

    `remaining` is what the caller's own deadline leaves (None: it has none), `cap` the gateway's limit. The caller's
    deadline is met min(50 ms, 5 %) early: when it passes, gRPC ends the call on the caller's side, and our details
    would not arrive any more.
    """
    if remaining is None:
        return now + cap
    early = min(EARLY_END_MAX, remaining * EARLY_END_SHARE)
    return now + min(max(0.0, remaining - early), cap)


class TimeLimitReached(Exception):
    """The caller's soft `time_limit` is up."""


class Watchdog:
    """Ends the waiting of one task, by the earliest of its limits or by `interrupt`.

    Use it as a context around whatever waits, as often as the call has things to wait for. The limits are a hard
    deadline, the caller's soft limit, and the one of the present phase (`expect`). Moving a limit is an assignment: the
    timer is armed once and finds out when it fires that the limit has moved on, or that nobody waits any more. Only a
    limit that comes *earlier* than the timer is armed anew. `close` it when the call has ended.
    """

    __slots__ = ("_armed", "_cancelling", "_cause", "_deadline", "_deferring", "_limit", "_on_limit", "_soft", "_task",
                 "_timer", "_writing")  # fmt: skip

    def __init__(self, deadline: float, soft: float = NEVER) -> None:
        self._deadline = deadline
        self._soft = soft
        self._limit = soft
        self._on_limit: Callable[[], Exception | None] | None = None
        self._cause: Exception | None = None
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._armed = NEVER
        self._cancelling = 0
        self._writing = False
        self._deferring = False

    @property
    def deadline(self) -> float:
        """The hard deadline, on the monotonic clock."""
        return self._deadline

    @property
    def soft(self) -> float:
        """The caller's soft limit, on the monotonic clock; NEVER where there is none, or once it was heeded."""
        return self._soft

    def expect(self, limit: float, on_limit: Callable[[], Exception | None]) -> None:
        """Wait until `limit` (monotonic, seconds) at most; past it, the context ends with what `on_limit` makes. That
        may make nothing, if it has moved the limit by `extend`.
        """
        self._on_limit = on_limit
        self.extend(limit)

    def extend(self, limit: float) -> None:
        """Move the limit of the present phase; cheap enough to be called for every token."""
        self._writing = False
        self._limit = min(self._soft, limit)
        if self._limit < self._armed and self._task is not None:
            self._arm()

    def hold(self, limit: float) -> None:
        """Wait for the caller to take what is written, until `limit` at most; past it, it is a SlowCaller.

        Until `extend` or `expect` is called, nothing else ends the wait but the deadline and `interrupt`: a write is
        not given up half-way because a backend is silent or the soft limit has passed.
        """
        self._writing = True
        self._limit = limit
        if limit < self._armed and self._task is not None:
            self._arm()

    def defer(self) -> None:
        """Let nothing end the present wait, until `resume`: it is short, and must not be broken off half-way."""
        self._deferring = True
        self._limit = NEVER

    def resume(self) -> None:
        """Heed again what ends the waiting. Raises what would have ended it meanwhile."""
        self._deferring = False
        if self._cause is not None:
            cause, self._cause = self._cause, None
            raise cause

    def interrupt(self, error: GatewayError) -> None:
        """End the waiting now, or as soon as the task waits again."""
        if self._cause is None:
            self._cause = error
            if self._task is not None and not self._deferring:
                self._task.cancel()

    def __enter__(self) -> Self:
        if self._cause is not None:
            cause, self._cause = self._cause, None
            raise cause
        self._deferring = False
        self._task = asyncio.current_task()
        assert self._task is not None, "a watchdog guards a task"  # noqa: S101 - narrows the type
        self._cancelling = self._task.cancelling()
        if min(self._limit, self._deadline) < self._armed:
            self._arm()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        self._writing = False
        self._limit = self._soft
        if self._cause is None or task is None:
            return
        # Our own cancellation is taken back; one that came from outside beside it stays (as in asyncio.timeout).
        cause, self._cause = self._cause, None
        if task.uncancel() <= self._cancelling and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise cause from error

    def close(self) -> None:
        """Stop the timer: the call has ended."""
        self._armed = NEVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self.close()
        self._armed = min(self._limit, self._deadline)
        if self._armed < NEVER:
            delay = max(0.0, self._armed - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._armed = NEVER
        if self._task is None:
            return  # whoever waits next arms it
        cause = self._passed(time.monotonic())
        if cause is None:
            self._arm()
        elif self._cause is None:
            self._cause = cause
            if not self._deferring:
                self._task.cancel()

    def _passed(self, now: float) -> Exception | None:
        if now >= self._deadline:
            return DeadlineExceeded("The call did not end before its deadline.")
        if now < self._limit:
            return None
        if self._writing:
            return SlowCaller("The caller did not take the next piece of the answer in time.")
        if now >= self._soft:
            self._soft = NEVER  # it is heeded once: what is left to do is to end the answer well
            return TimeLimitReached()
        if self._on_limit is None:
            self._limit = NEVER  # nobody said what it would mean
            return None
        return self._on_limit()
