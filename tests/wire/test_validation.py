# SPDX-License-Identifier: Apache-2.0
"""A request that makes no sense is refused before any backend hears of it, and every wrong field is named."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict

from llm_gateway.v1 import llm_service_pb2 as pb
from tests.kit.gateway import failure_of, start_gateway
from tests.kit.scripted import ScriptedBackend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from google.protobuf.message import Message

    from tests.kit.gateway import Failure, RunningGateway

Fields = dict[str, Any]

HELLO = [{"role": "ROLE_USER", "content": "hello"}]
TOOL = {"name": "weather"}
CALL = {"id": "1", "name": "f"}
URL = "https://x/y"
DEEP = '{"a":' * 5000 + "1" + "}" * 5000
DEEPER_THAN_ALLOWED = '{"a":' * 101 + "1" + "}" * 101
LONG_SCHEMA = json.dumps({"description": "ü" * 131_072}, ensure_ascii=False)  # 262,144 bytes and the frame
QUARTER_SCHEMA = json.dumps({"description": "x" * 262_000})
SURROGATE = r'{"a": "\ud800"}'


def _user(**fields: Any) -> Fields:
    return {"messages": [{"role": "ROLE_USER"} | fields]}


def _part(**part: Any) -> Fields:
    return _user(content_parts=[part])


def _params(**params: Any) -> Fields:
    return {"params": params}


def _structured(**output: Any) -> Fields:
    return {"structured_output": output}


PARAMS: list[tuple[str, Fields]] = [
    ("max_tokens", {"max_tokens": 0}),
    ("min_tokens", {"min_tokens": 5, "max_tokens": 4}),
    ("temperature", {"temperature": -0.1}),
    ("temperature", {"temperature": 2.1}),
    ("temperature", {"temperature": "NaN"}),
    ("top_p", {"top_p": 0}),
    ("top_p", {"top_p": 1.01}),
    ("top_k", {"top_k": -2}),
    ("min_p", {"min_p": -0.1}),
    ("min_p", {"min_p": 1.1}),
    ("presence_penalty", {"presence_penalty": -2.1}),
    ("presence_penalty", {"presence_penalty": 2.1}),
    ("frequency_penalty", {"frequency_penalty": -2.1}),
    ("frequency_penalty", {"frequency_penalty": 2.1}),
    ("repetition_penalty", {"repetition_penalty": 0}),
    ("repetition_penalty", {"repetition_penalty": "Infinity"}),
    ("length_penalty", {"length_penalty": "-Infinity"}),
    ("n", {"n": 0}),
    ("n", {"n": 129}),
    ("n", {"n": 2, "temperature": 0}),
    ("stop[1]", {"stop": ["a", ""]}),
    ("stop", {"stop": ["a"] * 65}),
    ("stop_token_ids", {"stop_token_ids": [1] * 1025}),
    ("bad_words[0]", {"bad_words": [""]}),
    ("bad_words", {"bad_words": ["a"] * 1025}),
    ("logprob_token_ids", {"logprob_token_ids": [1] * 129, "logprobs": True}),
    ("logprob_token_ids", {"logprob_token_ids": [1]}),
    ("top_logprobs", {"top_logprobs": 1}),
    ("logit_bias", {"logit_bias": {"1": 100.5}}),
    ("logit_bias", {"logit_bias": {str(token): 1.0 for token in range(4_097)}}),
    ("logit_bias", {"logit_bias": {"1": "NaN"}}),
    ("time_limit", {"time_limit": "-1s"}),
    ("time_limit", {"time_limit": "86401s"}),
    ("truncate_prompt_tokens", {"truncate_prompt_tokens": -2}),
    ("truncation_side", {"truncation_side": 9}),
    ("repetition_detection.max_pattern_size", {"repetition_detection": {"min_count": 2}}),
    ("repetition_detection.min_count", {"repetition_detection": {"max_pattern_size": 2, "min_count": 1}}),
    (
        "repetition_detection.min_pattern_size",
        {"repetition_detection": {"max_pattern_size": 2, "min_pattern_size": 3, "min_count": 2}},
    ),
]

SHARED: list[tuple[str, Fields]] = [
    *((f"params.{field}", _params(**params)) for field, params in PARAMS),
    ("model", {"model": ""}),
    ("model", {"model": "m" * 257}),
    ("session_id", {"session_id": "ü" * 129}),
    ("priority", {"priority": 7}),
    ("structured_output.json_schema.schema", _structured(json_schema={})),
    ("structured_output.json_schema.schema", _structured(json_schema={"schema": "{"})),
    ("structured_output.json_schema.schema", _structured(json_schema={"schema": "[]"})),
    ("structured_output.json_schema.schema", _structured(json_schema={"schema": '{"maximum": NaN}'})),
    ("structured_output.json_schema.schema", _structured(json_schema={"schema": SURROGATE})),
    ("structured_output.json_schema.schema", _structured(json_schema={"schema": DEEP})),
    ("structured_output.json_schema.schema", _structured(json_schema={"schema": DEEPER_THAN_ALLOWED})),
    ("structured_output.json_schema.schema", _structured(json_schema={"schema": LONG_SCHEMA})),
    ("structured_output.json_schema.name", _structured(json_schema={"schema": "{}", "name": "a b"})),
    ("structured_output.json_schema.name", _structured(json_schema={"schema": "{}", "name": "a\n"})),
    ("structured_output.json_object", _structured(json_object=False)),
    ("structured_output.regex", _structured(regex="")),
    ("structured_output.choice", _structured(choice={})),
    ("structured_output.choice", _structured(choice={"values": ["a", ""]})),
    ("structured_output.grammar", _structured(grammar="")),
    ("stream_options.max_merge_bytes", {"stream_options": {"max_merge_bytes": 0}}),
    ("stream_options.max_merge_bytes", {"stream_options": {"max_merge_bytes": 1_048_577}}),
    ("stream_options.min_flush_interval", {"stream_options": {"min_flush_interval": "10.1s"}}),
    ("stream_options.min_flush_interval", {"stream_options": {"min_flush_interval": "-0.1s"}}),
]

CHAT: list[tuple[str, Fields]] = [
    *SHARED,
    ("messages", {"messages": []}),
    ("messages", {"messages": HELLO * 65_537}),
    ("messages[0].role", {"messages": [{"content": "hello"}]}),
    ("messages[0].role", {"messages": [{"role": 9, "content": "hello"}]}),
    ("messages[1]", {"messages": [*HELLO, {"role": "ROLE_USER"}]}),
    ("messages[0]", {"messages": [{"role": "ROLE_ASSISTANT"}]}),
    ("messages[0]", _user(content="", content_parts=[{"text": "a"}])),
    ("messages[0].tool_calls", _user(content="a", tool_calls=[{"id": "1", "name": "f"}])),
    ("messages[0].reasoning", _user(content="a", reasoning="hm")),
    ("messages[0].tool_call_id", _user(content="a", tool_call_id="1")),
    ("messages[0].tool_call_id", {"messages": [{"role": "ROLE_TOOL", "content": "a"}]}),
    ("messages[0].tool_calls[0].id", {"messages": [{"role": "ROLE_ASSISTANT", "tool_calls": [{"name": "f"}]}]}),
    ("messages[0].tool_calls[0].name", {"messages": [{"role": "ROLE_ASSISTANT", "tool_calls": [{"id": "f"}]}]}),
    ("messages[0].tool_calls", {"messages": [{"role": "ROLE_ASSISTANT", "tool_calls": [CALL] * 1025}]}),
    ("messages[0].content_parts", _user(content_parts=[{}] * 1025)),
    ("messages", {"messages": [{"role": "ROLE_USER", "content_parts": [{}] * 1024}] * 65}),
    ("messages", {"messages": [{"role": "ROLE_ASSISTANT", "tool_calls": [{}] * 1024}] * 65}),
    ("messages[0].content_parts[0]", _user(content_parts=[{}])),
    ("messages[0].content_parts[0].image_url.url", _part(image_url={"url": "file:///etc/passwd"})),
    ("messages[0].content_parts[0].image_url.detail", _part(image_url={"url": URL, "detail": "huge"})),
    ("messages[0].content_parts[0].input_audio.data", _part(input_audio={"format": "wav"})),
    ("messages[0].content_parts[0].input_audio.format", _part(input_audio={"data": "AAAA"})),
    ("messages[0].content_parts[0].audio_url.url", _part(audio_url={"url": "gopher://x"})),
    ("messages[0].content_parts[0].video_url.url", _part(video_url={})),
    ("tools[0].name", {"tools": [{"name": "a b"}]}),
    ("tools[0].name", {"tools": [{"name": "a" * 65}]}),
    ("tools[1].name", {"tools": [TOOL, TOOL]}),
    ("tools", {"tools": [{"name": f"t{number}"} for number in range(1025)]}),
    ("tools[0].parameters", {"tools": [TOOL | {"parameters": "nope"}]}),
    ("tools[0].parameters", {"tools": [TOOL | {"parameters": '"text"'}]}),
    ("tools[0].parameters", {"tools": [TOOL | {"parameters": SURROGATE}]}),
    ("tools[0].parameters", {"tools": [TOOL | {"parameters": LONG_SCHEMA}]}),
    ("tools[4].parameters", {"tools": [{"name": f"t{i}", "parameters": QUARTER_SCHEMA} for i in range(5)]}),
    ("tool_choice", {"tool_choice": {"mode": "MODE_REQUIRED"}}),
    ("tool_choice", {"tool_choice": {"mode": "MODE_AUTO"}}),
    ("tool_choice.mode", {"tools": [TOOL], "tool_choice": {"mode": 9}}),
    ("tool_choice.function_name", {"tools": [TOOL], "tool_choice": {"function_name": "other"}}),
    ("reasoning.effort", {"reasoning": {"effort": 99}}),
    ("reasoning.thinking_token_budget", {"reasoning": {"thinking_token_budget": -2}}),
    ("cache_salt", {"cache_salt": ""}),
    ("cache_salt", {"cache_salt": "a@b"}),
    ("cache_salt", {"cache_salt": "s" * 129}),
    ("user", {"user": "u" * 257}),
    ("metadata", {"metadata": {f"k{number}": "v" for number in range(17)}}),
    ("metadata", {"metadata": {"k" * 65: "v"}}),
    ("metadata", {"metadata": {"k": "v" * 257}}),
]

GENERATE: list[tuple[str, Fields]] = [
    *SHARED,
    ("prompt", {"prompt": ""}),
    ("system", {"raw": True, "system": "Be brief."}),
]

COUNT: list[tuple[str, Fields]] = [
    ("messages", {}),
    ("messages[0].role", {"messages": [{"content": "hello"}]}),
    ("prompt", {"messages": HELLO, "prompt": "hello"}),
    ("tools", {"prompt": "hello", "tools": [TOOL]}),
    ("tools[0].name", {"messages": HELLO, "tools": [{"name": ""}]}),
    ("model", {"model": "", "prompt": "hello"}),
]


@pytest.fixture
async def backend() -> AsyncIterator[ScriptedBackend]:
    """A backend that nobody should ask."""
    async with ScriptedBackend([]) as running:
        yield running
    assert not running.requests, "the backend was called"


@pytest.fixture
async def gateway(backend: ScriptedBackend) -> AsyncIterator[RunningGateway]:
    async with start_gateway(backend.url) as running:
        yield running


async def refusal(gateway: RunningGateway, method: str, request: Message) -> Failure:
    """How a request is refused."""
    call = getattr(gateway.stub, method)(request, timeout=30)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call if method in {"ChatCompletion", "Generate", "CountTokens"} else await call.read()
    return failure_of(caught.value)


def numbered(rows: list[tuple[str, Fields]]) -> list[Any]:
    return [pytest.param(*row, id=f"{number}-{row[0]}") for number, row in enumerate(rows)]


def assert_names(failure: Failure, field: str) -> None:
    """Refused as invalid because of this field and no other, in a sentence that says so."""
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.reason == "INVALID_REQUEST"
    assert failure.violations == [field]
    assert failure.message.startswith(f"{field}: ")
    assert "grpc-retry-pushback-ms" not in failure.trailers


@pytest.mark.parametrize(("field", "fields"), numbered(CHAT))
async def test_a_wrong_field_of_a_chat_is_named(field: str, fields: Fields, gateway: RunningGateway) -> None:
    request = ParseDict({"messages": HELLO} | fields, pb.ChatCompletionRequest())

    assert_names(await refusal(gateway, "ChatCompletionStream", request), field)


@pytest.mark.parametrize(("field", "fields"), numbered(GENERATE))
async def test_a_wrong_field_of_a_prompt_is_named(field: str, fields: Fields, gateway: RunningGateway) -> None:
    request = ParseDict({"prompt": "hello"} | fields, pb.GenerateRequest())

    assert_names(await refusal(gateway, "Generate", request), field)


@pytest.mark.parametrize(("field", "fields"), numbered(COUNT))
async def test_a_wrong_field_of_a_count_is_named(field: str, fields: Fields, gateway: RunningGateway) -> None:
    assert_names(await refusal(gateway, "CountTokens", ParseDict(fields, pb.CountTokensRequest())), field)


async def test_all_wrong_fields_are_named_at_once(gateway: RunningGateway) -> None:
    request = ParseDict(
        {"messages": [{"content": "a"}], "params": {"temperature": 3, "n": 0}, "user": "u" * 300},
        pb.ChatCompletionRequest(),
    )

    failure = await refusal(gateway, "ChatCompletion", request)

    assert sorted(failure.violations) == ["messages[0].role", "params.n", "params.temperature", "user"]
    assert failure.message.endswith("(and 3 more)")


async def test_of_a_thousand_wrong_fields_ten_are_named_and_all_are_counted(gateway: RunningGateway) -> None:
    request = ParseDict({"messages": [{"content": "a"}] * 1000}, pb.ChatCompletionRequest())

    failure = await refusal(gateway, "ChatCompletion", request)

    assert failure.violations == [f"messages[{index}].role" for index in range(10)]
    assert failure.message.endswith("(and 999 more)")


async def test_beams_in_a_stream_are_refused_as_unsupported(gateway: RunningGateway) -> None:
    request = ParseDict({"prompt": "hello", "params": {"use_beam_search": True}}, pb.GenerateRequest())

    failure = await refusal(gateway, "StreamGenerate", request)

    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNSUPPORTED_PARAMETER")
    assert failure.violations == ["params.use_beam_search"]


@pytest.mark.parametrize(("name", "shown"), [("guided_json", "guided_json"), ("ü" * 100, "ü" * 32)])
async def test_an_extension_that_the_operator_does_not_allow_is_refused(
    name: str, shown: str, gateway: RunningGateway
) -> None:
    request = ParseDict({"messages": HELLO, "backend_extensions": {name: 1}}, pb.ChatCompletionRequest())

    failure = await refusal(gateway, "ChatCompletion", request)

    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNSUPPORTED_PARAMETER")
    assert failure.violations == [f"backend_extensions.{shown}"]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
async def test_an_extension_that_json_cannot_say_is_refused(number: float, gateway: RunningGateway) -> None:
    request = ParseDict({"messages": HELLO}, pb.ChatCompletionRequest())
    request.backend_extensions.update({"vllm_xargs": {"deep": [number]}})

    assert_names(await refusal(gateway, "ChatCompletion", request), "backend_extensions")


async def test_extensions_that_are_too_large_are_refused_unread(gateway: RunningGateway) -> None:
    request = ParseDict({"messages": HELLO}, pb.ChatCompletionRequest())
    request.backend_extensions.update({"vllm_xargs": {"long": "x" * 262_144}})

    assert_names(await refusal(gateway, "ChatCompletion", request), "backend_extensions")


async def test_bytes_that_are_no_request_are_refused(gateway: RunningGateway) -> None:
    method = "/llm_gateway.v1.LLMService/ChatCompletion"
    ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = gateway.channel.unary_unary(method)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(b"\xff\xff\xff", timeout=30)

    failure = failure_of(caught.value)
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert failure.message == "The request is not a llm_gateway.v1.ChatCompletionRequest."


async def test_a_request_above_the_limit_is_refused_with_details(backend: ScriptedBackend) -> None:
    request = pb.GenerateRequest(prompt="a" * 1100)
    async with start_gateway(backend.url, server={"max_message_bytes": 1024}) as gateway:
        failure = await refusal(gateway, "Generate", request)

    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")


async def test_no_value_of_the_request_is_in_the_refusal(gateway: RunningGateway) -> None:
    secret = "my-secret-prompt"
    request = ParseDict(
        {
            "messages": [{"role": 9, "content": secret, "name": secret}],
            "tools": [{"name": f"a {secret}", "parameters": secret}],
            "tool_choice": {"function_name": secret},
            "cache_salt": f"{secret}@",
            "user": secret * 40,
            "metadata": {secret * 8: secret},
            "structured_output": {"json_schema": {"name": f"{secret} ", "schema": secret}},
        },
        pb.ChatCompletionRequest(),
    )

    failure = await refusal(gateway, "ChatCompletion", request)

    assert len(failure.violations) >= 8
    assert secret not in failure.message + json.dumps([str(detail) for detail in failure.details.values()])
