# SPDX-License-Identifier: Apache-2.0
"""Law 6: what failed before the first token is tried again, within bounds, and the attempts tell the story."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import pytest

from llm_gateway.v1 import error_pb2, llm_service_pb2, outcome_pb2
from tests.kit.calls import chat_request, stream
from tests.kit.gateway import failure_of, start_gateway
from tests.kit.scripted import (
    DONE,
    STREAM_HEAD,
    Close,
    Pause,
    Reset,
    ScriptedBackend,
    chunk,
    event,
    json_response,
    usage,
)
from tests.kit.sockets import closed_port

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.kit.scripted import Step

ANSWER: Sequence[Step] = [STREAM_HEAD, chunk("Hi"), chunk(finish="stop"), usage(1, 2), DONE]
ROLE = chunk(role="assistant", content="")


def http(status: str, *headers: str, **error: object) -> Sequence[Step]:
    """A backend that answers with an error."""
    return [json_response(status, {"error": {"message": "no"} | error}, headers)]


TRANSIENT: dict[str, tuple[Sequence[Step], str]] = {
    "reset": ([Reset], "BACKEND_LOST"),
    "closed": ([Close], "BACKEND_LOST"),
    "cut in the head": ([b"HTTP/1.1 200 OK\r\ncontent-ty", Close], "BACKEND_LOST"),
    "cut after the head": ([STREAM_HEAD, Close], "BACKEND_LOST"),
    "reset after the head": ([STREAM_HEAD, ROLE, Reset], "BACKEND_LOST"),
    "done without an end": ([STREAM_HEAD, ROLE, DONE, Close], "BACKEND_LOST"),
    "aborted": ([STREAM_HEAD, ROLE, chunk(finish="abort"), DONE, Close], "BACKEND_LOST"),
    "500": (http("500 Internal Server Error"), "BACKEND_LOST"),
    "502 of a proxy": ([b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 4\r\n\r\n<ht>"], "BACKEND_LOST"),
    "503": (http("503 Service Unavailable", type="Service Unavailable"), "BACKEND_OVERLOADED"),
    "429": (http("429 Too Many Requests"), "BACKEND_RATE_LIMITED"),
    "loading": (http("503 Service Unavailable", type="unavailable_error"), "MODEL_LOADING"),
    "error event 500": (
        [STREAM_HEAD, ROLE, event({"error": {"message": "", "code": 500}}), DONE, Close],
        "BACKEND_LOST",
    ),
    "error event 503": (
        [STREAM_HEAD, event({"error": {"message": "", "code": 503}}), DONE, Close],
        "BACKEND_OVERLOADED",
    ),
}
FINAL: dict[str, tuple[Sequence[Step], str]] = {
    "400": (http("400 Bad Request", type="BadRequestError"), "INVALID_REQUEST"),
    "404": (http("404 Not Found", type="NotFoundError", param="model"), "MODEL_NOT_FOUND"),
    "401": (http("401 Unauthorized"), "BACKEND_REFUSED"),
    "error event 400": ([STREAM_HEAD, event({"error": {"message": "", "code": 400}}), DONE, Close], "INVALID_REQUEST"),
    "garbage event": ([STREAM_HEAD, b"data: {]\n\n", Close], "BACKEND_PROTOCOL_ERROR"),
    "garbage head": ([b"SSH-2.0-OpenSSH\r\n\r\n", Close], "BACKEND_PROTOCOL_ERROR"),
    "a page": (
        [b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\n<>"],
        "BACKEND_PROTOCOL_ERROR",
    ),
    "a spent quota": (http("429 Too Many Requests", code="insufficient_quota"), "BACKEND_RATE_LIMITED"),
    "no first token": ([STREAM_HEAD, ROLE, Pause()], "FIRST_TOKEN_TIMEOUT"),
}


def told(attempts: Iterable[outcome_pb2.Attempt]) -> list[tuple[str, str, str]]:
    """Attempts without their durations: backend, outcome, reason."""
    return [
        (
            attempt.backend,
            outcome_pb2.Attempt.Outcome.Name(attempt.outcome).removeprefix("OUTCOME_"),
            error_pb2.ErrorReason.Name(attempt.reason).removeprefix("ERROR_REASON_"),
        )
        for attempt in attempts
    ]


@pytest.mark.parametrize(("fault", "reason"), TRANSIENT.values(), ids=TRANSIENT)
async def test_a_passing_fault_is_invisible_but_for_the_attempts(fault: Sequence[Step], reason: str) -> None:
    async with ScriptedBackend(fault, fault, ANSWER) as backend, start_gateway(backend.url) as gateway:
        outcome = await stream(gateway)

    assert outcome.failure is None
    assert outcome.text() == "Hi"
    assert outcome.started.attempt == 3
    failed = ("vllm", "FAILED", reason)
    assert told(outcome.completed.attempts) == [failed, failed, ("vllm", "SERVED", "UNSPECIFIED")]


@pytest.mark.parametrize(("fault", "reason"), TRANSIENT.values(), ids=TRANSIENT)
async def test_a_fault_that_stays_ends_the_call_after_the_attempts(fault: Sequence[Step], reason: str) -> None:
    async with (
        ScriptedBackend(fault) as backend,
        start_gateway(backend.url, retry={"max_attempts": 2}) as gateway,
    ):
        outcome = await stream(gateway)

    assert outcome.failure is not None
    assert outcome.failure.reason == reason
    assert told(outcome.failure.report.attempts) == [("vllm", "FAILED", reason)] * 2
    assert outcome.failure.trailers["grpc-retry-pushback-ms"] == "-1"
    assert len(backend.requests) == 2


@pytest.mark.parametrize(("fault", "reason"), FINAL.values(), ids=FINAL)
async def test_what_would_fail_again_is_not_tried_again(fault: Sequence[Step], reason: str) -> None:
    async with (
        ScriptedBackend(fault, ANSWER) as backend,
        start_gateway(backend.url, timeouts={"first_token_ms": 50}) as gateway,
    ):
        outcome = await stream(gateway)

    assert outcome.failure is not None
    assert outcome.failure.reason == reason
    assert told(outcome.failure.report.attempts) == [("vllm", "FAILED", reason)]
    assert len(backend.requests) == 1


@pytest.mark.parametrize("fault", [Reset, Close, b"data: {]\n\n", event({"error": {"code": 503}})], ids=repr)
async def test_nothing_is_tried_again_after_the_first_delta(fault: Step) -> None:
    script = [STREAM_HEAD, chunk("Hi"), fault, Close]
    async with ScriptedBackend(script, ANSWER) as backend, start_gateway(backend.url) as gateway:
        outcome = await stream(gateway)

    assert outcome.failure is not None
    assert outcome.failure.code is grpc.StatusCode.ABORTED
    assert outcome.text() == "Hi"
    assert len(backend.requests) == 1
    assert len(outcome.failure.report.attempts) == 1


async def test_a_backend_that_refuses_connections_is_tried_again_and_then_reported() -> None:
    with closed_port() as port:
        async with start_gateway(f"http://127.0.0.1:{port}", default_model="tiny") as gateway:
            outcome = await stream(gateway)

    assert outcome.failure is not None
    assert (outcome.failure.code, outcome.failure.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_HEALTHY_BACKEND")
    assert told(outcome.failure.report.attempts) == [("vllm", "FAILED", "NO_HEALTHY_BACKEND")] * 3


async def test_without_a_model_a_backend_that_refuses_connections_is_tried_as_often() -> None:
    with closed_port() as port:
        async with start_gateway(f"http://127.0.0.1:{port}") as gateway:
            outcome = await stream(gateway)

    assert outcome.failure is not None
    assert outcome.failure.reason == "NO_HEALTHY_BACKEND"
    assert outcome.failure.info.metadata["backend"] == "vllm"
    assert told(outcome.failure.report.attempts) == [("vllm", "FAILED", "NO_HEALTHY_BACKEND")] * 3
    assert outcome.failure.trailers["grpc-retry-pushback-ms"] == "-1"


async def test_the_unary_call_is_tried_again_too() -> None:
    async with ScriptedBackend([Reset], ANSWER) as backend, start_gateway(backend.url) as gateway:
        response = await gateway.stub.ChatCompletion(chat_request(), timeout=30)

    assert response.choices[0].message.content == "Hi"
    assert [outcome for _, outcome, _ in told(response.attempts)] == ["FAILED", "SERVED"]


async def test_one_attempt_means_no_other() -> None:
    async with (
        ScriptedBackend([Reset], ANSWER) as backend,
        start_gateway(backend.url, retry={"max_attempts": 1}) as gateway,
    ):
        outcome = await stream(gateway)

    assert outcome.failure is not None
    assert outcome.failure.reason == "BACKEND_LOST"
    assert len(backend.requests) == 1


@pytest.mark.parametrize("header", ["retry-after: 0.05", "retry-after-ms: 50"])
async def test_a_backend_that_asks_to_be_left_alone_for_a_moment_is(header: str) -> None:
    busy = http("503 Service Unavailable", header)
    loop = asyncio.get_running_loop()
    async with ScriptedBackend(busy, ANSWER) as backend, start_gateway(backend.url, default_model="m") as gateway:
        began = loop.time()
        outcome = await stream(gateway)
        took = loop.time() - began

    assert outcome.failure is None
    assert took >= 0.05


async def test_a_wait_that_is_longer_than_ours_is_left_to_the_caller() -> None:
    busy = http("429 Too Many Requests", "retry-after: 7")
    async with ScriptedBackend(busy, ANSWER) as backend, start_gateway(backend.url) as gateway:
        outcome = await stream(gateway)

    assert outcome.failure is not None
    assert outcome.failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert outcome.failure.details["google.rpc.RetryInfo"].retry_delay.seconds == 7  # type: ignore[attr-defined]
    assert len(backend.requests) == 1


async def test_no_attempt_is_begun_that_the_deadline_would_end() -> None:
    busy = http("503 Service Unavailable", "retry-after: 30")
    async with (
        ScriptedBackend(busy, ANSWER) as backend,
        start_gateway(backend.url, retry={"max_backoff_ms": 60_000}) as gateway,
    ):
        outcome = await stream(gateway, timeout=20)

    assert outcome.failure is not None
    assert outcome.failure.reason == "BACKEND_OVERLOADED"
    assert len(backend.requests) == 1


async def test_a_connection_that_the_backend_closes_as_it_is_used_again_is_replaced() -> None:
    """The race of a keep-alive: the request goes out as the other side closes."""
    kept = [json_response("200 OK", {"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}],
                                     "usage": {"prompt_tokens": 1, "completion_tokens": 1}})]  # fmt: skip
    async with ScriptedBackend(kept, [Close], kept) as backend, start_gateway(backend.url) as gateway:
        outcomes = [await stream(gateway) for _ in range(2)]

    assert [outcome.failure for outcome in outcomes] == [None, None]
    assert [outcome.text() for outcome in outcomes] == ["Hi", "Hi"]
    assert len(backend.requests) == 3


@pytest.mark.parametrize("fault", [[Close], [Reset], http("503 Service Unavailable")], ids=["fin", "rst", "503"])
async def test_counting_tokens_is_tried_again(fault: Sequence[Step]) -> None:
    counted = [json_response("200 OK", {"count": 2, "tokens": [1, 2], "max_model_len": 9})]
    async with ScriptedBackend(fault, counted) as backend, start_gateway(backend.url) as gateway:
        response = await gateway.stub.CountTokens(llm_service_pb2.CountTokensRequest(prompt="hi"), timeout=30)

    assert response.token_count == 2
    assert len(backend.requests) == 2


async def test_counting_tokens_is_not_tried_for_ever() -> None:
    request = llm_service_pb2.CountTokensRequest(prompt="hi")
    async with ScriptedBackend([Reset]) as backend, start_gateway(backend.url) as gateway:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway.stub.CountTokens(request, timeout=30)

    failure = failure_of(caught.value)
    assert failure.reason == "BACKEND_LOST"
    assert told(failure.report.attempts) == [("vllm", "FAILED", "BACKEND_LOST")] * 3
    assert len(backend.requests) == 3
