# SPDX-License-Identifier: Apache-2.0
"""The timers of an attempt, and the caller's soft `time_limit`: what each of them ends, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from llm_gateway.simulator import Behaviour, Fault
from llm_gateway.v1 import error_pb2, outcome_pb2
from tests.kit.calls import stream, unary, until
from tests.kit.gateway import start_gateway
from tests.kit.scripted import DONE, STREAM_HEAD, Pause, ScriptedBackend, Step, chunk, event, usage
from tests.kit.sockets import closed_port, deaf_listener

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_gateway.simulator import Simulator

Attempt = outcome_pb2.Attempt
SHORT = 50
"""Milliseconds, for a timer that is meant to pass."""
ROLE = chunk(role="assistant", text="")
COMMENT = b": still here\n\n"


# ------------------------------------------------------------------------------------------------------------ connect


@pytest.fixture(params=["refused", "deaf"])
def unreachable(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a backend that refuses connections, or that does not react to them at all."""
    with closed_port() if request.param == "refused" else deaf_listener() as port:
        yield f"http://127.0.0.1:{port}"


async def test_a_backend_that_cannot_be_reached_is_tried_three_times(unreachable: str) -> None:
    async with start_gateway(unreachable, default_model="sim", timeouts={"connect_ms": SHORT}) as gateway:
        outcome = await stream(gateway)

    assert outcome.failure is not None
    assert (outcome.failure.code, outcome.failure.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_HEALTHY_BACKEND")
    attempts = [(a.outcome, a.reason) for a in outcome.failure.report.attempts]
    assert attempts == [(Attempt.OUTCOME_FAILED, error_pb2.ERROR_REASON_NO_HEALTHY_BACKEND)] * 3
    assert "google.rpc.RetryInfo" in outcome.failure.details
    assert outcome.failure.trailers["grpc-retry-pushback-ms"] == "-1"


# -------------------------------------------------------------------------------------------------------- first token


@pytest.mark.parametrize("unary_call", [False, True], ids=["stream", "unary"])
@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(fault=Fault.SLOW_HEADER),
        Behaviour(fault=Fault.STALL),
        Behaviour(fault=Fault.STALL, role_first=True),
        Behaviour(fault=Fault.KEEP_ALIVES),
        Behaviour(fault=Fault.KEEP_ALIVES, role_first=True),
    ],
    ids=["no headers", "no event", "a role", "comments", "a role and comments"],
)
async def test_a_backend_without_a_first_token_is_given_up_and_not_asked_again(
    simulator: Simulator, behaviour: Behaviour, unary_call: bool
) -> None:
    simulator.script(behaviour)
    async with start_gateway(simulator.url, default_model="sim", timeouts={"first_token_ms": 300}) as gateway:
        failure = await unary(gateway) if unary_call else (await stream(gateway)).failure
        await simulator.wait_for(lambda now: now.aborted == 1 and now.running == now.waiting == 0)

    assert failure is not None
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "FIRST_TOKEN_TIMEOUT")
    assert len(failure.report.attempts) == 1
    assert simulator.statistics().requests_seen == 1


async def test_roles_that_keep_coming_are_no_first_token() -> None:
    again: list[Step] = [ROLE, COMMENT, Pause(0.01)] * 1000
    script = [STREAM_HEAD, *again]
    timeouts = {"first_token_ms": SHORT}
    async with ScriptedBackend(script) as backend, start_gateway(backend.url, timeouts=timeouts) as gateway:
        outcome = await stream(gateway)

    assert outcome.failure is not None
    assert outcome.failure.reason == "FIRST_TOKEN_TIMEOUT"


async def test_an_answer_after_the_first_token_timer_is_not_lost_to_it() -> None:
    """Once something was delivered, the timer is the idle one; the old one would strike in the middle."""
    more: list[Step] = [Pause(0.02), chunk("b")] * 20
    script = [STREAM_HEAD, chunk("a"), *more, chunk(finish="stop"), usage(1, 21), DONE]
    timeouts = {"first_token_ms": 300}
    async with ScriptedBackend(script) as backend, start_gateway(backend.url, timeouts=timeouts) as gateway:
        outcome = await stream(gateway)

    assert outcome.failure is None
    assert outcome.text() == "a" + 20 * "b"


