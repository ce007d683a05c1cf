# SPDX-License-Identifier: Apache-2.0
"""Plays a planned reply to a client, event by event at the engine's pace, and lets faults strike on the way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from llm_gateway.simulator.errors import ApiError
from llm_gateway.simulator.options import Behaviour, Fault
from llm_gateway.simulator.outlet import Outlet, disconnect
from llm_gateway.simulator.wire import DONE, Answer, EventWriter, Timing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    from llm_gateway.simulator.engine import Engine
    from llm_gateway.simulator.replies import Reply
    from llm_gateway.simulator.statistics import Ledger

_STEPS_A_TURN = 8
"""Unpaced, a stream lets the others have their turn after so many steps."""
_COMMENT_INTERVAL = 0.01

_AT_AFTER = {
    Fault.RESET,
    Fault.CUT,
    Fault.STALL,
    Fault.KEEP_ALIVES,
    Fault.ERROR_EVENT,
    Fault.EOF,
    Fault.NO_FINISH,
    Fault.GARBAGE,
    Fault.NULL_EVENT,
}
_PLAYED_BEFORE = {Fault.SLOW_HEADER}


class Stream:
    """One stream on its way."""

    def __init__(
        self, request: web.Request, answer: Answer, events: EventWriter, outlet: Outlet, ledger: Ledger
    ) -> None:
        self._request = request
        self._answer = answer
        self._events = events
        self._outlet = outlet
        self._ledger = ledger
        self._behaviour: Behaviour = answer.ask.behaviour
        self._fault = answer.ask.behaviour.fault
        self._strikes_at = self._token_of_strike()
        self._opened = False
        self._sent = 0

    def _token_of_strike(self) -> int:
        """Before the finish event at the latest: a fault that comes after it is another one. -1: never."""
        if self._fault not in _AT_AFTER:
            return -1
        return min(self._behaviour.after, sum(len(reply.steps) for reply in self._answer.replies) - 1)

    async def play(self, engine: Engine, pace: float) -> bool:
        """Send everything but the end; False if a fault has ended the stream already."""
        if self._fault and self._fault not in _AT_AFTER | _PLAYED_BEFORE:
            self._ledger.struck(self._fault)
        if self._behaviour.role_first:
            await self._open()
        replies = self._answer.replies
        for number in range(max(len(reply.steps) for reply in replies)):
            if number:
                await self._let_pass(engine, pace, number)
            for reply in replies:
                if number < len(reply.steps) and not await self._send(reply, number):
                    return False
        return True

    async def _send(self, reply: Reply, number: int) -> bool:
        """The event of one step, and what strikes before it; False if that has ended the stream."""
        data = self._events.step(reply, number)
        if self._sent == self._strikes_at and data is not None and not await self._strike():
            return False
        if not self._opened:
            await self._open()
        if data is not None:
            await self._outlet.write(data)
            self._sent += 1
        return True

    async def _open(self) -> None:
        self._opened = True
        if self._fault is not Fault.NO_ROLE:
            for data in self._events.opening():
                await self._outlet.write(data)

    async def _let_pass(self, engine: Engine, pace: float, number: int) -> None:
        if pace > 0:
            await self._outlet.silence(engine.step(pace))
        elif number % _STEPS_A_TURN == 0:
            await asyncio.sleep(0)

    async def finish(self, timing: Timing) -> None:
        """The end of a stream, as far as its fault leaves one."""
        write = self._outlet.write
        if not self._opened:
            await self._open()
        reply = self._answer.replies[0]
        last = self._events.step(reply, len(reply.steps) - 1) if reply.steps else None
        if self._fault is Fault.DUPLICATE_FINISH and last:
            await write(last)
        usage = self._events.usage(timing)
        if usage is not None and self._fault is not Fault.NO_USAGE:
            await write(usage)
        if self._fault is not Fault.NO_DONE:
            await write(DONE)
        if self._fault is Fault.LATE_DATA and last:
            await write(last)
        await self._outlet.close()

    async def _strike(self) -> bool:
        """Play the fault, once; whether the stream goes on afterwards."""
        self._strikes_at = -1
        if self._fault is None:
            return True
        self._ledger.struck(self._fault)
        return await self._strikes()[self._fault]()

    def _strikes(self) -> dict[Fault, Callable[[], Awaitable[bool]]]:
        return {
            Fault.RESET: lambda: self._disconnect(reset=True),
            Fault.CUT: lambda: self._disconnect(reset=False),
            Fault.STALL: self._stall,
            Fault.KEEP_ALIVES: self._comments,
            Fault.ERROR_EVENT: self._error,
            Fault.EOF: lambda: self._end(b""),
            Fault.NO_FINISH: lambda: self._end(DONE),
            Fault.GARBAGE: lambda: self._extra(self._behaviour.body or b"{not json"),
            Fault.NULL_EVENT: lambda: self._extra(b"null"),
        }

    async def _disconnect(self, *, reset: bool) -> bool:
        disconnect(self._request, reset)
        return False

    async def _stall(self) -> bool:
        await stall(self._behaviour.seconds)
        return True

    async def _comments(self) -> bool:
        loop = asyncio.get_running_loop()
        end = None if self._behaviour.seconds is None else loop.time() + self._behaviour.seconds
        while end is None or loop.time() < end:
            await self._outlet.comment()
            await asyncio.sleep(_COMMENT_INTERVAL)
        return True

    async def _error(self) -> bool:
        version = self._answer.server.version
        await self._outlet.write(ApiError.died(version).event(version))
        return await self._end(DONE)

    async def _end(self, data: bytes) -> bool:
        if data:
            await self._outlet.write(data)
        await self._outlet.close()
        return False

    async def _extra(self, content: bytes) -> bool:
        await self._outlet.write(b"data: " + content + b"\n\n")
        return True


async def stall(seconds: float | None) -> None:
    """Silence; None: until the client leaves, which cancels the handler."""
    if seconds is None:
        await asyncio.get_running_loop().create_future()
    else:
        await asyncio.sleep(seconds)
