# SPDX-License-Identifier: Apache-2.0
"""Hedging, for a model whose operator opts for it: the first token from whichever of two backends gives it first."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.duration_pb2 import Duration

from llm_gateway.simulator import Behaviour, Fault, Simulator
from llm_gateway.v1 import error_pb2, outcome_pb2
from tests.kit.calls import chat_request, stream, unary, until
from tests.kit.gateway import start_gateway_of
from tests.kit.scripted import Pause, ScriptedBackend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.kit.gateway import RunningGateway

SILENT = Behaviour(time_to_first_token=3600.0)
IMPATIENT = {"probe_interval_ms": 5, "probe_timeout_ms": 20}
"""Settings of probes that find a dead backend in no time."""
SERVED, FAILED, CANCELLED = (
    outcome_pb2.Attempt.OUTCOME_SERVED,
    outcome_pb2.Attempt.OUTCOME_FAILED,
    outcome_pb2.Attempt.OUTCOME_CANCELLED,
)


class Pair:
    """A gateway in front of two backends, the second of a lower tier: so that who is asked first is known."""

    def __init__(self, gateway: RunningGateway, first: Simulator, second: Simulator) -> None:
        self.gateway = gateway
        self.first = first
        self.second = second


def model(first: Simulator | ScriptedBackend, second: Simulator, **fields: Any) -> dict[str, Any]:
    backends = [
        {"name": name, "url": simulator.url, "model": "sim", "priority": tier}
        for tier, (name, simulator) in enumerate((("first", first), ("second", second)))
    ]
    return {"name": "llama", "backends": backends, "hedge_after_ms": 1} | fields


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(Simulator()) for _ in range(2)]
        gateway = await stack.enter_async_context(start_gateway_of([model(first, second)]))
        yield Pair(gateway, first, second)


@asynccontextmanager
async def frozen() -> AsyncIterator[ScriptedBackend]:
    """A backend whose process stands still: it takes connections and says nothing, to probes neither."""
    async with ScriptedBackend([Pause()]) as backend:
        backend.aside["/health"] = [Pause()]
        yield backend


def attempts_of(completed: Any) -> list[tuple[str, int]]:
    return [(attempt.backend, attempt.outcome) for attempt in completed.attempts]


async def test_where_the_first_is_slow_the_second_serves_and_the_first_is_left(pair: Pair) -> None:
    pair.first.script(SILENT)
    outcome = await stream(pair.gateway, max_tokens=5)
    await pair.first.wait_for(lambda now: now.aborted == 1)

    assert outcome.failure is None
    assert (outcome.started.backend, outcome.started.attempt) == ("second", 2)
    assert attempts_of(outcome.completed) == [("first", CANCELLED), ("second", SERVED)]


async def test_a_whole_answer_is_hedged_too(pair: Pair) -> None:
    pair.first.script(SILENT)
    answer = await unary(pair.gateway, max_tokens=5)

    assert answer.backend == "second"


async def test_the_answer_is_whole_and_nothing_of_the_loser_is_in_it(pair: Pair) -> None:
    pair.first.script(Behaviour(text="from the first", time_to_first_token=0.05, pace=0.005))
    pair.second.script(Behaviour(text="from the second", pace=0.005))
    outcome = await stream(pair.gateway)

    assert outcome.text() in {"from the first", "from the second"}


async def test_where_the_first_is_quick_nobody_else_is_asked() -> None:
    async with Simulator() as first, Simulator() as second:
        async with start_gateway_of([model(first, second, hedge_after_ms=60_000)]) as gateway:
            outcome = await stream(gateway, max_tokens=5)

        assert attempts_of(outcome.completed) == [("first", SERVED)]
        assert second.statistics().requests_seen == 0


async def test_a_first_that_fails_while_the_second_is_asked_is_told_as_failed(pair: Pair) -> None:
    pair.first.script(Behaviour(fault=Fault.RESET, time_to_first_token=0.05))
    pair.second.script(Behaviour(time_to_first_token=0.15))
    outcome = await stream(pair.gateway, max_tokens=5)

    assert outcome.started.backend == "second"
    assert attempts_of(outcome.completed) == [("first", FAILED), ("second", SERVED)]


async def test_a_second_that_fails_leaves_the_first_to_serve(pair: Pair) -> None:
    pair.first.script(Behaviour(time_to_first_token=0.1))
    pair.second.script(Behaviour(fault=Fault.HTTP, status=500))
    outcome = await stream(pair.gateway, max_tokens=5)

    assert outcome.started.backend == "first"
    assert attempts_of(outcome.completed) == [("second", FAILED), ("first", SERVED)]


async def test_where_both_fail_the_call_is_tried_again_like_any_other(pair: Pair) -> None:
    pair.first.script(Behaviour(fault=Fault.RESET, time_to_first_token=0.05))
    pair.second.script(Behaviour(fault=Fault.RESET, time_to_first_token=0.1))
    outcome = await stream(pair.gateway, max_tokens=5)

    assert outcome.failure is None
    assert [outcome_ for _, outcome_ in attempts_of(outcome.completed)] == [FAILED, FAILED, SERVED]


async def test_a_caller_who_leaves_frees_both(pair: Pair) -> None:
    pair.first.script(SILENT)
    pair.second.script(SILENT)
    call = pair.gateway.stub.ChatCompletionStream(chat_request(), timeout=60)
    reading = asyncio.ensure_future(call.read())
    await until(lambda: pair.first.statistics().running and pair.second.statistics().running)
    call.cancel()
    await asyncio.gather(reading, return_exceptions=True)

    for simulator in (pair.first, pair.second):
        await simulator.wait_for(lambda now: now.aborted == 1)


async def test_a_time_limit_ends_both_and_the_answer_well(pair: Pair) -> None:

    pair.first.script(SILENT)
    pair.second.script(SILENT)
    limit = Duration()
    limit.FromMilliseconds(50)
    outcome = await stream(pair.gateway, time_limit=limit)

    assert (outcome.failure, outcome.finish()) == (None, "TIME_LIMIT")
    for simulator in (pair.first, pair.second):
        await simulator.wait_for(lambda now: now.aborted == 1)


async def test_a_deadline_ends_both(pair: Pair) -> None:
    pair.first.script(SILENT)
    pair.second.script(SILENT)
    outcome = await stream(pair.gateway, timeout=0.2)

    assert outcome.failure is not None
    assert outcome.failure.reason == "DEADLINE_EXCEEDED"
    for simulator in (pair.first, pair.second):
        await simulator.wait_for(lambda now: now.aborted == 1)


async def test_without_a_budget_nobody_is_hedged() -> None:
    async with Simulator() as first, Simulator() as second:
        first.script(Behaviour(time_to_first_token=0.05))
        retry = {"budget_floor": 0, "budget_percent": 0}
        async with start_gateway_of([model(first, second)], retry=retry) as gateway:
            outcome = await stream(gateway, max_tokens=5)

        assert attempts_of(outcome.completed) == [("first", SERVED)]
        assert second.statistics().requests_seen == 0


async def test_where_both_are_silent_both_have_failed_and_neither_is_asked_again() -> None:
    async with Simulator() as first, Simulator() as second:
        for simulator in (first, second):
            simulator.script(SILENT)
        async with start_gateway_of([model(first, second)], timeouts={"first_token_ms": 50}) as gateway:
            outcome = await stream(gateway)

        assert outcome.failure is not None
        assert outcome.failure.reason == "FIRST_TOKEN_TIMEOUT"
        assert sorted(attempts_of(outcome.failure.report)) == [("first", FAILED), ("second", FAILED)]
        assert [simulator.statistics().requests_seen for simulator in (first, second)] == [1, 1]


async def test_a_deadline_is_not_held_against_the_one_that_had_failed_before(pair: Pair) -> None:
    pair.first.script(Behaviour(fault=Fault.RESET, time_to_first_token=0.02))
    pair.second.script(SILENT)
    outcome = await stream(pair.gateway, timeout=0.3)

    assert outcome.failure is not None
    assert outcome.failure.reason == "DEADLINE_EXCEEDED"
    assert attempts_of(outcome.failure.report) == [("first", FAILED), ("second", CANCELLED)]


async def test_the_second_has_a_first_token_timer_of_its_own() -> None:
    async with Simulator() as first, Simulator() as second:
        first.script(SILENT)
        second.script(Behaviour(time_to_first_token=0.2))
        slow = model(first, second, hedge_after_ms=50)
        slow["backends"][0]["timeouts"] = {"first_token_ms": 100}
        async with start_gateway_of([slow]) as gateway:
            outcome = await stream(gateway, max_tokens=5)

        assert outcome.started.backend == "second"


async def test_the_winners_time_begins_with_its_own_attempt() -> None:
    async with Simulator() as first, Simulator() as second:
        first.script(SILENT)
        async with start_gateway_of([model(first, second, hedge_after_ms=5)]) as gateway:
            outcome = await stream(gateway, max_tokens=1)

    _, winner = outcome.completed.attempts
    assert winner.duration.ToNanoseconds() <= outcome.completed.timing.total.ToNanoseconds() - 5_000_000


async def test_one_that_loses_again_and_again_is_ejected() -> None:
    async with Simulator() as first, Simulator() as second:
        first.script(*[SILENT] * 20)
        async with start_gateway_of([model(first, second)], ejection={"base_ms": 10_000}) as gateway:
            for _ in range(12):
                assert (await stream(gateway, max_tokens=1)).started.backend == "second"

        assert first.statistics().requests_seen == 5


async def test_until_the_second_is_asked_a_backend_that_died_is_left_for_it_as_without_hedging() -> None:
    async with (
        frozen() as first,
        Simulator() as second,
        start_gateway_of([model(first, second, hedge_after_ms=60_000)], health=IMPATIENT) as gateway,
    ):
        outcome = await stream(gateway, max_tokens=5)

    assert attempts_of(outcome.completed) == [("first", FAILED), ("second", SERVED)]
    assert outcome.completed.attempts[0].reason == error_pb2.ERROR_REASON_BACKEND_LOST


async def test_that_one_of_two_has_died_ends_nobodys_wait_for_the_other() -> None:
    async with frozen() as first, Simulator() as second:
        second.script(Behaviour(time_to_first_token=0.2))
        async with start_gateway_of([model(first, second)], health=IMPATIENT) as gateway:
            outcome = await stream(gateway, max_tokens=5)

    assert attempts_of(outcome.completed) == [("first", CANCELLED), ("second", SERVED)]
