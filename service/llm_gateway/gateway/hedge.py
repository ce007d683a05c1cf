# SPDX-License-Identifier: Apache-2.0
"""The first token from whichever of two backends gives it first: for models whose operator opts for it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

from llm_gateway.errors import GatewayError
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

    The loser's connection is closed at once. An attempt that failed while the other one was under way, or lost, is kept
    in the call's attempts; the one that is left at the end is its caller's to keep.
    """

    def __init__(self, attempts: Attempts, after: float, open_stream: Open) -> None:
        self._attempts = attempts
        self._after = after
        self._open = open_stream
        self._running: dict[asyncio.Task[Opening], tuple[Lease, float]] = {}

    @property
    def leader(self) -> Lease:
        """The lease of the attempt that counts."""
        return self._attempts.lease

    async def run(self) -> Opening:
        """The opening of the winner, whose lease is the `leader`'s. Raises what the last one that failed raised."""
        first = self._start(self._attempts.lease)
        try:
            await asyncio.wait({first}, timeout=self._after)
            second = None if first.done() else self._attempts.hedge()
            if second is not None:
                self._start(second)
            return await self._first_to_open()
        finally:
            await self._leave_the_others()

    def _start(self, lease: Lease) -> asyncio.Task[Opening]:
        lease.on_lost = None  # that one of the two is lost is no reason to end the call's wait
        task = asyncio.create_task(_begin(self._open, lease), name="hedged-attempt")
        self._running[task] = (lease, time.monotonic())
        return task

    async def _first_to_open(self) -> Opening:
        while True:
            done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                lease, began = self._running[task]
                if error is None or len(self._running) == 1:
                    self._attempts.lease = lease
                    del self._running[task]
                    return task.result()
                del self._running[task]
                self._keep(lease, began, error)

    async def _leave_the_others(self) -> None:
        """Close what is still open, and keep how it ended; the one whose lease counts is the caller's to keep."""
        for task, (lease, began) in self._running.items():
            task.cancel()
            if lease is not self._attempts.lease:
                self._keep(lease, began, None)
        for opening in await asyncio.gather(*self._running, return_exceptions=True):
            if isinstance(opening, Opening):  # it was there at the same moment
                await opening.stream.close()
        self._running.clear()

    def _keep(self, lease: Lease, began: float, error: BaseException | None) -> None:
        reason = error.reason if isinstance(error, GatewayError) else None
        outcome = AttemptOutcome.CANCELLED if reason is None else AttemptOutcome.FAILED
        duration = time.monotonic() - began
        self._attempts.call.attempts.append(Attempt(lease.endpoint.name, outcome, reason, duration))
        lease.ended(error or asyncio.CancelledError())


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
