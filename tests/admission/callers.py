# SPDX-License-Identifier: Apache-2.0
"""Callers at the door: each comes, waits where it must, sits until it is told to leave, and keeps how it ended."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from llm_gateway.admission import Admission, Limits, Ticket
from llm_gateway.deadline import NEVER, Watchdog
from llm_gateway.observability.call import Call

TURNS = 5
"""Turns of the event loop after which everybody who can move has moved."""


class Clock:
    """A clock that stands still until it is told; it starts with the real one, by which watchdogs go."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def __call__(self) -> float:
        return self.now


def ticket(request_id: str = "r", *, deadline: float = NEVER, soft: float = NEVER, **fields: Any) -> Ticket:
    """A ticket as the gateway makes it; `deadline` and `soft` are on the monotonic clock."""
    call = Call(request_id, "Chat", deadline=deadline, timeout=NEVER)
    return Ticket(call, Watchdog(deadline, soft), **fields)


def desk_of(seats: int = 1, **limits: Any) -> Admission:
    """An admission with a few seats."""
    return Admission(Limits(max_in_flight=seats, **limits))


class Caller:
    """One call in a task of its own. `error` is what it ended with."""

    def __init__(self, desk: Admission, of: Ticket | None = None, **fields: Any) -> None:
        self.ticket = of or ticket(**fields)
        self.seated = False
        self.was_seated = False
        self.error: BaseException | None = None
        self._desk = desk
        self._leaving = asyncio.Event()
        self.task = asyncio.create_task(self._call())

    async def _call(self) -> None:
        try:
            async with self._desk.admit(self.ticket):
                self.seated = self.was_seated = True
                with self.ticket.watchdog:
                    await self._leaving.wait()
        except Exception as error:
            self.error = error
        except asyncio.CancelledError as error:
            self.error = error
            raise
        finally:
            self.seated = False
            self.ticket.watchdog.close()

    @property
    def waits(self) -> bool:
        """Whether it is in the queue."""
        return self.ticket.queued

    @property
    def gone(self) -> bool:
        """Whether it is neither seated nor in the queue any more."""
        return self.task.done()

    def leave(self) -> None:
        """Give the seat back, as soon as the loop turns."""
        self._leaving.set()

    async def end(self) -> BaseException | None:
        """Wait until it is gone; what it ended with."""
        await asyncio.wait([self.task])
        return self.error


async def settle() -> None:
    """Let everybody who can move do so."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def comes(desk: Admission, of: Ticket | None = None, **fields: Any) -> Caller:
    """A caller who has come as far as it can."""
    caller = Caller(desk, of, **fields)
    await settle()
    return caller


async def all_leave(*callers: Caller) -> None:
    """Everybody leaves, those who wait once they have had their seat."""
    for caller in callers:
        caller.leave()
    await asyncio.gather(*(caller.task for caller in callers), return_exceptions=True)
