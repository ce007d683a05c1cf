# SPDX-License-Identifier: Apache-2.0
"""Several backends behind one model: what failed at one is tried at another before the first token, and never after."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from llm_gateway.simulator import Behaviour, Fault, Simulator
from llm_gateway.v1 import error_pb2, llm_service_pb2, outcome_pb2
from tests.kit.calls import stream, unary, until
from tests.kit.gateway import failure_of, start_gateway_of
from tests.kit.scripted import STREAM_HEAD, Close, Hold, Pause, ScriptedBackend, chunk, json_response
from tests.kit.sockets import closed_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tests.kit.gateway import RunningGateway
    from tests.kit.scripted import Step


def backend(name: str, url: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "url": url, "model": "sim"} | fields


@asynccontextmanager
async def behind(bad_url: str, **settings: Any) -> AsyncIterator[tuple[RunningGateway, Simulator]]:
    """A gateway with a bad backend and, a tier below it, a simulator: the bad one is always asked first."""
    async with Simulator() as good:
        models = [{"name": "llama", "backends": [backend("bad", bad_url), backend("good", good.url, priority=1)]}]
        async with start_gateway_of(models, **settings) as gateway:
            yield gateway, good


def attempts_of(attempts: Sequence[outcome_pb2.Attempt]) -> list[tuple[str, str]]:
    """The story of a call: who was asked, and the reason of the failure."""

    def reason(attempt: outcome_pb2.Attempt) -> str:
        return error_pb2.ErrorReason.Name(attempt.reason).removeprefix("ERROR_REASON_")

    return [(attempt.backend, reason(attempt)) for attempt in attempts]


PROBED_ONCE = {"probe_interval_ms": 86_400_000, "load_interval_ms": 0}
"""Settings of the probes where only calls are to find out how a backend is."""
PROBED_OFTEN = {"probe_interval_ms": 5, "probe_timeout_ms": 200}
"""Where it is the probes that are to find it, in less than a second, but a busy machine is not to look dead."""
GOOD = ("good", "UNSPECIFIED")
ROLE = chunk(role="assistant", content="")
ELSEWHERE: dict[str, tuple[Sequence[Step], str]] = {
    "closed": ([Close], "BACKEND_LOST"),
    "cut after the role": ([STREAM_HEAD, ROLE, Close], "BACKEND_LOST"),
    "500": ([json_response("500 Internal Server Error", {})], "BACKEND_LOST"),
    "503": ([json_response("503 Service Unavailable", {})], "BACKEND_OVERLOADED"),
    "429": ([json_response("429 Too Many Requests", {}, ["retry-after: 60"])], "BACKEND_RATE_LIMITED"),
    "a spent quota": (
        [json_response("429 Too Many Requests", {"error": {"code": "insufficient_quota", "message": ""}})],
        "BACKEND_RATE_LIMITED",
    ),
    "loading": ([json_response("503 x", {"error": {"type": "unavailable_error", "message": ""}})], "MODEL_LOADING"),
    "garbage": ([STREAM_HEAD, b"data: {]\n\n", Close], "BACKEND_PROTOCOL_ERROR"),
    "silence": ([STREAM_HEAD, ROLE, Pause()], "FIRST_TOKEN_TIMEOUT"),
    "no head": ([Pause()], "FIRST_TOKEN_TIMEOUT"),
}
ONCE: dict[str, tuple[Sequence[Step], str]] = {
    "400": ([json_response("400 Bad Request", {"error": {"type": "BadRequestError"}})], "INVALID_REQUEST"),
    "context": (
        [json_response("400 Bad Request", {"error": {"type": "BadRequestError", "param": "input_tokens"}})],
        "CONTEXT_LENGTH_EXCEEDED",
    ),
    "content": ([json_response("400 Bad Request", {"error": {"code": "content_filter"}})], "CONTENT_REFUSED"),
    "401": ([json_response("401 Unauthorized", {"error": "Unauthorized"})], "BACKEND_REFUSED"),
}


@pytest.mark.parametrize("what", ELSEWHERE)
async def test_what_failed_before_the_first_token_is_served_by_another_backend(what: str) -> None:
    script, reason = ELSEWHERE[what]
    async with ScriptedBackend(script) as bad, behind(bad.url, timeouts={"first_token_ms": 100}) as (gateway, _):
        outcome = await stream(gateway, max_tokens=5)

    assert outcome.failure is None
    assert (outcome.started.backend, outcome.started.attempt) == ("good", 2)
    assert attempts_of(outcome.completed.attempts) == [("bad", reason), GOOD]


async def test_a_refused_connection_is_served_by_another_backend_and_so_is_a_whole_answer() -> None:
    with closed_port() as port:
        async with behind(f"http://127.0.0.1:{port}") as (gateway, _):
            answer = await unary(gateway, max_tokens=5)

    assert attempts_of(answer.attempts) == [("bad", "NO_HEALTHY_BACKEND"), GOOD]


@pytest.mark.parametrize("what", ONCE)
async def test_what_would_be_refused_everywhere_is_tried_once(what: str) -> None:
    script, reason = ONCE[what]
    async with ScriptedBackend(script) as bad, behind(bad.url) as (gateway, good):
        outcome = await stream(gateway)

        assert good.statistics().requests_seen == 0
    assert outcome.failure is not None
    assert outcome.failure.reason == reason
    assert len(outcome.failure.report.attempts) == 1


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.CUT, Fault.ABORT, Fault.ERROR_EVENT, Fault.GARBAGE])
async def test_after_the_first_token_nothing_is_tried_elsewhere(fault: Fault) -> None:
    async with Simulator() as bad, behind(bad.url) as (gateway, good):
        bad.script(Behaviour(text="one two three", fault=fault, after=2))
        outcome = await stream(gateway)

        assert good.statistics().requests_seen == 0
    assert outcome.failure is not None
    assert outcome.failure.code is grpc.StatusCode.ABORTED
    assert "one two three".startswith(outcome.text().strip())


async def test_a_backend_that_was_silent_is_not_asked_again_in_the_same_call() -> None:
    silent: Sequence[Step] = [STREAM_HEAD, Pause()]
    async with ScriptedBackend(silent) as bad, behind(bad.url, timeouts={"first_token_ms": 50}) as (gateway, good):
        good.script(*[Behaviour(fault=Fault.HTTP, status=500)] * 5)
        outcome = await stream(gateway)

        assert outcome.failure is not None
        assert attempts_of(outcome.failure.report.attempts) == [
            ("bad", "FIRST_TOKEN_TIMEOUT"),
            ("good", "BACKEND_LOST"),
            ("good", "BACKEND_LOST"),
        ]
        assert len(bad.requests) == 1


async def test_where_all_are_refused_there_is_no_healthy_backend_and_it_is_said_when_to_come_again() -> None:
    with closed_port() as first, closed_port() as second:
        models = [
            {"name": "llama", "backends": [backend(str(p), f"http://127.0.0.1:{p}") for p in (first, second)]},
        ]
        async with start_gateway_of(models) as gateway:
            outcomes = [await stream(gateway) for _ in range(4)]

    failures = [outcome.failure for outcome in outcomes if outcome.failure is not None]
    assert [failure.reason for failure in failures] == ["NO_HEALTHY_BACKEND"] * 4
    assert [len(failure.report.attempts) for failure in failures][-1] == 0  # both are ejected: nobody is asked
    assert all("google.rpc.RetryInfo" in failure.details for failure in failures)


async def test_when_the_budget_is_spent_a_failure_is_the_callers_to_know() -> None:
    with closed_port() as port:
        retry = {"budget_floor": 2, "budget_percent": 0}
        ejection = {"local_failures": 100, "answer_failures": 100}
        url = f"http://127.0.0.1:{port}"
        async with behind(url, retry=retry, ejection=ejection, health=PROBED_ONCE) as (gateway, _):
            outcomes = [await stream(gateway, max_tokens=2) for _ in range(4)]

    assert [outcome.failure is None for outcome in outcomes] == [True, True, False, False]


async def test_calls_that_wait_for_a_backend_that_died_are_served_by_another() -> None:
    """Its process is frozen while it has the call: from then on it says nothing, to probes neither."""
    frozen: Sequence[Step] = [Pause()]
    async with ScriptedBackend(frozen) as bad, behind(bad.url, health=PROBED_OFTEN) as (gateway, _):
        call = asyncio.create_task(stream(gateway, max_tokens=5))
        await until(lambda: bad.requests)
        bad.aside["/health"] = [Pause()]
        outcome = await call

    assert attempts_of(outcome.completed.attempts) == [("bad", "BACKEND_LOST"), GOOD]


async def test_every_replica_of_a_backend_with_several_addresses_serves() -> None:
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(Simulator()) for _ in range(3)]
        models = [{"name": "llama", "backends": [backend("vllm", "") | {"url": [r.url for r in replicas]}]}]
        gateway = await stack.enter_async_context(start_gateway_of(models))
        names = {(await stream(gateway, max_tokens=1)).started.backend for _ in range(40)}

        assert all(replica.statistics().requests_seen for replica in replicas)
    assert names == {"vllm"}  # as it is configured: where a replica is, is not for callers


async def test_the_defaults_of_a_model_hold_where_the_request_is_silent() -> None:
    async with Simulator() as simulator:
        defaults = {"temperature": 0.25, "max_tokens": 3}
        models = [{"name": "llama", "defaults": defaults, "backends": [backend("a", simulator.url)]}]
        async with start_gateway_of(models) as gateway:
            await stream(gateway)
            await stream(gateway, max_tokens=2)

        bodies = [request.body for request in simulator.requests]
        assert [(body["temperature"], body["max_completion_tokens"]) for body in bodies] == [(0.25, 3), (0.25, 2)]


async def test_a_models_seats_are_its_own() -> None:
    async with Simulator() as simulator:
        models = [
            {"name": name, "max_in_flight": 1, "backends": [backend("a", simulator.url)]} for name in ("one", "two")
        ]
        admission = {"max_queued": 0}
        async with start_gateway_of(models, admission=admission) as gateway:
            simulator.script(Behaviour(fault=Fault.STALL, after=1))
            running = gateway.stub.ChatCompletionStream(request_for("one"))
            await running.read()
            await until(lambda: simulator.statistics().running)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await gateway.stub.ChatCompletion(request_for("one"))
            other = await gateway.stub.ChatCompletion(request_for("two"))
            running.cancel()

    assert failure_of(caught.value).reason == "QUEUE_FULL"
    assert other.model


def request_for(model: str) -> llm_service_pb2.ChatCompletionRequest:
    request = llm_service_pb2.ChatCompletionRequest(model=model)
    request.messages.add(role=1, content="hello")
    return request


async def test_a_model_that_is_not_configured_is_not_found_and_nobody_is_asked() -> None:
    async with Simulator() as simulator:
        models = [{"name": "llama", "backends": [backend("a", simulator.url)]}]
        async with start_gateway_of(models) as gateway:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await gateway.stub.ChatCompletion(request_for("gpt"))

        assert failure_of(caught.value).reason == "MODEL_NOT_FOUND"
        assert simulator.statistics().requests_seen == 0


async def test_tokens_are_counted_by_a_backend_whose_dialect_can() -> None:
    async with Simulator() as able, Simulator() as unable:
        backends = [backend("unable", unable.url, dialect="openai"), backend("able", able.url, priority=1)]
        async with start_gateway_of([{"name": "llama", "backends": backends}]) as gateway:
            counted = await gateway.stub.CountTokens(llm_service_pb2.CountTokensRequest(prompt="hello"))

    assert (counted.backend, counted.model) == ("able", "llama")


async def test_where_no_dialect_can_count_tokens_that_is_what_the_caller_hears() -> None:
    async with Simulator() as unable:
        models = [{"name": "llama", "backends": [backend("unable", unable.url, dialect="openai")]}]
        async with start_gateway_of(models) as gateway:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await gateway.stub.CountTokens(llm_service_pb2.CountTokensRequest(prompt="hello"))

    assert failure_of(caught.value).reason == "UNSUPPORTED_PARAMETER"


async def test_a_silent_backend_does_not_use_up_a_deadline_that_is_shorter_than_the_timer() -> None:
    silent: Sequence[Step] = [STREAM_HEAD, Pause()]
    async with ScriptedBackend(silent) as bad, behind(bad.url, timeouts={"first_token_ms": 60_000}) as (gateway, _):
        outcome = await stream(gateway, timeout=1.0, max_tokens=5)

    assert attempts_of(outcome.completed.attempts) == [("bad", "FIRST_TOKEN_TIMEOUT"), GOOD]


async def test_a_call_that_has_no_other_attempt_waits_for_a_backend_that_probes_find_dead(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found_dead = asyncio.Event()
    answer: Sequence[Step] = [Hold(found_dead), STREAM_HEAD, chunk("late"), chunk(finish="stop"), Close]
    retry = {"budget_floor": 0, "budget_percent": 0}
    async with ScriptedBackend(answer) as busy, behind(busy.url, health=PROBED_OFTEN, retry=retry) as (gateway, _):
        call = asyncio.create_task(stream(gateway))
        await until(lambda: busy.requests)
        busy.aside["/health"] = [Pause()]
        await until(lambda: "a backend's health has changed" in caplog.messages)
        found_dead.set()
        outcome = await call

    assert (outcome.text(), outcome.started.backend) == ("late", "bad")


async def test_an_outage_of_one_model_leaves_the_failover_of_another_alone() -> None:
    with closed_port() as port:
        dead = f"http://127.0.0.1:{port}"
        async with Simulator() as good:
            pair = [backend("dead", dead), backend("good", good.url, priority=1)]
            models = [{"name": "down", "backends": [backend("dead", dead)]}, {"name": "llama", "backends": pair}]
            retry = {"budget_floor": 2, "budget_percent": 0}
            async with start_gateway_of(models, retry=retry, ejection={"local_failures": 100}) as gateway:
                for _ in range(3):
                    with pytest.raises(grpc.aio.AioRpcError):
                        await gateway.stub.ChatCompletion(request_for("down"))
                served = await gateway.stub.ChatCompletion(request_for("llama"))

    assert served.backend == "good"


async def test_the_status_and_the_log_have_the_model_as_it_is_configured() -> None:
    async with Simulator() as simulator:
        models = [{"name": "llama", "aliases": ["chat"], "backends": [backend("a", simulator.url)]}]
        async with start_gateway_of(models, timeouts={"first_token_ms": 20}) as gateway:
            simulator.script(Behaviour(fault=Fault.STALL))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await gateway.stub.ChatCompletion(request_for("chat"))

    assert failure_of(caught.value).info.metadata["model"] == "llama"
