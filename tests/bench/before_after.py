# SPDX-License-Identifier: Apache-2.0
"""One run of two gateways, that of an earlier revision and that of now: the same workloads in turns.

A machine drifts by more than what a change costs; two runs, one after the other, cannot be compared.
"""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tests.bench import processes
from tests.bench.grpc_client import GrpcClient
from tests.bench.memory import Wave, wave
from tests.bench.run import ONE_TOKEN, PACED_1, PACED_32, PACED_128, UNPACED_32
from tests.bench.sse_client import SseClient
from tests.bench.statistics import percentile
from tests.bench.workloads import TWO_TOKENS, Target, in_turns, paced, requests, unpaced, warm_up

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.bench.plan import Plan
    from tests.bench.processes import Process
    from tests.bench.run import Measure, Say
    from tests.bench.streams import Client

BEFORE, AFTER = "before", "after"
ADDED_P50, ADDED_P99 = "added time to first token, p50", "added time to first token, p99"
ALL_STREAMS, PER_STREAM = "memory with all streams open", "memory per stream"
WARM_TURNS = 10
KB, MB, MILLI = 1024, 1024 * 1024, 1e-3

UNITS: Final = dict.fromkeys((PACED_1, PACED_32, PACED_128, UNPACED_32, ONE_TOKEN), "µs") | {
    ADDED_P50: "ms",
    ADDED_P99: "ms",
    ALL_STREAMS: "MB",
    PER_STREAM: "kB",
}
"""Every figure, in the order of the report; less is better for each."""


@dataclass(slots=True)
class Samples:
    """A figure of both, round by round, and what else was seen."""

    figures: dict[str, dict[str, list[float]]] = field(
        default_factory=lambda: {figure: {BEFORE: [], AFTER: []} for figure in UNITS}
    )
    """Figure, side, samples: those of a round stand at the same place."""
    waves: list[Wave] = field(default_factory=list)
    foreign: float = 0.0
    """The share of the machine's CPU that programs used that are not ours, while costs were measured."""

    def add(self, figure: str, side: str, value: float) -> None:
        """One sample."""
        self.figures[figure][side].append(value)


async def compare(plan: Plan, trees: Mapping[str, Path], *, say: Say) -> Samples:
    """Measure both trees, the costs and times first, then the memory, for which every wave has a fresh process."""
    samples = Samples()
    chance = random.Random()
    processes.settle()
    with processes.simulator() as backend:
        await _costs(plan, trees, backend, samples, chance=chance, say=say)
        for number in range(plan.rounds):
            say(f"memory, round {number + 1} of {plan.rounds}: {plan.streams} streams")
            for side in shuffled((BEFORE, AFTER), chance):
                await _memory(plan, side, trees[side], backend, samples)
    return samples


def shuffled(sides: Sequence[str], chance: random.Random) -> list[str]:
    """In random order, so that neither is always the one that finds the caches cold."""
    return chance.sample(sides, k=len(sides))


async def _costs(
    plan: Plan,
    trees: Mapping[str, Path],
    backend: Process,
    samples: Samples,
    *,
    chance: random.Random,
    say: Say,
) -> None:
    async with AsyncExitStack() as stack:
        targets = {side: await _target(stack, side, trees[side], backend) for side in (BEFORE, AFTER)}
        direct = SseClient(backend.port)
        stack.push_async_callback(direct.close)
        callers: list[Client] = [targets[BEFORE].client, targets[AFTER].client, direct]
        for target in targets.values():
            await warm_up(target)
        await in_turns([(client, TWO_TOKENS) for client in callers], turns=WARM_TURNS)
        watch = processes.ForeignWatch([backend, *(target.process for target in targets.values())])
        for number in range(plan.rounds):
            say(f"round {number + 1} of {plan.rounds}")
            for workload, measure in _workloads(plan).items():
                for side in shuffled((BEFORE, AFTER), chance):
                    samples.add(workload, side, (await measure(targets[side])).micros)
            await _first_tokens(plan, callers, samples)
        samples.foreign = watch.share()


def _workloads(plan: Plan) -> dict[str, Measure]:
    return {
        PACED_1: lambda target: paced(target, streams=1, seconds=plan.seconds),
        PACED_32: lambda target: paced(target, streams=32, seconds=plan.seconds),
        PACED_128: lambda target: paced(target, streams=128, seconds=plan.seconds),
        UNPACED_32: lambda target: unpaced(target, streams=32, tokens=plan.unpaced_tokens),
        ONE_TOKEN: lambda target: requests(target, count=plan.requests),
    }


async def _target(stack: AsyncExitStack, side: str, tree: Path, backend: Process) -> Target:
    process = stack.enter_context(processes.gateway_of(tree, backend, name=f"gateway-{side}"))
    client = GrpcClient(process.port)
    stack.push_async_callback(client.close)
    return Target(side, process, client)


async def _first_tokens(plan: Plan, callers: Sequence[Client], samples: Samples) -> None:
    """A sample is a round's difference between the percentiles of a gateway and of the simulator asked directly."""
    streams = await in_turns([(client, TWO_TOKENS) for client in callers], turns=plan.pairs)
    *through, direct = ([stream.first_token for stream in of_one] for of_one in streams)
    for side, times in zip((BEFORE, AFTER), through, strict=True):
        for figure, percent in ((ADDED_P50, 50), (ADDED_P99, 99)):
            samples.add(figure, side, (percentile(times, percent) - percentile(direct, percent)) / MILLI)


async def _memory(plan: Plan, side: str, tree: Path, backend: Process, samples: Samples) -> None:
    async with AsyncExitStack() as stack:
        target = await _target(stack, side, tree, backend)
        found = await wave(target, streams=plan.streams, few=plan.few_streams, pace=plan.slow_pace, calm=plan.calm)
    samples.waves.append(found)
    samples.add(ALL_STREAMS, side, found.with_all / MB)
    samples.add(PER_STREAM, side, found.per_stream / KB)
