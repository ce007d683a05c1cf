# SPDX-License-Identifier: Apache-2.0
"""What a caller sees when all goes well: the six RPCs, and each kind of piece that an answer may have."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from google.protobuf.duration_pb2 import Duration

from llm_gateway.simulator import Behaviour, Options, Simulator
from llm_gateway.v1 import generation_pb2, llm_service_pb2, message_pb2, outcome_pb2
from tests.kit.calls import chat_request, read_stream, stream
from tests.kit.gateway import start_gateway
from tests.kit.scripted import DONE, STREAM_HEAD, Close, Hold, ScriptedBackend, chunk, usage

if TYPE_CHECKING:
    from tests.kit.gateway import RunningGateway
    from tests.kit.scripted import Step

LENGTH = outcome_pb2.FINISH_REASON_LENGTH
STOP = outcome_pb2.FINISH_REASON_STOP
WEATHER = message_pb2.Tool(name="get_weather", parameters='{"type":"object"}')


async def test_a_stream_starts_then_brings_the_text_then_completes(gateway: RunningGateway) -> None:
    outcome = await stream(gateway, max_tokens=5)

    assert outcome.failure is None
    assert outcome.text() == " one night a small star"
    assert outcome.finish() == "LENGTH"
    assert outcome.completed.usage.completion_tokens == 5


async def test_started_says_who_answers(gateway: RunningGateway) -> None:
    outcome = await stream(gateway, max_tokens=1)

    assert (outcome.started.model, outcome.started.backend, outcome.started.attempt) == ("sim", "vllm", 1)
    assert outcome.started.request_id == outcome.trailers["x-request-id"] == outcome.initial_metadata["x-request-id"]


async def test_completed_says_where_the_time_went(gateway: RunningGateway) -> None:
    timing = (await stream(gateway, max_tokens=20)).completed.timing

    parts = (timing.queue, timing.upstream, timing.client_stall, timing.gateway_overhead)
    total = timing.total.ToTimedelta()
    assert sum((part.ToTimedelta() for part in parts), start=total - total) <= total
    assert timing.time_to_first_token.ToTimedelta() <= total
    assert timing.inter_token_p50.ToTimedelta() <= timing.inter_token_p95.ToTimedelta()
    assert timing.inter_token_p95.ToTimedelta() <= timing.inter_token_max.ToTimedelta() <= total


async def test_the_unary_rpc_gives_the_same_answer_whole(gateway: RunningGateway) -> None:
    answer = await gateway.stub.ChatCompletion(chat_request(max_tokens=5))

    [choice] = answer.choices
    assert (choice.index, choice.message.content, choice.finish_reason) == (0, " one night a small star", LENGTH)
    assert choice.message.role == message_pb2.ROLE_ASSISTANT
    assert (answer.model, answer.backend, answer.usage.completion_tokens) == ("sim", "vllm", 5)
    assert [attempt.outcome for attempt in answer.attempts] == [outcome_pb2.Attempt.OUTCOME_SERVED]


@pytest.mark.parametrize("raw", [False, True], ids=["through the template", "raw"])
async def test_a_prompt_is_continued_whole_and_as_a_stream(gateway: RunningGateway, raw: bool) -> None:
    request = llm_service_pb2.GenerateRequest(
        prompt="once", raw=raw, params=generation_pb2.GenerationParams(max_tokens=3, seed=1)
    )

    whole = await gateway.stub.Generate(request)
    streamed = await read_stream(gateway.stub.StreamGenerate(request))

    assert whole.text == streamed.text() != ""
    assert whole.finish_reason == LENGTH
    assert streamed.finish() == "LENGTH"
    assert [choice.message.content for choice in whole.choices] == [whole.text]


async def test_a_system_text_goes_before_the_prompt(simulator: Simulator, gateway: RunningGateway) -> None:
    await gateway.stub.Generate(llm_service_pb2.GenerateRequest(prompt="hi", system="Be brief."))

    assert simulator.requests[-1].body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
    ]


async def test_several_choices_come_interleaved_and_each_has_its_end(gateway: RunningGateway) -> None:
    outcome = await stream(gateway, n=3, max_tokens=4)
    answer = await gateway.stub.ChatCompletion(chat_request(n=3, max_tokens=4))

    assert [outcome.finish(index) for index in range(3)] == ["LENGTH"] * 3
    assert outcome.completed.usage.completion_tokens == 12
    assert [choice.index for choice in answer.choices] == [0, 1, 2]


async def test_a_stop_text_ends_the_answer_and_is_named(gateway: RunningGateway) -> None:
    outcome = await stream(gateway, stop=[" small"], max_tokens=50)
    included = await stream(gateway, stop=[" small"], include_stop=True, max_tokens=50)

    last = outcome.deltas[-1]
    assert (outcome.text(), outcome.finish(), last.stop_sequence) == (" one night a", "STOP", " small")
    assert included.text() == " one night a small"


async def test_logprobs_come_with_their_tokens(gateway: RunningGateway) -> None:
    outcome = await stream(gateway, max_tokens=4, logprobs=True, top_logprobs=2)
    answer = await gateway.stub.ChatCompletion(chat_request(max_tokens=4, logprobs=True, top_logprobs=2))

    streamed = [token for delta in outcome.deltas for token in delta.logprobs.content]
    assert "".join(token.token for token in streamed) == outcome.text()
    assert [len(token.top_logprobs) for token in streamed] == [2] * 4
    assert [token.token for token in answer.choices[0].logprobs.content] == [token.token for token in streamed]
    assert sum(delta.token_count for delta in outcome.deltas) == 4


async def test_token_ids_come_where_they_are_asked_for(gateway: RunningGateway) -> None:
    request = chat_request(max_tokens=4)
    without = await read_stream(gateway.stub.ChatCompletionStream(request))
    request.stream_options.include_token_ids = True
    outcome = await read_stream(gateway.stub.ChatCompletionStream(request))
    answer = await gateway.stub.ChatCompletion(request)

    streamed = [token for delta in outcome.deltas for token in delta.token_ids]
    assert len(streamed) == 4
    assert list(answer.choices[0].token_ids) == streamed
    assert not any(delta.token_ids or delta.HasField("token_count") for delta in without.deltas)


async def test_function_calls_come_in_pieces_and_whole() -> None:
    calls = (("get_weather", '{"city": "Rome"}'), ("get_weather", '{"city": "Oslo"}'))
    async with Simulator(Options(tool_parser=True)) as simulator, start_gateway(simulator.url) as gateway:
        request = chat_request()
        request.tools.append(WEATHER)
        simulator.script(Behaviour(tool_calls=calls), Behaviour(tool_calls=calls))
        outcome = await read_stream(gateway.stub.ChatCompletionStream(request))
        answer = await gateway.stub.ChatCompletion(request)

    [choice] = answer.choices
    assert [(call.name, call.arguments) for call in choice.message.tool_calls] == list(calls)
    assert not choice.message.HasField("content")
    assert outcome.finish() == "TOOL_CALLS"
    streamed = [""] * 2
    for piece in (piece for delta in outcome.deltas for piece in delta.tool_calls):
        streamed[piece.index] += piece.arguments
    assert [json.loads(arguments) for arguments in streamed] == [{"city": "Rome"}, {"city": "Oslo"}]


async def test_reasoning_comes_apart_from_the_text() -> None:
    async with Simulator(Options(reasoning_parser=True)) as simulator, start_gateway(simulator.url) as gateway:
        simulator.script(*[Behaviour(reasoning="let me see", text=" yes")] * 2)
        outcome = await stream(gateway)
        answer = await gateway.stub.ChatCompletion(chat_request())

    assert "".join(delta.reasoning for delta in outcome.deltas) == "let me see"
    assert outcome.text() == " yes"
    assert outcome.completed.usage.reasoning_tokens > 0
    assert (answer.choices[0].message.reasoning, answer.choices[0].message.content) == ("let me see", " yes")


async def test_a_schema_shapes_the_answer(gateway: RunningGateway) -> None:
    request = chat_request(max_tokens=100)
    request.structured_output.json_schema.schema = json.dumps(
        {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}
    )

    answer = await gateway.stub.ChatCompletion(request)

    assert isinstance(json.loads(answer.choices[0].message.content)["ok"], bool)


# ------------------------------------------------------------------------------- larger pieces, on the caller's wish


async def paced_stream(texts: list[str], options: generation_pb2.StreamOptions) -> list[str]:
    """The deltas with text of an answer that comes one piece after another, read while they come."""
    gate = asyncio.Event()
    steps: list[Step] = [STREAM_HEAD, chunk(texts[0]), Hold(gate), *map(chunk, texts[1:])]
    steps += [chunk(finish="stop"), usage(1, len(texts)), DONE, Close]
    async with ScriptedBackend(steps) as backend, start_gateway(backend.url, default_model="tiny") as gateway:
        request = chat_request()
        request.stream_options.CopyFrom(options)
        call = gateway.stub.ChatCompletionStream(request)
        events = aiter(call)
        seen = [await anext(events), await anext(events)]
        gate.set()
        outcome = await read_stream(call, seen, events)

    with_text = [delta.text for delta in outcome.deltas if delta.text]
    assert outcome.failure is None
    assert outcome.finish() == "STOP"
    assert len(with_text) + outcome.completed.merged_deltas == len(texts)
    return with_text


async def test_an_interval_between_deltas_merges_what_comes_meanwhile_but_never_the_first() -> None:
    options = generation_pb2.StreamOptions(min_flush_interval=Duration(seconds=10))

    assert await paced_stream(["a", "b", "c", "d"], options) == ["a", "bcd"]


async def test_the_most_bytes_that_may_wait_bound_the_merging() -> None:
    options = generation_pb2.StreamOptions(min_flush_interval=Duration(seconds=10), max_merge_bytes=1)

    deltas = await paced_stream(["a", *["bb"] * 5], options)

    assert "".join(deltas) == "a" + "bb" * 5


async def test_what_an_interval_holds_back_leaves_when_it_is_over_although_nothing_more_comes() -> None:
    gate = asyncio.Event()
    script: list[Step] = [STREAM_HEAD, chunk("a"), chunk("b"), Hold(gate), chunk("c", finish="stop"), DONE, Close]
    async with ScriptedBackend(script) as backend, start_gateway(backend.url, default_model="tiny") as gateway:
        request = chat_request()
        request.stream_options.min_flush_interval.FromMilliseconds(2)
        call = gateway.stub.ChatCompletionStream(request)
        events = aiter(call)
        seen = [await anext(events) for _ in range(3)]
        gate.set()
        outcome = await read_stream(call, seen, events)

    assert [event.delta.text for event in seen[1:]] == ["a", "b"]
    assert outcome.text() == "abc"
