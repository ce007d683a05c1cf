# SPDX-License-Identifier: Apache-2.0
"""What a real vLLM refuses is a typed status, and nothing is delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from llm_gateway.v1 import generation_pb2, llm_service_pb2
from tests.kit.gateway import Failure, failure_of, start_gateway
from tests.vllm.asking import shaped, story, stream_of
from tests.vllm.server import free_port

if TYPE_CHECKING:
    from tests.kit.gateway import RunningGateway

pytestmark = pytest.mark.vllm

TOO_LONG = "word " * 3000
BAD_SCHEMA = generation_pb2.JsonSchema(schema='{"type": "banana"}')


def _unknown_model() -> llm_service_pb2.ChatCompletionRequest:
    request = story(max_tokens=2)
    request.model = "nope"
    return request


def _too_long() -> llm_service_pb2.ChatCompletionRequest:
    request = story(max_tokens=2)
    request.messages[0].content = TOO_LONG
    return request


# name: request, code, reason, fields. The lazy ones come as an event under HTTP 200.
REFUSED: dict[str, tuple[Any, str, str, list[str]]] = {
    "a prompt that is too long": (_too_long(), "INVALID_ARGUMENT", "CONTEXT_LENGTH_EXCEEDED", []),
    "an unknown model": (_unknown_model(), "NOT_FOUND", "MODEL_NOT_FOUND", []),
    "more tokens than the context has": (
        story(max_tokens=1_000_000), "INVALID_ARGUMENT", "INVALID_REQUEST", ["params.max_tokens"]),
    "five stop texts": (story(stop=list("abcde")), "INVALID_ARGUMENT", "INVALID_REQUEST", ["params.stop"]),
    "a bad regex, lazily": (shaped(regex="[0-9"), "INVALID_ARGUMENT", "INVALID_REQUEST", []),
    "a bad schema, lazily": (shaped(json_schema=BAD_SCHEMA), "INVALID_ARGUMENT", "INVALID_REQUEST", []),
    "too many alternatives, lazily": (
        story(logprobs=True, top_logprobs=100), "INVALID_ARGUMENT", "INVALID_REQUEST", ["params.logprobs"]),
    "a biased token that is not there, lazily": (
        story(logit_bias={99_999: 5}), "INVALID_ARGUMENT", "INVALID_REQUEST", ["params.logit_bias"]),
    "an allowed token that is not there, lazily": (
        story(allowed_token_ids=[99_999]), "INVALID_ARGUMENT", "INVALID_REQUEST", ["params.allowed_token_ids"]),
}  # fmt: skip

each_refusal = pytest.mark.parametrize(("request_", "code", "reason", "fields"), REFUSED.values(), ids=REFUSED)


def _told(failure: Failure | None) -> tuple[str, str, list[str]]:
    assert failure is not None
    return failure.code.name, failure.reason, failure.violations


@each_refusal
async def test_a_stream_is_refused_before_anything_is_delivered(
    gateway: RunningGateway, request_: Any, code: str, reason: str, fields: list[str]
) -> None:
    outcome = await stream_of(gateway, request_)

    assert outcome.events == []
    assert (code, reason, fields) == _told(outcome.failure)


@each_refusal
async def test_a_unary_call_is_refused_in_the_same_words(
    gateway: RunningGateway, request_: Any, code: str, reason: str, fields: list[str]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.stub.ChatCompletion(request_)

    assert (code, reason, fields) == _told(failure_of(caught.value))


async def test_a_count_for_an_unknown_model_is_not_found(gateway: RunningGateway) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.stub.CountTokens(llm_service_pb2.CountTokensRequest(model="nope", prompt="x"))

    assert _told(failure_of(caught.value)) == ("NOT_FOUND", "MODEL_NOT_FOUND", [])


async def test_a_vllm_that_is_not_there_is_unavailable() -> None:
    async with start_gateway(f"http://127.0.0.1:{free_port()}", retry={"max_attempts": 1}) as gateway:
        outcome = await stream_of(gateway, _unknown_model())

    assert _told(outcome.failure) == ("UNAVAILABLE", "NO_HEALTHY_BACKEND", [])
