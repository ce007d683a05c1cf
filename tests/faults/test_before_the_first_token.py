# SPDX-License-Identifier: Apache-2.0
"""Rows 6 to 14: backends that fail before there is anything to deliver, so that another may be asked."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from llm_gateway.simulator import Fault, Options, Simulator
from tests.faults.invariants import KEY, PATIENCE, UNDISTURBED, asking, saying, scene, tried
from tests.faults.matrix import Expected, attempts_of, ending_of, row

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.kit.calls import Outcome

AT_ONCE = {"answer_failures": 1, "base_ms": 60_000, "longest_ms": 60_000}
"""Settings of the ejection for rows in which nobody is ejected: one failure would be enough, and seen."""


@pytest.fixture
async def other() -> AsyncIterator[Simulator]:
    """Another replica."""
    async with Simulator() as running:
        yield running


def answering(status: int, **more: Any) -> Any:
    """An HTTP error, whose words are a canary."""
    return saying(fault=Fault.HTTP, status=status, body=b'{"error":{"message":"canary-body","code":null}}', **more)


@row(6)
async def test_row_06_a_503_is_tried_again(simulator: Simulator, expected: Expected) -> None:
    simulator.script(answering(503))
    async with scene(simulator.url) as witness:
        outcome = await witness.stream()

    assert ending_of(outcome) in expected
    assert simulator.statistics().faults == {Fault.HTTP: 1}
    assert attempts_of(outcome) == [("a", "BACKEND_OVERLOADED"), ("a", "")]
    assert "grpc-retry-pushback-ms" not in outcome.trailers


@row(7, "alone")
async def test_row_07_a_backend_that_always_fails_is_asked_as_often_as_the_policy_says(
    simulator: Simulator, expected: Expected
) -> None:
    simulator.script(*[answering(500)] * 6)
    async with scene(simulator.url) as witness:
        outcomes = [await witness.stream() for _ in range(2)]

    for outcome in outcomes:
        assert ending_of(outcome) in expected
        assert attempts_of(outcome) == [("a", "BACKEND_LOST")] * 3
        assert outcome.trailers["grpc-retry-pushback-ms"] == "-1"
    assert simulator.statistics().faults == {Fault.HTTP: 6}


@row(7, "another replica")
async def test_row_07_a_replica_that_always_fails_is_ejected(
    simulator: Simulator, other: Simulator, expected: Expected
) -> None:
    simulator.script(*[answering(500)] * 100)
    ejection = {"answer_failures": 5, "base_ms": 60_000, "longest_ms": 60_000}
    async with scene(simulator.url, other.url, ejection=ejection) as witness:
        for _ in range(60):
            assert ending_of(await witness.stream()) in expected

    assert simulator.statistics().faults == {Fault.HTTP: 5}
    assert other.statistics().finished == 60


@row(8)
async def test_row_08_a_prompt_that_is_too_long_is_refused_once(expected: Expected) -> None:
    async with Simulator(Options(max_model_len=16)) as small, scene(small.url) as witness:
        outcome = await witness.stream()

    assert ending_of(outcome) in expected
    assert len(attempts_of(outcome)) == small.statistics().requests_seen == 1
    assert outcome.failure is not None
    assert "google.rpc.RetryInfo" not in outcome.failure.details


@row(9, "key", "model")
async def test_row_09_what_asking_again_would_not_mend_is_asked_once(
    simulator: Simulator, case: str, expected: Expected
) -> None:
    word = {"key": "invalid_api_key", "model": "model_not_found"}[case]
    body = b'{"error":{"message":"canary-body","type":"x","code":"%s"}}' % word.encode()
    simulator.script(saying(fault=Fault.HTTP, status=401 if case == "key" else 404, body=body))
    async with scene(simulator.url) as witness:
        outcome = await witness.stream()

    assert ending_of(outcome) in expected
    assert simulator.statistics().faults == {Fault.HTTP: 1}
    assert simulator.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert len(attempts_of(outcome)) == simulator.statistics().requests_seen == 1


@row(10, "another replica")
async def test_row_10_a_full_replica_is_passed_over_and_not_ejected(
    simulator: Simulator, other: Simulator, expected: Expected
) -> None:
    simulator.script(*[answering(429, headers={"retry-after-ms": "20"})] * 5)
    async with scene(simulator.url, other.url, ejection=AT_ONCE, health=UNDISTURBED) as witness:
        asked = await tried(witness, ("a", ""), expected)  # it is asked again until it serves

    assert asked.count(("a", "BACKEND_RATE_LIMITED")) == simulator.statistics().faults[Fault.HTTP] == 5


@pytest.mark.parametrize("priority", [0, 1], ids=["another of its tier", "a fallback"])
@row(10, "another replica")
async def test_row_10_under_load_a_replica_that_refuses_in_no_time_does_not_draw_the_calls_to_itself(
    simulator: Simulator, other: Simulator, priority: int, expected: Expected
) -> None:
    simulator.script(*[answering(429)] * 100)
    replicas = [{"name": "a", "url": simulator.url}, {"name": "b", "url": other.url, "priority": priority}]
    outcomes = []
    async with scene(model={"backends": replicas}, ejection=AT_ONCE, health=UNDISTURBED) as witness:

        async def call(number: int) -> None:
            await asyncio.sleep(number / 50)
            outcomes.append(await witness.stream(asking(ttft_ms=300)))

        await asyncio.gather(*(call(number) for number in range(100)))

    assert all(ending_of(outcome) in expected for outcome in outcomes)
    assert 1 <= simulator.statistics().faults[Fault.HTTP] <= 4  # at once, and when its pauses of 1 s and 2 s are over


@row(10, "another replica")
async def test_row_10_a_replica_that_was_full_for_a_moment_has_calls_again_in_a_moment(
    simulator: Simulator, other: Simulator, expected: Expected
) -> None:
    simulator.script(answering(429))
    async with scene(simulator.url, other.url, ejection=AT_ONCE, health=UNDISTURBED) as witness:
        await tried(witness, ("a", "BACKEND_RATE_LIMITED"), expected)
        refused = time.monotonic()
        await tried(witness, ("a", ""), expected)

    assert 0.5 < time.monotonic() - refused < PATIENCE
    assert simulator.statistics().faults == {Fault.HTTP: 1}


@row(10, "everywhere")
async def test_row_10_when_every_replica_is_full_each_call_asks_them_all_the_same(
    simulator: Simulator, other: Simulator, expected: Expected
) -> None:
    for each in (simulator, other):
        each.script(*[answering(429)] * 100)
    async with scene(simulator.url, other.url, retry={"max_attempts": 2}, health=UNDISTURBED) as witness:
        outcomes = [await witness.stream() for _ in range(10)]

    for outcome in outcomes:
        assert ending_of(outcome) in expected
        assert sorted(attempts_of(outcome)) == [("a", "BACKEND_RATE_LIMITED"), ("b", "BACKEND_RATE_LIMITED")]


@row(10, "everywhere")
async def test_row_10_when_every_replica_is_full_the_caller_is_told_how_long_to_wait(
    simulator: Simulator, other: Simulator, expected: Expected
) -> None:
    for each in (simulator, other):
        each.script(*[answering(429, headers={"retry-after": "7"})] * 3)
    async with scene(simulator.url, other.url) as witness:
        outcome = await witness.stream()

    assert ending_of(outcome) in expected
    assert {name for name, _ in attempts_of(outcome)} == {"a", "b"}
    assert outcome.failure is not None
    retry_info: Any = outcome.failure.details["google.rpc.RetryInfo"]
    assert 0 < retry_info.retry_delay.ToTimedelta().total_seconds() <= 7


async def silence(silent: Any, first: Simulator, second: Simulator | None, expected: Expected) -> None:
    """The first replica is silent: the other one is asked where there is one, the silent one not again."""
    first.script(*[silent] * 50)
    urls = [first.url] if second is None else [first.url, second.url]
    async with scene(*urls, timeouts={"first_token_ms": 500}, health=UNDISTURBED) as witness:
        asked = await tried(witness, ("a", "FIRST_TOKEN_TIMEOUT"), expected)
        await witness.aborted(first)

    assert asked[-1] == (("a", "FIRST_TOKEN_TIMEOUT") if second is None else ("b", ""))
    assert asked.count(("a", "FIRST_TOKEN_TIMEOUT")) == sum(first.statistics().faults.values())
    assert first.statistics().requests_seen == 1


@row(11, "another replica", "alone")
async def test_row_11_a_backend_that_does_not_answer_at_all_is_asked_once(
    simulator: Simulator, other: Simulator, case: str, expected: Expected
) -> None:
    await silence(saying(fault=Fault.SLOW_HEADER), simulator, None if case == "alone" else other, expected)


@pytest.mark.parametrize(
    "silent",
    [
        saying(fault=Fault.STALL),
        saying(fault=Fault.STALL, role_first=True),
        saying(fault=Fault.KEEP_ALIVES),
    ],
    ids=["no event", "a role", "comments"],
)
@row(12, "another replica", "alone")
async def test_row_12_a_backend_that_only_begins_to_answer_is_asked_once(
    simulator: Simulator, other: Simulator, silent: Any, case: str, expected: Expected
) -> None:
    await silence(silent, simulator, None if case == "alone" else other, expected)


@pytest.mark.parametrize("role_first", [False, True], ids=["headers", "a role"])
@pytest.mark.parametrize("fault", [Fault.RESET, Fault.CUT, Fault.EOF, Fault.REFUSE])
@row(13)
async def test_row_13_a_connection_that_breaks_before_the_first_token_is_not_noticed(
    simulator: Simulator, fault: Fault, role_first: bool, expected: Expected
) -> None:
    simulator.script(saying(fault=fault, role_first=role_first))
    async with scene(simulator.url) as witness:
        outcome = await witness.stream()

    assert ending_of(outcome) in expected
    assert simulator.statistics().faults == {fault: 1}
    assert attempts_of(outcome) == [("a", "BACKEND_LOST"), ("a", "")]
    assert outcome.started.attempt == 2


@row(14)
async def test_row_14_when_everything_fails_retries_are_no_load_of_their_own(
    simulator: Simulator, other: Simulator, expected: Expected
) -> None:
    calls, floor = 200, 5
    retry = {"budget_floor": floor, "budget_percent": 20}
    prompt = asking(fault="http", status=500)
    gate = asyncio.Semaphore(16)
    async with scene(simulator.url, other.url, retry=retry, health=UNDISTURBED) as witness:

        async def call() -> Outcome:
            async with gate:
                return await witness.stream(prompt)

        outcomes = await asyncio.gather(*(call() for _ in range(calls)))
        budget = max(floor, 0.2 * len(witness.calls))  # the bystander's calls count too, and need none of it

    for outcome in outcomes:
        assert ending_of(outcome) in expected
    attempts = [attempt for outcome in outcomes for attempt in attempts_of(outcome)]
    assert calls < len(attempts) <= calls + budget
    asked = Counter(name for name, _ in attempts)
    assert asked == {"a": simulator.statistics().requests_seen, "b": other.statistics().requests_seen}