# --------------------------------------------------------------------------------------------------------------- idle


@pytest.mark.parametrize("fault", [Fault.STALL, Fault.KEEP_ALIVES])
async def test_a_backend_that_falls_silent_has_stalled(simulator: Simulator, fault: Fault) -> None:
    simulator.script(Behaviour(fault=fault, after=2))
    async with start_gateway(simulator.url, timeouts={"idle_ms": SHORT}) as gateway:
        outcome = await stream(gateway)
        await simulator.wait_for(lambda now: now.aborted == 1 and now.running == 0)

    assert outcome.failure is not None
    assert (outcome.failure.code, outcome.failure.reason) == (grpc.StatusCode.ABORTED, "STREAM_STALLED")
    assert outcome.text() == " one night"
    assert outcome.failure.report.usage.completion_tokens == 2
    assert simulator.statistics().requests_seen == 1


async def test_a_whole_answer_that_stalls_fails_as_a_stream_does(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.STALL, after=2))
    async with start_gateway(simulator.url, timeouts={"idle_ms": SHORT}) as gateway:
        failure = await unary(gateway)

    assert failure.reason == "STREAM_STALLED"
    assert failure.report.usage.completion_tokens == 2


@pytest.mark.parametrize(
    ("sign", "alive"),
    [(chunk(""), True), (COMMENT, False), (event({"choices": [], "usage": None}), False)],
    ids=["an empty choice", "a comment", "an event without a choice"],
)
async def test_only_events_with_a_choice_are_signs_of_life(sign: bytes, alive: bool) -> None:
    """Some backends send empty pieces while they think; a proxy sends comments for as long as it lives itself."""
    signs: list[Step] = [Pause(0.02), sign] * 25
    script = [STREAM_HEAD, chunk("a"), *signs, chunk("b", finish="stop"), usage(1, 2), DONE]
    async with ScriptedBackend(script) as backend, start_gateway(backend.url, timeouts={"idle_ms": 300}) as gateway:
        outcome = await stream(gateway)

    assert (outcome.failure is None) == alive
    assert outcome.text() == ("ab" if alive else "a")


# --------------------------------------------------------------------------------------------------------- time_limit

POINTS = {
    "waiting for headers": (Behaviour(fault=Fault.SLOW_HEADER), ""),
    "before the first event": (Behaviour(fault=Fault.STALL), ""),
    "after the role": (Behaviour(fault=Fault.STALL, role_first=True), ""),
    "in mid-stream": (Behaviour(fault=Fault.STALL, after=2), " one night"),
    "between two attempts": (Behaviour(fault=Fault.HTTP, status=503, headers={"Retry-After": "20"}), ""),
}


async def limited(simulator: Simulator, behaviour: Behaviour, *, unary_call: bool = False, **params: Any) -> Any:
    """How a call ends that gets stuck and has a time limit: one that lets it get there."""
    for milliseconds in (100, 1_000, 10_000):
        simulator.script(behaviour)
        limit = Duration()
        limit.FromMilliseconds(milliseconds)
        async with start_gateway(simulator.url, retry={"max_backoff_ms": 60_000}, default_model="sim") as gateway:
            ask = unary if unary_call else stream
            ended = await ask(gateway, time_limit=limit, **params)
            await until(lambda: gateway.server.in_flight == 0)
        if behaviour.fault in simulator.statistics().faults:
            return ended
    raise AssertionError("the call never got stuck")


@pytest.mark.parametrize(("behaviour", "text"), POINTS.values(), ids=POINTS.keys())
async def test_a_time_limit_ends_a_stream_well_with_what_there_is(
    simulator: Simulator, behaviour: Behaviour, text: str
) -> None:
    outcome = await limited(simulator, behaviour)

    assert outcome.failure is None
    assert outcome.text() == text
    assert outcome.finish() == "TIME_LIMIT"
    await simulator.wait_for(lambda now: now.running == now.waiting == 0)
    assert (simulator.statistics().aborted == 0) == (behaviour.fault is Fault.HTTP)


