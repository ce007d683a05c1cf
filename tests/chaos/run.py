# SPDX-License-Identifier: Apache-2.0
"""A run: rounds of trouble under steady traffic, each followed by quiet, in which all must be as it was."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc

from tests.chaos.callers import Callers
from tests.chaos.checker import violations
from tests.chaos.history import outcome_of
from tests.chaos.log import Log
from tests.chaos.quiet import SPARE_DESCRIPTORS, Quiet, Sample, grew
from tests.chaos.stage import MODELS, Stage, staged
from tests.chaos.trouble import Trouble
from tests.chaos.wishes import Wisher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from tests.chaos.history import History

CHANNELS = 4
RATE = 20.0
"""Calls in a second, while there is no burst."""
STRUCK = 0.25
"""Of the calls, so many come with a fault for one of the next requests of a backend."""
TROUBLES = 0.25
"""Seconds between two other troubles, on average."""
ROUND = 25.0
"""Seconds of trouble between two quiet moments."""
LOGGED_IN = 5.0
MOST_SHOWN = 2
"""Violations of a rule that are kept in full: one cause has many of them."""


@dataclass(slots=True)
class Result:
    """What came of a run."""

    seed: int
    endings: Counter[str] = field(default_factory=Counter)
    attempts: Counter[int] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    """Of the attempts."""
    troubles: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    """What the simulators have seen to happen; those that were killed have forgotten theirs."""
    recoveries: list[float] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    broken: Counter[str] = field(default_factory=Counter)
    """How many violations there are of each rule, shown or not."""

    def breaks(self, what: Sequence[str], context: object = "") -> None:
        """Keep violations, the first ones in full."""
        for each in what:
            rule = each.partition(":")[0]
            self.broken[rule] += 1
            if self.broken[rule] <= MOST_SHOWN:
                self.violations.append(f"{each}\n{context}".rstrip())


async def run(seconds: float, seed: int, say: Callable[[str], None]) -> Result:
    """Make trouble for so long; the calls and the troubles are those of the seed, in its order."""
    result = Result(seed)
    async with staged() as stage, _play(stage, result, say) as play:
        await play.quiet_down()
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0 and not result.broken:
            await play.trouble(min(left, ROUND))
            await play.quiet_down()
        result.breaks(grew([sample.resident for sample in result.samples]))
        result.struck = await _struck(stage)
    return result


@asynccontextmanager
async def _play(stage: Stage, result: Result, say: Callable[[str], None]) -> AsyncIterator[Play]:
    """With the callers' channels, and the log read; at the end the gateway is to end well."""
    log = Log(stage.gateway)
    reading = asyncio.create_task(log.read())
    try:
        async with AsyncExitStack() as stack:
            options = [("grpc.use_local_subchannel_pool", 1)]  # else the channels share one connection
            channels = [
                await stack.enter_async_context(grpc.aio.insecure_channel(stage.gateway.address, options=options))
                for _ in range(CHANNELS)
            ]
            admin = await stack.enter_async_context(grpc.aio.insecure_channel(stage.admin))
            yield Play(stage, log, result, callers=Callers(channels), admin=admin, say=say)
        with suppress(ProcessLookupError):  # it has ended of itself, and its exit code is bad
            stage.gateway.send(signal.SIGTERM)
        if code := await stage.gateway.exit_code():
            result.breaks([f"end: the gateway has cut off calls, or failed: exit code {code}"])
        await reading
        result.breaks(log.complaints())
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


class Play:
    """One run under way."""

    def __init__(
        self,
        stage: Stage,
        log: Log,
        result: Result,
        *,
        callers: Callers,
        admin: grpc.aio.Channel,
        say: Callable[[str], None],
    ) -> None:
        wisher = Wisher(MODELS)
        self._stage = stage
        self._log = log
        self._result = result
        self._callers = callers
        self._wisher = wisher
        self._trouble = Trouble(stage, callers, admin)
        self._quiet = Quiet(stage, callers, wisher, admin)
        self._say = say
        self._histories: list[History] = []
        self._calls = itertools.count(1)
        self._troubles = _chances(f"{result.seed} trouble")

    async def trouble(self, seconds: float) -> None:
        """Steady traffic, and trouble beside; ends when the last call has ended."""
        making = asyncio.create_task(self._trouble.go_on(self._troubles, TROUBLES))
        try:
            async with asyncio.TaskGroup() as calls:
                ends = time.monotonic() + seconds
                while time.monotonic() < ends:
                    number = next(self._calls)
                    chance = random.Random(f"{self._result.seed} call {number}")
                    calls.create_task(self._call(number, chance))
                    await asyncio.sleep(chance.expovariate(RATE * self._trouble.load))
                self._trouble.stop()
                await making
                await self._trouble.heal()
        finally:
            making.cancel()
            await asyncio.gather(making, return_exceptions=True)
        self._result.troubles = self._trouble.counts
        self._result.breaks(self._trouble.violations)
        self._trouble.violations.clear()

    async def quiet_down(self) -> None:
        """See everybody serve again, nothing left behind, and the log agree with the callers."""
        result, quiet = self._result, self._quiet
        took, wrong = await quiet.recovery()
        result.recoveries.append(took)
        result.breaks(wrong)
        most = result.samples[0].descriptors + SPARE_DESCRIPTORS if result.samples else None
        result.breaks(await quiet.left_behind(self._log, most))
        if not result.broken:  # else there may be no process any more
            result.samples.append(quiet.sample())
        for history in quiet.histories:
            self._check(history)
        quiet.histories.clear()
        await self._compare()
        self._say(self._standing())

    async def _call(self, number: int, chance: random.Random) -> None:
        wish = self._wisher.wish(f"call-{number}", chance)
        if chance.random() < STRUCK:
            await self._trouble.request(chance)
        self._check(await self._callers.call(wish))

    def _check(self, history: History) -> None:
        result = self._result
        self._histories.append(history)
        result.endings[f"{history.code} {history.reason}".strip()] += 1
        if history.attempts:
            result.attempts[len(history.attempts)] += 1
        result.outcomes.update(map(outcome_of, history.attempts))
        result.breaks(violations(history, self._stage.names()), history)

    async def _compare(self) -> None:
        """Hold the log against what the callers saw."""
        histories, self._histories = self._histories, []
        for history, what in await self._log.violations(histories, LOGGED_IN):
            self._result.breaks([what], history)
        self._result.breaks(self._log.complaints())
        self._callers.stopped.clear()

    def _standing(self) -> str:
        result = self._result
        memory = f"{result.samples[-1].resident / 1024 / 1024:.1f} MB" if result.samples else "no sample"
        return (
            f"{result.endings.total()} calls, {self._trouble.counts.total()} troubles, "
            f"recovery in {result.recoveries[-1]:.2f} s, {memory}, {result.broken.total()} violations"
        )


def _chances(name: str) -> Iterator[random.Random]:
    """One chance after the other, each of its own: what one draws does not change what the next one will."""
    return (random.Random(f"{name} {number}") for number in itertools.count())


async def _struck(stage: Stage) -> Counter[str]:
    struck: Counter[str] = Counter()
    for simulator in stage.simulators.values():
        struck.update({str(name): count for name, count in (await simulator.statistics()).get("faults", {}).items()})
    return struck
