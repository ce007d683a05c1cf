# SPDX-License-Identifier: Apache-2.0
"""The errors of the contract: each reason has one code and its details, whatever raised it, and all of it is small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2

from llm_gateway import errors as e
from llm_gateway.generation import Attempt, AttemptOutcome, Usage
from llm_gateway.interceptors.errors import CODES, status_of
from llm_gateway.observability.call import Call
from llm_gateway.v1 import error_pb2, message_pb2
from llm_gateway.v1 import llm_service_pb2 as pb
from tests.kit.calls import chat_request
from tests.kit.gateway import Failure, failure_of, start_gateway
from tests.kit.scripted import STREAM_HEAD, Pause, ScriptedBackend, chunk, json_response

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from google.protobuf.message import Message

    from tests.kit.gateway import RunningGateway
    from tests.kit.scripted import Step

# The design's table, and AdminService's own: reason, code, and whether the caller is told how long to wait.
TABLE = [
    ("INVALID_REQUEST", "INVALID_ARGUMENT", False),
    ("CONTEXT_LENGTH_EXCEEDED", "INVALID_ARGUMENT", False),
    ("UNSUPPORTED_PARAMETER", "INVALID_ARGUMENT", False),
    ("MESSAGE_TOO_LARGE", "RESOURCE_EXHAUSTED", False),
    ("MODEL_NOT_FOUND", "NOT_FOUND", False),
    ("CALL_NOT_FOUND", "NOT_FOUND", False),
    ("UNAUTHENTICATED", "UNAUTHENTICATED", False),
    ("PERMISSION_DENIED", "PERMISSION_DENIED", False),
    ("RATE_LIMITED", "RESOURCE_EXHAUSTED", True),
    ("QUEUE_FULL", "RESOURCE_EXHAUSTED", True),
    ("QUEUE_TIMEOUT", "RESOURCE_EXHAUSTED", True),
    ("DEADLINE_TOO_SHORT", "RESOURCE_EXHAUSTED", True),
    ("DRAINING", "UNAVAILABLE", True),
    ("NO_HEALTHY_BACKEND", "UNAVAILABLE", True),
    ("MODEL_LOADING", "UNAVAILABLE", True),
    ("BACKEND_RATE_LIMITED", "RESOURCE_EXHAUSTED", True),
    ("BACKEND_OVERLOADED", "UNAVAILABLE", True),
    ("FIRST_TOKEN_TIMEOUT", "UNAVAILABLE", False),
    ("BACKEND_LOST", "UNAVAILABLE", False),
    ("STREAM_INTERRUPTED", "ABORTED", False),
    ("STREAM_STALLED", "ABORTED", False),
    ("BACKEND_ABORTED", "ABORTED", False),
    ("BACKEND_PROTOCOL_ERROR", "INTERNAL", False),
    ("STREAM_CORRUPTED", "ABORTED", False),
    ("SLOW_CALLER", "ABORTED", False),
    ("DRAIN_EXPIRED", "ABORTED", False),
    ("CANCELLED_BY_OPERATOR", "ABORTED", False),
    ("BACKEND_REFUSED", "INTERNAL", False),
    ("CONTENT_REFUSED", "FAILED_PRECONDITION", False),
    ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", False),
    ("INTERNAL", "INTERNAL", False),
]
LIMIT = 2048


def descendants(kind: type[e.GatewayError]) -> Iterator[type[e.GatewayError]]:
    for child in kind.__subclasses__():
        yield child
        yield from descendants(child)


RAISED = [kind for kind in descendants(e.GatewayError) if "reason" in vars(kind) or kind is e.BackendGaveUp]


def new_call(**fields: Any) -> Call:
    """A call of which nothing is known yet but its id."""
    call = Call("r-1", "ChatCompletionStream", deadline=0.0, timeout=1.0)
    for name, value in fields.items():
        setattr(call, name, value)
    return call


def details_of(error: e.GatewayError, call: Call) -> set[str]:
    return {detail.TypeName() for detail in status_of(error, call).details}


@pytest.mark.parametrize(("reason", "code", "waits"), TABLE, ids=[row[0] for row in TABLE])
def test_a_reason_has_the_code_and_the_wait_of_the_design(reason: str, code: str, waits: bool) -> None:
    kinds = [kind for kind in CODES if kind.reason == reason]

    assert kinds
    assert {CODES[kind].name for kind in kinds} == {code}
    for kind in kinds:
        assert ("google.rpc.RetryInfo" in details_of(kind("A sentence."), new_call())) == waits


def test_the_reasons_of_the_proto_of_the_design_and_of_the_errors_are_the_same() -> None:
    proto = {name.removeprefix("ERROR_REASON_") for name in error_pb2.ErrorReason.keys()} - {"UNSPECIFIED"}  # noqa: SIM118 - an enum is no dict

    assert proto == {row[0] for row in TABLE}
    assert proto == {kind.reason for kind in RAISED}


def test_every_error_that_can_be_raised_has_a_code_and_no_other_class_has() -> None:
    assert set(CODES) == set(RAISED)


def test_a_wait_that_a_backend_asked_for_is_passed_on() -> None:
    status = status_of(e.BackendOverloaded("Busy.", retry_after=2.5), new_call())

    info = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    assert info.retry_delay.ToMilliseconds() == 2500


def test_before_admission_there_is_no_report() -> None:
    assert details_of(e.Draining("Going."), new_call()) == {"google.rpc.ErrorInfo", "google.rpc.RetryInfo"}


@pytest.mark.parametrize("letter", ["m", "🌍"])
def test_the_details_of_the_worst_error_stay_small(letter: str) -> None:
    call = new_call(
        request_id="r" * 64,
        model=letter * 100_000,  # a backend's word is checked by nobody
        backend="b" * 64,
        admitted=True,
        usage=Usage(prompt_tokens=2**31, completion_tokens=2**30, cached_prompt_tokens=1, reasoning_tokens=2**30),
        attempts=[Attempt("b" * 64, AttemptOutcome.FAILED, "BACKEND_OVERLOADED", 1234.56789)] * 10,
    )

    assert status_of(e.BackendOverloaded("The backend is overloaded.", retry_after=3599.999), call).ByteSize() < LIMIT


def size_of(trailers: dict[str, str | bytes]) -> int:
    return sum(len(key) + len(value if isinstance(value, bytes) else value.encode()) for key, value in trailers.items())


async def refusal(gateway: RunningGateway, request: pb.ChatCompletionRequest) -> Failure:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.stub.ChatCompletion(request, timeout=30)
    return failure_of(caught.value)


async def test_hundreds_of_wrong_fields_with_the_longest_names_fit_into_two_kilobytes(gateway: RunningGateway) -> None:
    wrong = message_pb2.Message(role=9, content_parts=[message_pb2.ContentPart()] * 5, tool_call_id="x")  # type: ignore[arg-type]
    image = message_pb2.ContentPart(image_url=message_pb2.ImageUrl(url="x", detail="y"))
    request = pb.ChatCompletionRequest(
        model="ü" * 200,
        messages=[message_pb2.Message(role=message_pb2.ROLE_USER, content_parts=[image] * 300), *[wrong] * 300],
        tools=[message_pb2.Tool(name="ü" * 256)] * 300,
        metadata={"ü" * 128: "v" * 300},
    )
    metadata = (("x-request-id", "r" * 64),)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.stub.ChatCompletion(request, timeout=30, metadata=metadata)

    failure = failure_of(caught.value)
    assert len(failure.violations) >= 5
    assert size_of(failure.trailers) + len(failure.message.encode()) < LIMIT


async def test_an_extension_with_the_longest_name_fits_into_two_kilobytes(gateway: RunningGateway) -> None:
    request = chat_request()
    request.backend_extensions["🌍" * 10_000] = 1

    failure = await refusal(gateway, request)

    assert failure.reason == "UNSUPPORTED_PARAMETER"
    assert size_of(failure.trailers) + len(failure.message.encode()) < LIMIT


async def test_over_the_limit_of_calls_the_quota_and_the_wait_are_told() -> None:
    script: Sequence[Step] = [STREAM_HEAD, chunk("Hi"), Pause()]
    limit = {"max_in_flight": 1, "max_queued": 0}
    async with ScriptedBackend(script) as backend, start_gateway(backend.url, admission=limit) as gateway:
        holder = gateway.stub.ChatCompletionStream(chat_request(), timeout=30)
        await holder.read()
        request = chat_request()
        request.model = "tiny"
        failure = await refusal(gateway, request)
        holder.cancel()
        await backend.left.wait()

    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    assert failure.details.keys() == {"google.rpc.ErrorInfo", "google.rpc.RetryInfo", "google.rpc.QuotaFailure"}
    assert "grpc-retry-pushback-ms" not in failure.trailers
    assert failure.info.metadata["model"] == "tiny"


@pytest.mark.parametrize(
    ("rpc", "request_"),
    [
        ("ChatCompletion", pb.ChatCompletionRequest(model="asked")),
        ("Generate", pb.GenerateRequest(model="asked")),
        ("CountTokens", pb.CountTokensRequest(model="asked")),
    ],
    ids=["ChatCompletion", "Generate", "CountTokens"],
)
async def test_a_refused_request_says_which_model_it_asked_for(
    gateway: RunningGateway, rpc: str, request_: Message
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(gateway.stub, rpc)(request_)

    failure = failure_of(caught.value)
    assert (failure.reason, failure.info.metadata["model"]) == ("INVALID_REQUEST", "asked")


async def test_what_a_backend_says_is_in_no_error() -> None:
    said = "your prompt 'hello' with key sk-123"
    body = {"error": {"message": said, "type": said, "param": said, "code": said}, "detail": said}
    script = [json_response("400 Bad Request", body)]
    async with ScriptedBackend(script) as backend, start_gateway(backend.url) as gateway:
        failure = await refusal(gateway, chat_request())

    shown = failure.message + "".join(str(detail) for detail in failure.details.values())
    assert failure.reason == "INVALID_REQUEST"
    assert "sk-123" not in shown + repr(failure.trailers)
    assert "hello" not in shown + repr(failure.trailers)
