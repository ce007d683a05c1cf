# SPDX-License-Identifier: Apache-2.0
"""What `/v1/completions` says: raw prompts, echo, and a choice for each prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_gateway.simulator import Options, Simulator
from tests.simulator import asking
from tests.simulator.asking import TEXT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(Options()) as started:
        yield started


async def test_sixteen_tokens_are_the_default(simulator: Simulator) -> None:
    answer = await asking.answer(simulator, {"prompt": "once upon"}, TEXT)

    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (5, 16)


async def test_there_is_a_choice_for_each_prompt_and_each_n(simulator: Simulator) -> None:
    body = {"prompt": ["a", "b"], "n": 2, "max_tokens": 2, "stream_options": {"include_usage": True}}

    streamed = await asking.events(simulator, body, TEXT)

    assert [choice["index"] for choice in asking.choices(streamed)] == [0, 1, 2, 3] * 2
    assert streamed[-1]["usage"] == {"prompt_tokens": 2, "total_tokens": 10, "completion_tokens": 8}


async def test_a_prompt_may_be_token_ids(simulator: Simulator) -> None:
    answer = await asking.answer(simulator, {"prompt": [5, 6, 7], "echo": True, "max_tokens": 1}, TEXT)

    assert answer["choices"][0]["text"] == "#$% one"


async def test_an_echo_comes_with_the_first_token(simulator: Simulator) -> None:
    streamed = await asking.events(simulator, {"prompt": "once", "echo": True, "max_tokens": 2}, TEXT)

    assert [choice["text"] for choice in asking.choices(streamed)] == ["once one", " night"]


async def test_an_echo_without_tokens_shows_the_prompt_only(simulator: Simulator) -> None:
    answer = await asking.answer(simulator, {"prompt": "once", "echo": True, "max_tokens": 0}, TEXT)

    assert answer["choices"][0]["text"] == "once"
    assert answer["usage"]["completion_tokens"] == 1


async def test_offsets_of_logprobs_go_on_from_event_to_event(simulator: Simulator) -> None:
    body = {"prompt": "once", "echo": True, "max_tokens": 3, "logprobs": 1}

    streamed = await asking.events(simulator, body, TEXT)

    offsets = [choice["logprobs"]["text_offset"] for choice in asking.choices(streamed)]
    assert offsets == [[0, 2, 3, 4], [8], [14]]
    assert asking.choices(streamed)[0]["logprobs"]["token_logprobs"][0] is None


async def test_token_ids_are_told_once_for_the_prompt(simulator: Simulator) -> None:
    body = {"prompt": [5, 6], "max_tokens": 2, "return_token_ids": True}

    streamed = await asking.events(simulator, body, TEXT)

    assert [choice["prompt_token_ids"] for choice in asking.choices(streamed)] == [[5, 6], None]
    assert [len(choice["token_ids"]) for choice in asking.choices(streamed)] == [1, 1]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)"),
        ({"prompt": []}, "You must pass at least one prompt"),
        ({"prompt": [""]}, "The decoder prompt cannot be empty"),
        ({"prompt": [5, 999]}, "Token id 999 is out of vocabulary"),
        ({"prompt": "a", "suffix": "b"}, "suffix is only supported for models with FIM completion rendering"),
        ({"prompt": "a", "stop": ""}, "stop cannot contain an empty string."),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)"),
        ({"prompt": "a", "logprobs": -2}, "`logprobs` must be a positive value or -1. (parameter=logprobs, value=-2)"),
    ],
)
async def test_a_bad_request_is_refused_in_the_words_of_vllm(
    simulator: Simulator, body: dict[str, object], message: str
) -> None:
    answer = await asking.answer(simulator, body, TEXT)

    assert message == answer["error"]["message"]
    assert answer["error"]["code"] == 400
