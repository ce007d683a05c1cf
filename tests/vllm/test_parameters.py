# SPDX-License-Identifier: Apache-2.0
"""Every field of GenerationParams is one that the real vLLM knows, by the name and the type that the gateway sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llm_gateway.v1 import generation_pb2
from tests.vllm.asking import raw, story, stream_of

if TYPE_CHECKING:
    from tests.kit.gateway import RunningGateway

pytestmark = pytest.mark.vllm

# One value for each field, and what it needs beside it.
VALUES: dict[str, dict[str, Any]] = {
    "max_tokens": {"max_tokens": 3},
    "min_tokens": {"min_tokens": 2},
    "temperature": {"temperature": 0.7},
    "top_p": {"top_p": 0.9},
    "top_k": {"top_k": 20},
    "min_p": {"min_p": 0.05},
    "presence_penalty": {"presence_penalty": 0.5},
    "frequency_penalty": {"frequency_penalty": -0.5},
    "repetition_penalty": {"repetition_penalty": 1.1},
    "seed": {"seed": 9_007_199_254_740_993},
    "n": {"n": 2, "temperature": 1.0},
    "stop": {"stop": [" the"]},
    "stop_token_ids": {"stop_token_ids": [300]},
    "include_stop": {"include_stop": True, "stop": [" the"]},
    "ignore_eos": {"ignore_eos": True},
    "logit_bias": {"logit_bias": {300: -100.0}},
    "logprobs": {"logprobs": True},
    "top_logprobs": {"logprobs": True, "top_logprobs": 2},
    "time_limit": {"time_limit": {"seconds": 60}},
    "bad_words": {"bad_words": [" the"]},
    "allowed_token_ids": {"allowed_token_ids": [300, 301, 302]},
    "logprob_token_ids": {"logprobs": True, "logprob_token_ids": [300, 301]},
    "skip_special_tokens": {"skip_special_tokens": False},
    "spaces_between_special_tokens": {"spaces_between_special_tokens": False},
    "truncate_prompt_tokens": {"truncate_prompt_tokens": 8},
    "truncation_side": {"truncate_prompt_tokens": 8, "truncation_side": "TRUNCATION_SIDE_LEFT"},
    "use_beam_search": {"use_beam_search": True, "n": 2, "max_tokens": 3},
    "length_penalty": {"use_beam_search": True, "length_penalty": 0.8, "max_tokens": 3},
    "watermarking": {"watermarking": False},
    "repetition_detection": {"repetition_detection": {"max_pattern_size": 4, "min_count": 3}},
}
BEAMS = {"use_beam_search", "length_penalty"}
STREAMED = [name for name in VALUES if name not in BEAMS]


def _params(name: str) -> dict[str, Any]:
    return {"max_tokens": 4} | VALUES[name]


def test_every_field_has_a_value() -> None:
    assert set(VALUES) == set(generation_pb2.GenerationParams.DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize("name", STREAMED)
async def test_vllm_takes_the_field_in_a_chat(gateway: RunningGateway, name: str) -> None:
    outcome = await stream_of(gateway, story(**_params(name)))

    assert outcome.failure is None


@pytest.mark.parametrize("name", STREAMED)
async def test_vllm_takes_the_field_with_a_raw_prompt(gateway: RunningGateway, name: str) -> None:
    outcome = await stream_of(gateway, raw("once upon a time there was a cat", **_params(name)))

    assert outcome.failure is None


@pytest.mark.parametrize("name", sorted(BEAMS))
async def test_vllm_searches_with_beams(gateway: RunningGateway, name: str) -> None:
    answer = await gateway.stub.ChatCompletion(story(**_params(name)))

    assert answer.choices[0].message.content != ""


async def test_beams_do_not_stream(gateway: RunningGateway) -> None:
    outcome = await stream_of(gateway, story(**_params("use_beam_search")))

    assert outcome.failure is not None
    assert outcome.failure.reason == "UNSUPPORTED_PARAMETER"
