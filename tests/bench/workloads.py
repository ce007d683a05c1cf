# SPDX-License-Identifier: Apache-2.0
"""The workloads: what is asked of a server, and what is read off it meanwhile."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench.streams import Ask, Client, Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.bench.processes import Process

PACE = 0.020
LOOK = 0.005
START_TOKENS = 5
"""A stream is on its way once it has brought so many."""
END_TOKENS = 5
START_STEPS = (60, 200, 600)
"""Until all streams run, the first of them may have come so far; on a busy machine, further."""
LONGEST_WAIT = 30.0
LONGEST_STREAM = 120.0
TWO_TOKENS = Ask(2)
SEED = 3


@dataclass(frozen=True, slots=True)
class Target:
    """A server and a way to ask it."""

    name: str
    process: Process
    client: Client


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds of the target for so many units (tokens or requests), in so much time."""

    cpu: float
    units: float
    seconds: float
    answer: int
    """Tokens of one answer."""
    cpu_per_answer: float
    """CPU seconds from the first request to the last end, by the answers."""
    merged: float = 0.0
    """The share of tokens that came in an earlier one's message."""

    @property
    def micros(self) -> float:
        """Microseconds of CPU per unit."""
        return self.cpu / self.units * 1e6

    @property
    def busy(self) -> float:
        """The share of a core that the target used."""
        return self.cpu / self.seconds


async def ended(streams: Sequence[Stream], ask: Ask) -> None:
    """Wait for the ends; every answer is as long as was asked."""
    async with asyncio.timeout(LONGEST_STREAM):
        await asyncio.gather(*(stream.done for stream in streams))
    wrong = [stream.tokens for stream in streams if stream.tokens != ask.tokens]
    if wrong:
        raise RuntimeError(f"{len(wrong)} answers of another length than {ask.tokens}: {wrong[:5]}")


async def paced(target: Target, *, streams: int, seconds: float) -> Cost:
    """Tokens at 20 ms, all streams in step as an engine's are; from when every stream runs until the first one ends."""
    for start_steps in START_STEPS:
        cost = await _paced(target, Ask(round(seconds / PACE) + start_steps, PACE), streams, seconds)
        if cost.seconds > seconds / 2:
            return cost
    raise RuntimeError(
        f"{streams} streams do not get going within {START_STEPS[-1] * PACE:g} s: the machine is too busy"
    )


async def _paced(target: Target, ask: Ask, streams: int, seconds: float) -> Cost:
    start = target.process.cpu()
    opened = [await target.client.open(ask) for _ in range(streams)]
    await until(lambda: all(stream.pieces >= START_TOKENS for stream in opened))
    cpu, pieces, began = target.process.cpu(), _pieces(opened), time.monotonic()
    last = ask.tokens - END_TOKENS
    await until(lambda: time.monotonic() - began >= seconds or any(stream.pieces >= last for stream in opened))
    cpu, pieces, taken = target.process.cpu() - cpu, _pieces(opened) - pieces, time.monotonic() - began
    await ended(opened, ask)
    whole = target.process.cpu() - start
    # What is merged is merged at the start, while all requests come at once; what little is not makes tokens dearer.
    return Cost(cpu, max(pieces, 1), taken, ask.tokens, whole / streams, _merged(opened))


async def unpaced(target: Target, *, streams: int, tokens: int) -> Cost:
    """Tokens as fast as all can: whole answers, so long that the requests hardly count."""
    ask = Ask(tokens)
    cpu, began = target.process.cpu(), time.monotonic()
    opened = [await target.client.open(ask) for _ in range(streams)]
    await ended(opened, ask)
    cpu, taken = target.process.cpu() - cpu, time.monotonic() - began
    return Cost(cpu, streams * tokens, taken, tokens, cpu / streams, _merged(opened))


async def requests(target: Target, *, count: int, at_once: int = 8) -> Cost:
    """Streams of one token, so many at once, each caller one after the other."""
    ask = Ask(1)
    share = count // at_once

    async def caller() -> None:
        for _ in range(share):
            await ended([await target.client.open(ask)], ask)

    cpu, began = target.process.cpu(), time.monotonic()
    await asyncio.gather(*(caller() for _ in range(at_once)))
    cpu, taken = target.process.cpu() - cpu, time.monotonic() - began
    count = share * at_once
    return Cost(cpu, count, taken, ask.tokens, cpu / count)


async def first_tokens(through: Client, direct: Client, *, pairs: int) -> tuple[list[float], list[float]]:
    """Seconds to the first token, through a server and past it."""
    both = await in_turns([(through, TWO_TOKENS), (direct, TWO_TOKENS)], turns=pairs)
    through_it, past_it = ([stream.first_token for stream in streams] for streams in both)
    return through_it, past_it


async def in_turns(callers: Sequence[tuple[Client, Ask]], *, turns: int) -> list[list[Stream]]:
    """The streams of each caller, who take turns in random order: one stream at a time, alone on the machine."""
    chance = random.Random(SEED)
    streams: list[list[Stream]] = [[] for _ in callers]
    order = list(zip(callers, streams, strict=True))
    for _ in range(turns):
        chance.shuffle(order)
        for (client, ask), so_far in order:
            stream = await client.open(ask)
            await ended([stream], ask)
            so_far.append(stream)
    return streams


async def warm_up(target: Target) -> None:
    """Open the connections and let caches fill."""
    await requests(target, count=80)
    await unpaced(target, streams=8, tokens=50)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it, looking often."""
    async with asyncio.timeout(LONGEST_WAIT):
        while not condition():  # noqa: ASYNC110 - counters are cheap to look at; events for each piece are not
            await asyncio.sleep(LOOK)


def _pieces(streams: Sequence[Stream]) -> int:
    return sum(stream.pieces for stream in streams)


def _merged(streams: Sequence[Stream]) -> float:
    return sum(stream.merged for stream in streams) / sum(stream.tokens for stream in streams)
