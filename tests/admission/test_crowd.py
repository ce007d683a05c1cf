# SPDX-License-Identifier: Apache-2.0
"""A crowd at the door, of which many leave again: everybody has one ending, and everything returns to zero."""

from __future__ import annotations

import asyncio
import random

import pytest

from llm_gateway.admission import Admission, AdmissionStatistics, Limits
from llm_gateway.errors import GatewayError
from llm_gateway.generation import Priority
from tests.admission.callers import Caller, all_leave, comes, desk_of, settle, ticket

CALLERS = 4_000
SEATS = 16
OWN_SEATS = {"": None, "small": 2, "medium": 6, "large": 40}


class Crowd:
    """Callers who come in waves, stay for a few turns of the loop, and are cancelled at random."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.desk = Admission(Limits(max_in_flight=SEATS, max_queued=1_000))
        self.inside = dict.fromkeys(OWN_SEATS, 0)
        self.most = 0
        self.served = 0
        self.refused = 0

    async def call(self) -> None:
        model = self.random.choice(list(OWN_SEATS))
        priority = self.random.choice(list(Priority))
        one = ticket(model=model, seats=OWN_SEATS[model], priority=priority, size=self.random.randrange(1_000))
        try:
            async with self.desk.admit(one):
                self.inside[model] += 1
                self.check(model)
                try:
                    for _ in range(self.random.randrange(4)):
                        await asyncio.sleep(0)
                finally:
                    self.inside[model] -= 1
                self.served += 1
        except GatewayError:
            self.refused += 1
        finally:
            one.watchdog.close()

    def check(self, model: str) -> None:
        own = OWN_SEATS[model]
        inside = sum(self.inside.values())
        self.most = max(self.most, inside)
        assert inside <= SEATS
        assert own is None or self.inside[model] <= own

    async def come(self) -> list[BaseException | None]:
        tasks: list[asyncio.Task[None]] = []
        while len(tasks) < CALLERS:
            tasks += [asyncio.create_task(self.call()) for _ in range(self.random.randrange(1, 200))]
            for task in self.random.sample(tasks[-400:], min(len(tasks), 60)):
                task.cancel()
            for _ in range(self.random.randrange(8)):
                await asyncio.sleep(0)
        return await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("seed", range(3))
async def test_a_crowd_is_served_and_nothing_remains_of_it(seed: int) -> None:
    crowd = Crowd(seed)
    endings = await crowd.come()
    await crowd.desk.drained()
    statistics = crowd.desk.statistics()
    cancelled = sum(isinstance(ending, asyncio.CancelledError) for ending in endings)

    assert cancelled + crowd.served + crowd.refused == len(endings)
    assert crowd.most == SEATS, "it was a crowd"
    assert min(cancelled, crowd.served, crowd.refused) > 100, "of every kind"
    assert statistics == AdmissionStatistics(
        max_in_flight=SEATS,
        admitted=statistics.admitted,
        rejected={"QUEUE_FULL": crowd.refused},
        evicted=statistics.evicted,
    )
    assert all(crowd.desk.model_statistics(model).in_flight == 0 for model in OWN_SEATS)


async def test_a_long_queue_keeps_its_order_whoever_leaves_it() -> None:
    desk = desk_of(1, max_queued=CALLERS)
    first = await comes(desk)
    waiting = [Caller(desk) for _ in range(CALLERS)]
    await settle()
    leaving = random.Random(0).sample(waiting, CALLERS // 2)
    for caller in leaving:
        caller.task.cancel()
    await settle()
    assert desk.statistics().queued == CALLERS // 2

    staying = [caller.task for caller in waiting if not caller.gone]
    served: list[asyncio.Task[None]] = []
    for task in staying:
        task.add_done_callback(served.append)
    await all_leave(first, *waiting)

    assert len(staying) == CALLERS // 2
    assert served == staying
    await desk.drained()
