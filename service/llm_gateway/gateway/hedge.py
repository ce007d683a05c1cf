# SPDX-License-Identifier: Apache-2.0
"""The first token from whichever of two backends gives it first: for models whose operator opts for it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

from llm_gateway.errors import FirstTokenTimeout, GatewayError
from llm_gateway.generation import Attempt, AttemptOutcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llm_gateway.backends.base import AnswerStream
    from llm_gateway.gateway.attempts import Attempts
    from llm_gateway.generation import Piece
    from llm_gateway.upstream.pool import Lease

    Open = Callable[[Lease], Awaitable[AnswerStream]]


class Opening(NamedTuple):
    """An answer that has begun: its stream, and the pieces that were read to find out that it has."""

    stream: AnswerStream
    pieces: list[Piece]


class Race:
    """Asks a second backend where the first is slow, takes the answer that begins first and leaves the other one.

    The loser's connection is closed at once. How the other one ended is kept in the call's attempts; the attempt of the
    `leader`, who is left at the end, is its caller's to keep. `on_second` is told of the second one before it is asked.
    """

    def __init__(
        self, attempts: Attempts, *, after: float, open_stream: Open, on_second: Callable[[Lease], None]
    ) -> None:
        self._attempts = attempts
        self._after = after
        self._open = open_stream
        self._on_second = on_second
        self._running: dict[asyncio.Task[Opening], Lease] = {}
        self._beside: Lease | None = None
        self.leader: Lease

    async def run(self) -> Opening:
        """The opening of the winner, who leads then. Raises what the last one that failed raised."""
        self._beside = None
        opening: Opening | None = None
        first = self._start(self._attempts.lease)
        self._lead(self._running[first])
        try:
            await asyncio.wait({first}, timeout=self._after)
            second = None if first.done() else self._attempts.hedge()
            if second is not None:
                self._attempts.lease.on_lost = None  # that one of two is lost is no reason to end the call's wait
                self._on_second(second)
                self._start(second)
            opening = await self._first_to_open()
        finally:
            await self._leave_the_others(opening)
        return opening

    def settle(self, error: BaseException) -> None:
        """Say how the attempt that counts has ended: one that was under way beside it ended so too."""
        beside, self._beside = self._beside, None
        if beside is not None:
            silent = isinstance(error, FirstTokenTimeout)
            self._keep(beside, error if silent else asyncio.CancelledError())

    def _start(self, lease: Lease) -> asyncio.Task[Opening]:
        task = asyncio.create_task(_begin(self._open, lease), name="hedged-attempt")
        self._running[task] = lease
        return task

    def _lead(self, lease: Lease) -> None:
        self.leader = self._attempts.lease = lease

    async def _first_to_open(self) -> Opening:
        while True:
            done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                lease = self._running.pop(task)
                if not self._running or not isinstance(error, GatewayError):  # the last one, the winner, or a bug
                    self._lead(lease)
                    return task.result()
                self._keep(lease, error)
                self._lead(next(iter(self._running.values())))

    async def _leave_the_others(self, opening: Opening | None) -> None:
        """Close what is still open. One that began after the leader and lost was not slow; one before it was."""
        for task, lease in self._running.items():
            task.cancel()
            if lease is not self.leader:
                self._beside = lease
        try:
            for other in await asyncio.gather(*self._running, return_exceptions=True):
                if isinstance(other, Opening):  # it was there at the same moment
                    await other.stream.close()
        except BaseException:
            if opening is not None:
                await opening.stream.close()
            raise
        finally:
            self._running.clear()
        if opening is not None and self._beside is not None:
            slow = self._beside.began < self.leader.began
            self._keep(self._beside, asyncio.CancelledError(), slow=slow)
            self._beside = None

    def _keep(self, lease: Lease, error: BaseException, *, slow: bool = False) -> None:
        """Keep how one ended that does not count. `slow`: another one was quicker, from a later start."""
        reason = error.reason if isinstance(error, GatewayError) else None
        outcome = AttemptOutcome.CANCELLED if reason is None else AttemptOutcome.FAILED
        name, duration = lease.endpoint.spec.name, time.monotonic() - lease.began
        self._attempts.call.attempts.append(Attempt(name, outcome, reason, duration))
        lease.ended(FirstTokenTimeout("Another backend was quicker.") if slow else error)


async def _begin(open_stream: Open, lease: Lease) -> Opening:
    """Open an answer and read until there is something in it."""
    stream = await open_stream(lease)
    pieces: list[Piece] = []
    try:
        while not (stream.finished or stream.whole or any(piece.has_content for piece in pieces)):
            pieces += await stream.read()
    except BaseException:
        await stream.close()
        raise
    return Opening(stream, pieces)
