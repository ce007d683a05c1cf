# SPDX-License-Identifier: Apache-2.0
"""The simulated engine: seats for sequences, a queue before them, decode steps at a pace, and a prefix cache."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from llm_gateway.simulator.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llm_gateway.simulator.options import Options

_BLOCK = 128
"""vLLM's block size on a CPU, in tokens."""
_MOST_BLOCKS = 10_000


class Steps:
    """The decode steps of one pace: every stream that waits goes on at the same moment."""

    def __init__(self, pace: float) -> None:
        self._pace = pace
        self._waiters: list[asyncio.Future[None]] = []

    async def next(self) -> None:
        """Wait for the next step; steps are multiples of the pace, so that lateness does not add up."""
        loop = asyncio.get_running_loop()
        if not self._waiters:
            loop.call_at((math.floor(loop.time() / self._pace) + 1) * self._pace, self._step)
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.append(waiter)
        await waiter

    def _step(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class Engine:
    """Who is generating now, and who waits for a seat."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.draining = False
        """Whether it takes nothing new."""
        self.running = 0
        """Sequences with a seat (vLLM's num_requests_running)."""
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._steps: dict[float, Steps] = {}

    @property
    def waiting(self) -> int:
        """Sequences without a seat (vLLM's num_requests_waiting)."""
        return sum(sequences for sequences, _ in self._queue)

    def check_admission(self, sequences: int) -> None:
        """Refuse what a drain refuses, or `--max-num-queued-reqs`, which counts sequences, running ones too."""
        if self.draining:
            raise ApiError.shutting_down()
        limit = self._options.max_num_queued_reqs
        if limit is not None and self.running + self.waiting + sequences > limit:
            raise ApiError.busy()

    @asynccontextmanager
    async def seats(self, sequences: int) -> AsyncIterator[None]:
        """Wait, first come first served, until there is room; a request larger than the engine gets it alone."""
        wanted = min(sequences, self._options.max_num_seqs)
        if self._queue or self.running + wanted > self._options.max_num_seqs:
            await self._wait(wanted)
        else:
            self.running += wanted
        try:
            yield
        finally:
            self.running -= wanted
            self._seat_next()

    async def _wait(self, wanted: int) -> None:
        ticket = (wanted, asyncio.get_running_loop().create_future())
        self._queue.append(ticket)
        try:
            await ticket[1]
        except asyncio.CancelledError:
            if ticket in self._queue:
                self._queue.remove(ticket)
            else:  # seated and cancelled in the same moment
                self.running -= wanted
            self._seat_next()
            raise

    def _seat_next(self) -> None:
        while self._queue and self.running + self._queue[0][0] <= self._options.max_num_seqs:
            wanted, future = self._queue.popleft()
            self.running += wanted
            if not future.done():
                future.set_result(None)

    async def step(self, pace: float) -> None:
        """Let the time between two tokens pass."""
        if not self._options.synchronised:
            await asyncio.sleep(pace)
            return
        if (steps := self._steps.get(pace)) is None:
            steps = self._steps[pace] = Steps(pace)
        await steps.next()


class PrefixCache:
    """Remembers prompts by the blocks they begin with; forgets the blocks that were not seen for longest."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def visit(self, tokens: list[int]) -> tuple[int, int]:
        """Tokens found in the cache, and tokens newly put into it; the last token is always computed."""
        keys = [hash(tuple(tokens[:end])) for end in range(_BLOCK, len(tokens) + 1, _BLOCK)]
        usable = keys[: (len(tokens) - 1) // _BLOCK]
        known = next((i for i, key in enumerate(usable) if key not in self._blocks), len(usable))
        created = sum(key not in self._blocks for key in keys)
        for key in keys:
            self._blocks[key] = None
            self._blocks.move_to_end(key)
        while len(self._blocks) > _MOST_BLOCKS:
            self._blocks.popitem(last=False)
        return known * _BLOCK, created * _BLOCK
