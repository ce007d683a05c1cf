# SPDX-License-Identifier: Apache-2.0
"""A backend that is slow to its first token is left to wait, and one that is silent is given up in time."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from llm_gateway.simulator import Options, Simulator
from tests.faults.matrix import attempts_of
from tests.kit.calls import stream
from tests.kit.gateway import start_gateway_of

if TYPE_CHECKING:
    from tests.kit.calls import Outcome
    from tests.kit.gateway import RunningGateway

DEADLINE = 1.5
SLOW = 0.9
"""Seconds to the first token: more than half of the deadline, and less than all of it."""
SILENT = 3600.0
LOST = "FIRST_TOKEN_TIMEOUT"


def replicas(*simulators: Simulator, fallback: bool = False) -> list[dict[str, Any]]:
    """One model's: "a" and "b"; with `fallback` the first is always asked first."""
    entries = [
        {"name": name, "url": simulator.url, "priority": place if fallback else 0}
        for place, (name, simulator) in enumerate(zip("ab", simulators, strict=True))
    ]
    return [{"name": "sim", "backends": entries}]


def taking(seconds: float) -> Simulator:
    """A backend whose first token takes so long."""
    return Simulator(Options(time_to_first_token=seconds))


async def flood(gateway: RunningGateway, calls: int, prompt: str = "hello") -> list[Outcome]:
    """Fifty calls a second."""

    async def call(number: int) -> Outcome:
        await asyncio.sleep(number / 50)
        return await stream(gateway, prompt, timeout=DEADLINE, max_tokens=1)

    return await asyncio.gather(*(call(number) for number in range(calls)))


def endings(outcomes: list[Outcome]) -> Counter[str]:
    return Counter("OK" if outcome.failure is None else outcome.failure.reason for outcome in outcomes)


async def test_that_there_is_another_replica_costs_hardly_a_call_whose_first_token_takes_most_of_its_time() -> None:
    async with taking(SLOW) as a, taking(SLOW) as b, start_gateway_of(replicas(a, b)) as gateway:
        outcomes = await flood(gateway, 100)
        asked = a.statistics().requests_seen + b.statistics().requests_seen

    # It takes one call that is given up in vain, for nothing is known yet, to learn that the others had better wait. A
    # machine that stands still for a moment may cost a few more; without what was learned, it would be all of them.
    assert endings(outcomes)["OK"] >= 95
    assert asked <= 105


async def test_a_model_that_has_become_slow_is_known_as_slow_before_long() -> None:
    slow = f'[[sim ttft_ms="{1000 * SLOW:.0f}"]]'
    async with taking(0.001) as a, taking(0.001) as b, start_gateway_of(replicas(a, b)) as gateway:
        await flood(gateway, 20)
        await flood(gateway, 100, slow)
        later = await flood(gateway, 20, slow)

    assert endings(later) == {"OK": 20}


async def test_where_no_other_attempt_may_be_made_a_backend_has_all_the_time_that_is_left() -> None:
    for retry in ({"budget_floor": 0, "budget_percent": 0}, {"max_attempts": 1}):
        async with taking(SLOW) as a, taking(SLOW) as b, start_gateway_of(replicas(a, b), retry=retry) as gateway:
            outcome = await stream(gateway, timeout=DEADLINE, max_tokens=1)

        assert outcome.failure is None
        assert len(attempts_of(outcome)) == 1


async def test_calls_at_a_silent_backend_are_all_rescued_although_nothing_is_known_of_the_model_yet() -> None:
    async with (
        taking(SILENT) as a,
        taking(0.001) as b,
        start_gateway_of(replicas(a, b, fallback=True)) as gateway,
    ):
        outcomes = await flood(gateway, 20)

    assert endings(outcomes) == {"OK": 20}
    assert {tuple(attempts_of(outcome)) for outcome in outcomes} == {(("a", LOST), ("b", ""))}


async def test_a_silent_backend_whose_probes_are_well_is_ejected_because_another_one_answers_in_less_time() -> None:
    ejection = {"answer_failures": 3, "base_ms": 60_000, "longest_ms": 60_000}
    async with (
        taking(SILENT) as a,
        taking(0.001) as b,
        start_gateway_of(replicas(a, b, fallback=True), ejection=ejection) as gateway,
    ):
        outcomes = [await stream(gateway, timeout=1.0, max_tokens=1) for _ in range(6)]
        asked = a.statistics().requests_seen

    assert endings(outcomes) == {"OK": 6}
    assert asked == 3
