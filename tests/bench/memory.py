# SPDX-License-Identifier: Apache-2.0
"""A thousand streams at once: that all end well, what each takes of memory, and whether it comes back."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench.streams import Ask, StreamError
from tests.bench.workloads import until

if TYPE_CHECKING:
    from tests.bench.streams import Stream
    from tests.bench.workloads import Target

STEPS_OPEN = 4
"""How long all streams are open together at least, in steps of the pace."""
LONGEST_WAVE = 90.0
OPENED_AT_ONCE = 50
PATIENCE = 3
"""Opening may take so many times as long as it did in practice,"""
SLOWEST = 0.008
"""or so many seconds for each stream, if that is longer."""
LOOKS = 8


@dataclass(frozen=True, slots=True)
class Wave:
    """Resident bytes while a wave of streams came and went."""

    streams: int
    few: int
    errors: int
    together: int
    """How many were open at the same moment."""
    before: int
    with_few: int
    with_all: int
    after: int

    @property
    def per_stream(self) -> float:
        """Bytes for one more stream, from the slope between few and all."""
        return (self.with_all - self.with_few) / (self.streams - self.few)


async def wave(target: Target, *, streams: int, few: int, pace: float, calm: float) -> Wave:
    """Open a few slow streams, then the others, and let all of them end by themselves."""
    process = target.process
    # So long that the first are still open when the last are.
    each = max(SLOWEST, PATIENCE * await _practice(target))
    opening = round((streams * each + 2 * calm) / pace)
    before = process.memory()
    opened = await _open(target, few, Ask(2 * STEPS_OPEN + opening, pace))
    with_few = await _settled(target, opened, calm)
    opened += await _open(target, streams - few, Ask(STEPS_OPEN + opening, pace))
    with_all = await _settled(target, opened, calm)
    together = sum(not stream.done.done() for stream in opened)
    async with asyncio.timeout(LONGEST_WAVE):
        endings = await asyncio.gather(*(stream.done for stream in opened), return_exceptions=True)
    errors = sum(isinstance(ending, StreamError) for ending in endings)
    await asyncio.sleep(calm)
    return Wave(streams, few, errors, together, before, with_few, with_all, process.memory())


async def _practice(target: Target) -> float:
    """The seconds that it takes to open a stream here and now."""
    began = time.monotonic()
    streams = await _open(target, OPENED_AT_ONCE, Ask(1))
    await asyncio.gather(*(stream.done for stream in streams))
    return (time.monotonic() - began) / OPENED_AT_ONCE


async def _open(target: Target, count: int, ask: Ask) -> list[Stream]:
    """Open so many, in small crowds: a listener's backlog is finite."""
    streams: list[Stream] = []
    for start in range(0, count, OPENED_AT_ONCE):
        streams += [await target.client.open(ask) for _ in range(min(OPENED_AT_ONCE, count - start))]
        await _brought(streams, pieces=streams[0].first_piece)
    return streams


async def _brought(streams: list[Stream], *, pieces: int) -> None:
    """Wait until each has brought so many pieces, or has failed."""
    await until(lambda: all(stream.pieces >= pieces or stream.done.done() for stream in streams))


async def _settled(target: Target, opened: list[Stream], calm: float) -> int:
    """The memory once every stream has brought a few tokens: the median of a few looks."""
    await _brought(opened, pieces=opened[0].first_piece + 1)
    looks = []
    for _ in range(LOOKS):
        await asyncio.sleep(calm / LOOKS)
        looks.append(target.process.memory())
    return sorted(looks)[LOOKS // 2]
