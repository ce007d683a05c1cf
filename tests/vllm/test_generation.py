# SPDX-License-Identifier: Apache-2.0
"""Streams and whole answers of a real vLLM."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from llm_gateway.v1 import generation_pb2, llm_service_pb2, outcome_pb2
from tests.vllm.asking import GREEDY, STORY, raw, shaped, story, stream_of

if TYPE_CHECKING:
    from tests.kit.gateway import RunningGateway
    from tests.vllm.server import Vllm

pytestmark = pytest.mark.vllm

SCHEMA = """{"type": "object", "properties": {"ok": {"type": "boolean"}, "colour": {"type": "string",
    "enum": ["red", "blue"]}}, "required": ["ok", "colour"], "additionalProperties": false}"""


async def test_a_stream_brings_tokens_one_by_one_and_completes(gateway: RunningGateway) -> None:
    outcome = await stream_of(gateway, story(max_tokens=32, ignore_eos=True, **GREEDY))

    usage = outcome.completed.usage
    assert outcome.failure is None
    assert outcome.finish() == "LENGTH"
    assert (usage.completion_tokens, usage.estimated) == (32, False)
    assert len(outcome.deltas) + outcome.completed.merged_deltas > 4


async def test_a_whole_answer_is_what_the_stream_says(gateway: RunningGateway) -> None:
    request = story(max_tokens=24, **GREEDY)

    outcome = await stream_of(gateway, request)
    answer = await gateway.stub.ChatCompletion(request)

    assert outcome.text() == answer.choices[0].message.content
    assert outcome.completed.usage.completion_tokens == answer.usage.completion_tokens
    assert outcome.finish() == outcome_pb2.FinishReason.Name(answer.choices[0].finish_reason)[len("FINISH_REASON_") :]


async def test_the_answer_is_what_vllm_says_without_a_gateway(gateway: RunningGateway, vllm: Vllm) -> None:
    ask = {"messages": [{"role": "user", "content": STORY}], "max_tokens": 24, "temperature": 0}
    _, direct = await vllm.post("/v1/chat/completions", ask)

    outcome = await stream_of(gateway, story(max_tokens=24, **GREEDY))

    assert direct["choices"][0]["message"]["content"] == outcome.text()  # type: ignore[index]  # JSON


async def test_an_answer_that_ends_by_itself_says_stop(gateway: RunningGateway) -> None:
    outcome = await stream_of(gateway, story(max_tokens=1500, seed=3))

    assert outcome.finish() == "STOP"
    assert outcome.completed.usage.completion_tokens < 1500


async def test_a_prompt_through_the_template_is_a_chat(gateway: RunningGateway) -> None:
    params = generation_pb2.GenerationParams(max_tokens=16, temperature=0)

    answer = await gateway.stub.Generate(llm_service_pb2.GenerateRequest(prompt=STORY, params=params))
    chat = await gateway.stub.ChatCompletion(story(max_tokens=16, **GREEDY))

    assert chat.choices[0].message.content == answer.text


async def test_a_raw_prompt_streams_the_text_of_the_unary_call(gateway: RunningGateway) -> None:
    request = raw(max_tokens=12, **GREEDY)

    outcome = await stream_of(gateway, request)
    answer = await gateway.stub.Generate(request)

    assert outcome.text() == answer.text != ""


async def test_a_raw_prompt_without_max_tokens_runs_to_the_context(
    gateway: RunningGateway, context_length: int
) -> None:
    outcome = await stream_of(gateway, raw(ignore_eos=True, **GREEDY))

    assert outcome.finish() == "CONTEXT_LENGTH"
    assert outcome.completed.usage.total_tokens == context_length


async def test_a_chat_without_max_tokens_runs_to_the_context(gateway: RunningGateway, context_length: int) -> None:
    outcome = await stream_of(gateway, story(ignore_eos=True, **GREEDY))

    assert outcome.finish() == "CONTEXT_LENGTH"
    assert outcome.completed.usage.total_tokens == context_length


@pytest.mark.parametrize("include", [False, True])
async def test_a_stop_text_ends_the_answer(gateway: RunningGateway, include: bool) -> None:
    request = story(max_tokens=500, ignore_eos=True, seed=7, stop=[" star", " the"], include_stop=include)

    outcome = await stream_of(gateway, request)

    last = outcome.deltas[-1]
    assert outcome.finish() == "STOP"
    assert last.stop_sequence in {" star", " the"}
    assert outcome.text().endswith(last.stop_sequence) is include


async def test_a_stop_token_ends_the_answer(gateway: RunningGateway) -> None:
    first = await gateway.stub.ChatCompletion(_with_token_ids(story(max_tokens=8, ignore_eos=True, **GREEDY)))
    token = first.choices[0].token_ids[5]

    outcome = await stream_of(gateway, story(max_tokens=8, ignore_eos=True, stop_token_ids=[token], **GREEDY))

    assert outcome.finish() == "STOP"
    assert outcome.deltas[-1].stop_token_id == token


async def test_two_choices_are_told_apart_and_both_end(gateway: RunningGateway) -> None:
    outcome = await stream_of(gateway, story(max_tokens=20, n=2, ignore_eos=True, temperature=1.0, seed=5))

    assert [outcome.finish(0), outcome.finish(1)] == ["LENGTH", "LENGTH"]
    assert "" != outcome.text(0) != outcome.text(1) != ""
    assert outcome.completed.usage.completion_tokens == 40


async def test_log_probabilities_come_for_every_token(gateway: RunningGateway) -> None:
    outcome = await stream_of(gateway, story(max_tokens=10, ignore_eos=True, logprobs=True, top_logprobs=3, **GREEDY))

    tokens = [token for delta in outcome.deltas for token in delta.logprobs.content]
    assert len(tokens) == 10
    assert outcome.text() == b"".join(token.bytes for token in tokens).decode()
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 3 for token in tokens)
    assert sum(delta.token_count for delta in outcome.deltas) == 10


async def test_token_ids_come_when_asked_for(gateway: RunningGateway) -> None:
    outcome = await stream_of(gateway, _with_token_ids(story(max_tokens=6, ignore_eos=True, **GREEDY)))

    assert sum(len(delta.token_ids) for delta in outcome.deltas) == 6


async def test_an_answer_follows_its_json_schema(gateway: RunningGateway) -> None:
    outcome = await stream_of(gateway, shaped(json_schema=generation_pb2.JsonSchema(schema=SCHEMA, strict=True)))

    answer = json.loads(outcome.text())
    assert answer.keys() == {"ok", "colour"}
    assert isinstance(answer["ok"], bool)
    assert answer["colour"] in {"red", "blue"}


async def test_an_answer_is_a_json_object(gateway: RunningGateway) -> None:
    request = shaped(json_object=True)
    request.params.seed = 1

    outcome = await stream_of(gateway, request)

    assert isinstance(json.loads(outcome.text()), dict)


async def test_an_answer_matches_its_regular_expression(gateway: RunningGateway) -> None:
    outcome = await stream_of(gateway, shaped(regex="[0-9]{4}-[0-9]{2}"))

    assert re.fullmatch("[0-9]{4}-[0-9]{2}", outcome.text())


async def test_an_answer_is_one_of_its_choices(gateway: RunningGateway) -> None:
    values = ["yes please", "no thanks"]

    outcome = await stream_of(gateway, shaped(choice=generation_pb2.StringChoice(values=values)))

    assert outcome.text() in values


async def test_an_answer_follows_its_grammar(gateway: RunningGateway) -> None:
    outcome = await stream_of(gateway, shaped(grammar='root ::= "left" | "right"'))

    assert outcome.text() in {"left", "right"}


async def test_the_request_id_is_vllms_too(vllm: Vllm, gateway: RunningGateway) -> None:
    outcome = await stream_of(gateway, story(max_tokens=2), metadata=[("x-request-id", "worker-7:42")])

    assert outcome.started.request_id == "worker-7:42"
    assert outcome.trailers["x-request-id"] == "worker-7:42"
    _, direct = await vllm.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}],
                                                        "max_tokens": 1, "request_id": "worker-7:42"})  # fmt: skip
    assert direct["id"] == "chatcmpl-worker-7:42"


def _with_token_ids(request: llm_service_pb2.ChatCompletionRequest) -> llm_service_pb2.ChatCompletionRequest:
    request.stream_options.include_token_ids = True
    return request
