# SPDX-License-Identifier: Apache-2.0
"""How long a backend works on for a caller who has left."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from tests.bench import processes
from tests.bench.grpc_client import GrpcClient
from tests.bench.streams import Ask
from tests.bench.workloads import LONGEST_WAIT, PACE, START_TOKENS, until

if TYPE_CHECKING:
    from pathlib import Path

FILE = "endings.txt"
SEED = 4


async def cancels(*, streams: int, rounds: int, spread: float) -> list[float]:
    """Seconds from each caller's cancel to the backend's end of the request.

    Every round, so many paced streams run together, and each is cancelled at a random moment of `spread` seconds. Both
    ends read the same clock: the monotonic one is the machine's.
    """
    seconds: list[float] = []
    async with AsyncExitStack() as stack:
        endings = stack.enter_context(processes.scratch_folder()) / FILE
        backend = stack.enter_context(processes.simulator(endings))
        gateway = stack.enter_context(processes.gateway(backend))
        client = GrpcClient(gateway.port)
        stack.push_async_callback(client.close)
        chance = random.Random(SEED)
        for number in range(rounds):
            labels = [f"{number}:{i}" for i in range(streams)]
            seconds += await _round(client, labels, moments(chance, streams, spread), endings)
    return seconds


def moments(chance: random.Random, count: int, spread: float) -> list[float]:
    """So many moments, in order."""
    return sorted(chance.uniform(0, spread) for _ in range(count))


def delays(told: dict[str, float], ends: dict[str, float]) -> list[float]:
    """From each cancel to its end. A request that was over before nobody has cancelled."""
    found = [ends[label] - at for label, at in told.items()]
    if min(found) < 0:
        raise RuntimeError(f"requests that had ended before their callers left: {sum(delay < 0 for delay in found)}")
    return found


def ended(file: Path) -> dict[str, float]:
    """When the backend was done with which request, as far as its lines are whole."""
    lines = file.read_text().splitlines(keepends=True)
    return {line.split()[0]: float(line.split()[1]) for line in lines if line.endswith("\n")}


async def _round(client: GrpcClient, labels: list[str], at: list[float], endings: Path) -> list[float]:
    told = await _cancelled(client, labels, at)
    await until(lambda: told.keys() <= ended(endings).keys())
    return delays(told, ended(endings))


async def _cancelled(client: GrpcClient, labels: list[str], at: list[float]) -> dict[str, float]:
    """Open a stream for each label, and cancel them at these moments in a random order; gives when each was told."""
    longest = round((LONGEST_WAIT + at[-1]) / PACE) + START_TOKENS
    opened = {label: await client.open(Ask(longest, PACE, label=label)) for label in labels}
    await until(lambda: all(stream.pieces >= START_TOKENS for stream in opened.values()))
    told: dict[str, float] = {}
    began = time.monotonic()
    for label, moment in zip(random.Random(SEED).sample(labels, k=len(labels)), at, strict=True):
        await asyncio.sleep(max(0.0, began + moment - time.monotonic()))
        told[label] = time.monotonic()
        client.cancel(opened[label])
    return told
