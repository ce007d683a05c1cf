# SPDX-License-Identifier: Apache-2.0
"""Row 40: ten times the load that there are seats for, and what is still done of use meanwhile.

A few seconds of it by default; `OVERLOAD_SECONDS=60 make unit ARGS="-k row_40"` is the whole minute.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.faults.invariants import CANARY, asking, scene
from tests.faults.matrix import OK, Ending, Expected, ending_of, row
from tests.kit.health import always_serving

if TYPE_CHECKING:
    from llm_gateway.simulator import Simulator
    from tests.faults.invariants import Witness

SECONDS = float(os.environ.get("OVERLOAD_SECONDS", "4"))
SEATS = 8
HOLD = 0.3
"""Seconds that a call takes."""
OVERLOAD = 10
PATIENCE = 4 * HOLD
"""Seconds that callers give: enough for some of those who wait, too little for the last of the queue."""
GOODPUT = 0.9
ROUNDS = 3
"""The machine is shared: what it does at the moment may spoil a round, but not each."""
TICK = 0.02
SAID = f"{CANARY} short"
LATE = Ending("DEADLINE_EXCEEDED", "–")
"""How gRPC itself ends a call: such a one may never have come to a handler."""
PROMPT = asking(SAID, ttft_ms=1000 * HOLD)


class Load:
    """Calls, and at what time each that was served has ended."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self.served: list[float] = []
        self.endings: list[Ending] = []

    async def call(self, timeout: float) -> None:  # noqa: ASYNC109 - the call's deadline
        """One call."""
        ending = await self._witness.begin(PROMPT, said=SAID, timeout=timeout).ending()
        self.endings.append(ending)
        self._witness.lost += ending == LATE
        if ending == OK:
            self.served.append(time.monotonic())

    async def as_many_as_there_are_seats(self, rounds: int) -> float:
        """Calls that are served in a second while nobody waits."""
        began = time.monotonic()

        async def caller() -> None:
            for _ in range(rounds):
                await self.call(30)

        await asyncio.gather(*(caller() for _ in range(SEATS)))
        return SEATS * rounds / (time.monotonic() - began)

    async def far_too_many(self, rate: float, seconds: float) -> float:
        """The same while `rate` calls come in a second, from the time on when every seat is taken."""
        began, due = time.monotonic(), 0.0
        async with asyncio.TaskGroup() as callers:
            while (passed := time.monotonic() - began) < seconds:
                while due < passed * rate:
                    callers.create_task(self.call(PATIENCE))
                    due += 1
                await asyncio.sleep(TICK)
        first, last = began + 2 * HOLD, began + seconds
        return sum(first <= at < last for at in self.served) / (last - first)


@row(40, "served", "refused", together=True)
@pytest.mark.timeout(ROUNDS * (SECONDS + 20))
async def test_row_40_ten_times_the_load_takes_nothing_from_what_is_done(
    simulator: Simulator, expected: Expected
) -> None:
    share, refused = 0.0, 0
    async with (
        scene(simulator.url, model={"max_in_flight": SEATS}, admission={"max_queued": 4 * SEATS}) as witness,
        always_serving(witness.gateway.channel, "liveness", "readiness", ""),
    ):
        for _ in range(ROUNDS):
            usual, much = Load(witness), Load(witness)
            capacity = await usual.as_many_as_there_are_seats(rounds=4)
            goodput = await much.far_too_many(OVERLOAD * capacity, SECONDS)
            next_one = await witness.stream(PROMPT, said=SAID)

            assert ending_of(next_one) in expected.of("served")
            waited = next_one.completed.timing.queue.ToTimedelta().total_seconds()
            assert waited < HOLD, "recovery is not at once"
            for ending in much.endings:
                assert ending in expected.of("served") or ending in expected.of("refused")
            assert set(usual.endings) == {OK}
            share, refused = max(share, goodput / capacity), refused + len(much.endings) - len(much.served)
            if share >= GOODPUT:
                break

    assert share >= GOODPUT
    assert refused > simulator.statistics().finished
