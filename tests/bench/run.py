# SPDX-License-Identifier: Apache-2.0
"""One run: start everything, measure in rounds, stop everything."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.bench import processes
from tests.bench.aio_client import AioClient
from tests.bench.cancels import cancels
from tests.bench.choice import Choice, choices
from tests.bench.failover import Failover, failover
from tests.bench.grpc_client import GrpcClient
from tests.bench.memory import Wave, wave
from tests.bench.peers import router
from tests.bench.sse_client import SseClient
from tests.bench.workloads import Cost, Target, first_tokens, paced, requests, unpaced, warm_up

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tests.bench.plan import Plan
    from tests.bench.processes import Process
    from tests.bench.streams import Client

    Measure = Callable[[Target], Awaitable[Cost]]
    Say = Callable[[str], None]

OURS, PEER = "gateway", "vllm-router"
PACED_1, PACED_32, PACED_128 = "token, 1 stream at 20 ms", "token, 32 streams at 20 ms", "token, 128 streams at 20 ms"
UNPACED_32, ONE_TOKEN = "token, 32 streams unpaced", "request of 1 token"
AIO = "gateway, seen by a grpc.aio caller"
WARM_PAIRS = 10


@dataclass(slots=True)
class Results:
    """All that was measured."""

    costs: dict[str, dict[str, list[Cost]]] = field(default_factory=dict)
    """Workload, server, samples."""
    first_tokens: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    """Server, seconds through it and direct."""
    waves: list[Wave] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    failover: Failover | None = None
    cancels: list[float] = field(default_factory=list)
    """Seconds from a caller's cancel to the backend's end."""
    foreign: float = 0.0
    """The share of the machine's CPU that programs used that are not ours, while costs were measured."""


async def measure(plan: Plan, *, peers: bool, say: Say) -> Results:
    """Everything."""
    results = Results()
    async with AsyncExitStack() as stack:
        processes.settle()
        backend = stack.enter_context(processes.simulator())
        targets = await _targets(stack, backend, peers=peers)
        direct = await _closing(stack, SseClient(backend.port))
        callers = {target.name: target.client for target in targets}
        callers[AIO] = await _closing(stack, AioClient(targets[0].process.port))
        for target in targets:
            await warm_up(target)
        for client in callers.values():
            await first_tokens(client, direct, pairs=WARM_PAIRS)
        watch = processes.ForeignWatch([backend, *(target.process for target in targets)])
        for number in range(plan.rounds):
            say(f"round {number + 1} of {plan.rounds}")
            await _measure_costs(plan, number, targets, results)
            await _measure_first_tokens(plan, callers, direct, results)
        results.foreign = watch.share()
        for number in (1, 2):
            say(f"memory, wave {number} of {plan.streams} streams")
            results.waves.append(
                await wave(targets[0], streams=plan.streams, few=plan.few_streams, pace=plan.slow_pace, calm=plan.calm)
            )
    await _measure_reactions(plan, results, say)
    return results


async def _measure_reactions(plan: Plan, results: Results, say: Say) -> None:
    """What has processes of its own, or none."""
    say("choice of a backend")
    results.choices = await choices(count=plan.choices, repeats=plan.rounds)
    say("failover")
    results.failover = await failover(turns=plan.failovers)
    say("cancels")
    results.cancels = await cancels(streams=plan.cancelled, rounds=plan.few_rounds, spread=plan.cancel_spread)


async def _targets(stack: AsyncExitStack, backend: Process, *, peers: bool) -> list[Target]:
    gateway = stack.enter_context(processes.gateway(backend))
    targets = [Target(OURS, gateway, await _closing(stack, GrpcClient(gateway.port)))]
    if peers:
        peer = stack.enter_context(router(backend))
        targets.append(Target(PEER, peer, await _closing(stack, SseClient(peer.port))))
    return targets


async def _closing(stack: AsyncExitStack, client: Client) -> Client:
    stack.push_async_callback(client.close)
    return client


async def _measure_costs(plan: Plan, number: int, targets: Sequence[Target], results: Results) -> None:
    compared: dict[str, Measure] = {
        PACED_128: lambda target: paced(target, streams=128, seconds=plan.seconds),
        UNPACED_32: lambda target: unpaced(target, streams=32, tokens=plan.unpaced_tokens),
        ONE_TOKEN: lambda target: requests(target, count=plan.requests),
    }
    others: dict[str, Measure] = {
        PACED_1: lambda target: paced(target, streams=1, seconds=2 * plan.seconds),
        PACED_32: lambda target: paced(target, streams=32, seconds=plan.seconds),
    }
    order = _mirrored(targets, turned=number % 2 == 1)
    await _round(compared, order, results)
    if number < plan.few_rounds:
        await _round(others, order[: len(targets)], results)


def _mirrored(targets: Sequence[Target], *, turned: bool) -> list[Target]:
    """A B B A, then B A A B, so that a machine that grows slower is as unjust to either; one server alone: A."""
    order = list(reversed(targets)) if turned else list(targets)
    return order + order[::-1] if len(order) > 1 else order


async def _round(workloads: dict[str, Measure], order: Sequence[Target], results: Results) -> None:
    for name, workload in workloads.items():
        for target in order:
            cost = await workload(target)
            results.costs.setdefault(name, {}).setdefault(target.name, []).append(cost)


async def _measure_first_tokens(plan: Plan, callers: dict[str, Client], direct: Client, results: Results) -> None:
    for name, client in callers.items():
        found = await first_tokens(client, direct, pairs=plan.pairs)
        so_far = results.first_tokens.setdefault(name, ([], []))
        for samples, more in zip(so_far, found, strict=True):
            samples.extend(more)
