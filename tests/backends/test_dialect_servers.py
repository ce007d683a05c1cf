# SPDX-License-Identifier: Apache-2.0
"""A simulated server of each dialect behind the gateway: its streams, its refusals, its failures."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from llm_gateway.simulator import Behaviour, Fault, Options, Simulator
from llm_gateway.simulator.dialects import DIALECTS
from llm_gateway.v1 import llm_service_pb2 as pb
from llm_gateway.v1.error_pb2 import ErrorReason
from tests.kit.calls import chat_request, read_stream, stream, unary
from tests.kit.gateway import start_gateway_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.kit.gateway import RunningGateway

ARGUMENTS = '{"city":"Köln","days":[1,2]}'


@asynccontextmanager
async def served(
    dialect: str, upstream_model: str = "sim", **options: Any
) -> AsyncIterator[tuple[Simulator, RunningGateway]]:
    """A gateway in front of a simulated server, which it knows by its dialect."""
    async with Simulator(Options(dialect=dialect, **options)) as simulator:
        backend = {"name": "b", "dialect": dialect, "url": simulator.url, "model": upstream_model}
        async with start_gateway_of([{"name": "sim", "backends": [backend]}], retry={"backoff_ms": 0}) as gateway:
            yield simulator, gateway


every_dialect = pytest.mark.parametrize("dialect", DIALECTS)


@every_dialect
async def test_an_answer_is_the_same_whoever_speaks(dialect: str) -> None:
    async with served("vllm") as (_, gateway):
        expected = await stream(gateway, seed=7)
    async with served(dialect) as (_, gateway):
        outcome = await stream(gateway, seed=7)

    assert outcome.failure is None
    assert outcome.text() == expected.text()
    assert outcome.finish() == "STOP"
    assert outcome.completed.usage == expected.completed.usage


@every_dialect
async def test_max_tokens_is_heeded(dialect: str) -> None:
    """Under the one name that each knows: OpenAI refuses the other one, Ollama ignores it."""
    async with served(dialect) as (_, gateway):
        outcome = await stream(gateway, max_tokens=5)

    assert outcome.finish() == "LENGTH"
    assert outcome.completed.usage.completion_tokens == 5
    assert not outcome.completed.usage.estimated


@pytest.mark.parametrize("dialect", [name for name in DIALECTS if name != "ollama"])
async def test_several_choices_end_one_by_one(dialect: str) -> None:
    async with served(dialect) as (_, gateway):
        outcome = await stream(gateway, n=3, max_tokens=6)

    assert [outcome.finish(index) for index in range(3)] == ["LENGTH"] * 3
    assert all(outcome.text(index) for index in range(3))


@every_dialect
async def test_function_calls_arrive_whole_however_they_are_cut(dialect: str) -> None:
    request = chat_request()
    request.tools.add(name="weather")
    async with served(dialect, tool_parser=True) as (simulator, gateway):
        simulator.script(Behaviour(tool_calls=(("weather", ARGUMENTS), ("weather", "{}"))))
        outcome = await read_stream(gateway.stub.ChatCompletionStream(request, timeout=30))

    pieces = [call for delta in outcome.deltas for call in delta.tool_calls]
    assert outcome.finish() == "TOOL_CALLS"
    assert ["".join(piece.arguments for piece in pieces if piece.index == index) for index in (0, 1)] == [
        ARGUMENTS, "{}",
    ]  # fmt: skip
    assert ["".join(piece.name for piece in pieces if piece.index == index) for index in (0, 1)] == ["weather"] * 2
    assert len({piece.id for piece in pieces if piece.id}) == 2


@pytest.mark.parametrize(
    ("dialect", "thought"), [("vllm", "Hm."), ("sglang", "Hm."), ("llamacpp", "Hm."), ("ollama", "Hm."), ("openai", "")]
)
async def test_thoughts_are_told_apart_where_they_are_sent(dialect: str, thought: str) -> None:
    async with served(dialect, reasoning_parser=True) as (simulator, gateway):
        simulator.script(Behaviour(reasoning="Hm.", text="Yes."))
        outcome = await stream(gateway)

    assert "".join(delta.reasoning for delta in outcome.deltas) == thought
    assert outcome.text() == "Yes."


@pytest.mark.parametrize("dialect", ["vllm", "sglang"])
async def test_the_text_that_stopped_an_answer_is_told_by_those_who_know_it(dialect: str) -> None:
    async with served(dialect) as (simulator, gateway):
        simulator.script(Behaviour(text="one two three"))
        outcome = await stream(gateway, stop=[" two"])

    assert outcome.text() == "one"
    assert outcome.deltas[-1].stop_sequence == " two"


async def test_sglang_leaves_the_stop_text_in_under_its_own_name() -> None:
    async with served("sglang") as (simulator, gateway):
        simulator.script(Behaviour(text="one two three"))
        outcome = await stream(gateway, stop=[" two"], include_stop=True)

    assert outcome.text() == "one two"
    assert simulator.requests[0].body["no_stop_trim"] is True


@every_dialect
async def test_a_failure_amid_the_stream_is_no_end_of_it(dialect: str) -> None:
    async with served(dialect) as (simulator, gateway):
        simulator.script(Behaviour(fault=Fault.ERROR_EVENT, after=3))
        outcome = await stream(gateway)

    assert outcome.failure is not None
    assert outcome.failure.reason == "STREAM_INTERRUPTED"
    assert outcome.text()


@every_dialect
async def test_a_failure_before_the_first_token_is_tried_again(dialect: str) -> None:
    async with served(dialect) as (simulator, gateway):
        simulator.script(Behaviour(fault=Fault.ERROR_EVENT, after=0))
        outcome = await stream(gateway)

    assert outcome.failure is None
    assert [ErrorReason.Name(attempt.reason) for attempt in outcome.completed.attempts] == [
        "ERROR_REASON_BACKEND_LOST", "ERROR_REASON_UNSPECIFIED",
    ]  # fmt: skip


@pytest.mark.parametrize("dialect", [name for name in DIALECTS if name != "vllm"])
async def test_what_a_dialect_cannot_do_is_refused_and_nobody_asked(dialect: str) -> None:
    async with served(dialect) as (simulator, gateway):
        failure = await unary(gateway, bad_words=["sea"], truncate_prompt_tokens=4)

    assert failure.reason == "UNSUPPORTED_PARAMETER"
    assert failure.violations == ["params.bad_words", "params.truncate_prompt_tokens"]
    assert simulator.requests == []


@pytest.mark.parametrize(
    ("dialect", "reason"),
    [
        ("vllm", "CONTEXT_LENGTH_EXCEEDED"),
        ("openai", "CONTEXT_LENGTH_EXCEEDED"),
        ("llamacpp", "CONTEXT_LENGTH_EXCEEDED"),
        ("sglang", "INVALID_REQUEST"),  # it says it in its message only
        ("ollama", "INVALID_REQUEST"),
    ],
)
async def test_a_prompt_that_is_too_long_is_told_as_well_as_the_backend_tells_it(dialect: str, reason: str) -> None:
    async with served(dialect, max_model_len=40) as (_, gateway):
        failure = await unary(gateway, "word " * 100)

    assert failure.reason == reason


@every_dialect
async def test_a_model_that_the_backend_does_not_have_is_not_found(dialect: str) -> None:
    async with served(dialect, upstream_model="other") as (_, gateway):
        failure = await unary(gateway)

    assert failure.reason == "MODEL_NOT_FOUND"


@every_dialect
async def test_a_key_that_is_refused_is_the_gateways_matter(dialect: str) -> None:
    async with served(dialect, api_key="sk-1") as (_, gateway):
        failure = await unary(gateway)

    assert failure.reason == "BACKEND_REFUSED"


@pytest.mark.parametrize("dialect", ["vllm", "sglang", "openai"])
async def test_logprobs_arrive_with_as_many_rivals_as_were_asked_for(dialect: str) -> None:
    async with served(dialect) as (_, gateway):
        outcome = await stream(gateway, logprobs=True, top_logprobs=2, max_tokens=4)

    told = [logprob for delta in outcome.deltas for logprob in delta.logprobs.content]
    assert {len(logprob.top_logprobs) for logprob in told} == {2}


async def test_openai_is_asked_for_no_padding() -> None:
    async with served("openai") as (simulator, gateway):
        await stream(gateway)

    assert simulator.requests[0].body["stream_options"] == {"include_usage": True, "include_obfuscation": False}


@pytest.mark.parametrize("dialect", ["vllm", "openai", "sglang", "llamacpp"])
async def test_a_raw_prompt_is_continued(dialect: str) -> None:
    request = pb.GenerateRequest(prompt="Once", raw=True)
    request.params.max_tokens = 5
    async with served(dialect) as (simulator, gateway):
        answer = await gateway.stub.Generate(request, timeout=30)

    assert answer.text
    assert answer.usage.completion_tokens == 5
    assert simulator.requests[0].path == "/v1/completions"
