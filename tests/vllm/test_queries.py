# SPDX-License-Identifier: Apache-2.0
"""What a real vLLM says of its models and of prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_gateway.v1 import llm_service_pb2
from tests.vllm.asking import raw, story

if TYPE_CHECKING:
    from tests.kit.gateway import RunningGateway

pytestmark = pytest.mark.vllm


async def test_the_only_model_is_the_default(gateway: RunningGateway) -> None:
    listed = await gateway.stub.ListModels(llm_service_pb2.ListModelsRequest())

    (model,) = listed.models
    assert model.is_default
    assert model.owned_by == "vllm"
    assert model.context_length > 0


async def test_a_counted_conversation_has_the_tokens_that_are_charged(gateway: RunningGateway) -> None:
    request = story(max_tokens=1)

    counted = await gateway.stub.CountTokens(llm_service_pb2.CountTokensRequest(messages=request.messages))
    answer = await gateway.stub.ChatCompletion(request)

    assert counted.token_count == answer.usage.prompt_tokens


async def test_a_counted_prompt_has_the_tokens_that_are_charged(gateway: RunningGateway, context_length: int) -> None:
    query = llm_service_pb2.CountTokensRequest(prompt="once upon", include_token_ids=True)

    counted = await gateway.stub.CountTokens(query)
    answer = await gateway.stub.Generate(raw("once upon", max_tokens=1))

    assert counted.token_count == len(counted.token_ids) == answer.usage.prompt_tokens
    assert counted.context_length == context_length