@pytest.mark.parametrize(("behaviour", "text"), POINTS.values(), ids=POINTS.keys())
async def test_a_time_limit_ends_a_whole_answer_well_with_what_there_is(
    simulator: Simulator, behaviour: Behaviour, text: str
) -> None:
    answer = await limited(simulator, behaviour, unary_call=True)

    assert [(choice.message.content, choice.finish_reason) for choice in answer.choices] == [
        (text, outcome_pb2.FINISH_REASON_TIME_LIMIT)
    ]
    await simulator.wait_for(lambda now: now.running == now.waiting == 0)


async def test_a_time_limit_holds_while_the_gateway_connects() -> None:
    with deaf_listener() as port:
        async with start_gateway(f"http://127.0.0.1:{port}", default_model="sim") as gateway:
            outcome = await stream(gateway, time_limit=Duration(nanos=50_000_000))

    assert outcome.failure is None
    assert (outcome.text(), outcome.finish()) == ("", "TIME_LIMIT")
    assert [attempt.outcome for attempt in outcome.completed.attempts] == [Attempt.OUTCOME_CANCELLED]


async def test_a_time_limit_marks_the_usage_as_an_estimate(simulator: Simulator) -> None:
    outcome = await limited(simulator, Behaviour(fault=Fault.STALL, after=2))

    assert outcome.completed.usage.estimated
    assert outcome.completed.usage.completion_tokens == 2
    assert [attempt.outcome for attempt in outcome.completed.attempts] == [Attempt.OUTCOME_SERVED]


async def test_a_time_limit_ends_every_choice_that_has_not_ended() -> None:
    script: list[Step] = [STREAM_HEAD, chunk("whole", index=0, finish="stop"), chunk("par", index=1), Pause()]
    async with ScriptedBackend(script) as backend, start_gateway(backend.url) as gateway:
        outcome = await stream(gateway, n=3, time_limit=Duration(nanos=500_000_000))
        await backend.left.wait()

    assert outcome.failure is None
    assert [outcome.text(index) for index in range(3)] == ["whole", "par", ""]
    assert [outcome.finish(index) for index in range(3)] == ["STOP", "TIME_LIMIT", "TIME_LIMIT"]


async def test_a_time_limit_that_is_not_reached_changes_nothing(simulator: Simulator) -> None:
    async with start_gateway(simulator.url) as gateway:
        outcome = await stream(gateway, max_tokens=3, time_limit=Duration(seconds=60))

    assert (outcome.text(), outcome.finish()) == (" one night a", "LENGTH")
    assert not outcome.completed.usage.estimated


# -------------------------------------------------------------------------------------------------------------- usage


@pytest.mark.parametrize("unary_call", [False, True], ids=["stream", "unary"])
async def test_a_usage_that_does_not_come_is_estimated(unary_call: bool) -> None:
    script: list[Step] = [STREAM_HEAD, chunk("a"), chunk("b", finish="stop"), Pause()]
    timeouts = {"usage_ms": SHORT}
    async with ScriptedBackend(script) as backend, start_gateway(backend.url, timeouts=timeouts) as gateway:
        ended = await unary(gateway) if unary_call else (await stream(gateway)).completed
        await backend.left.wait()

    assert ended.usage.estimated
    assert ended.usage.completion_tokens == 2


async def test_a_usage_that_is_late_is_waited_for() -> None:
    script: list[Step] = [STREAM_HEAD, chunk("a", finish="stop"), Pause(0.02), usage(7, 1), DONE]
    async with ScriptedBackend(script) as backend, start_gateway(backend.url) as gateway:
        outcome = await stream(gateway)

    assert (outcome.completed.usage.prompt_tokens, outcome.completed.usage.estimated) == (7, False)


async def test_a_length_that_only_the_usage_could_explain_is_settled_without_it() -> None:
    """Fewer pieces than `max_tokens`: what cut the answer is told by the usage, which does not come."""
    script: list[Step] = [STREAM_HEAD, chunk("a", finish="length"), Pause()]
    timeouts = {"usage_ms": SHORT}
    async with ScriptedBackend(script) as backend, start_gateway(backend.url, timeouts=timeouts) as gateway:
        outcome = await stream(gateway, max_tokens=5)

    assert outcome.failure is None
    assert outcome.finish() == "LENGTH"
