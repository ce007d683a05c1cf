# SPDX-License-Identifier: Apache-2.0
"""Row 27: an answer is its caller's own, however many were cancelled before it on the same backend."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from tests.faults.invariants import asking, scene
from tests.faults.matrix import Ending, Expected, ending_of, row

if TYPE_CHECKING:
    from llm_gateway.simulator import Simulator
    from tests.faults.invariants import Streaming, Witness

CANCELS = 2000
AT_ONCE = 20


def own(number: int) -> str:
    """A text of which every word is one call's own."""
    return " ".join(f"c{number}w{word}" for word in range(8))


async def callers(witness: Witness, number: int, left: list[Streaming], expected: Expected) -> None:
    """One caller after another: most leave somewhere on the way, and after some of them one reads to the end."""
    chance = random.Random(number)
    for turn in range(CANCELS // AT_ONCE):
        said = own(number * CANCELS + turn)
        call = witness.begin(asking(said, pace_ms=2), said=said)
        await call.deltas(chance.choice((0, 1, 1, 2)))
        call.leave()
        left.append(call)
        if turn % 4 == 0:
            said = own((number + AT_ONCE) * CANCELS + turn)
            assert ending_of(await witness.stream(said=said)) in expected


@row(27, "cancelled", "next", together=True)
async def test_row_27_thousands_of_cancels_mix_nothing_up(simulator: Simulator, expected: Expected) -> None:
    left: list[Streaming] = []
    async with scene(simulator.url) as witness:
        witness.lost = CANCELS  # a call that is cancelled at once may never arrive
        async with asyncio.TaskGroup() as group:
            for number in range(AT_ONCE):
                group.create_task(callers(witness, number, left, expected.of("next")))
        await simulator.wait_for(lambda now: now.running == now.waiting == 0)

    assert len(left) == CANCELS
    assert simulator.statistics().aborted > CANCELS / 2
    lines = {line["request_id"]: line for line in witness.logs.calls}
    for line in (lines[call.request_id] for call in left if call.request_id in lines):
        if line["status"] != "OK":  # that one was faster
            assert Ending(line["status"], line["reason"] or "–") in expected.of("cancelled")
