# SPDX-License-Identifier: Apache-2.0
"""What vLLM 0.32 refuses, in its words: probed on a real one, beyond what is recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_gateway.simulator import Options, Simulator
from tests.simulator import asking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(Options(version="0.32.0")) as started:
        yield started


async def test_several_problems_are_told_in_the_order_of_the_fields(simulator: Simulator) -> None:
    fields = {"n": 1.5, "stream": "maybe", "seed": "x", "top_k": "a", "stop": 3, "logit_bias": 3}

    answer = await asking.answer(simulator, asking.chat() | fields)

    lines = [line.strip() for line in answer["error"]["message"].splitlines()]
    assert lines == [
        "7 validation errors:",
        "{'type': 'dict_type', 'loc': 'body.logit_bias', 'msg': 'Input should be a valid dictionary', 'input': '3'}",
        "{'type': 'int_from_float', 'loc': 'body.n', 'msg': "
        "'Input should be a valid integer, got a number with a fractional part', 'input': '1.5'}",
        "{'type': 'int_parsing', 'loc': 'body.seed', 'msg': "
        "'Input should be a valid integer, unable to parse string as an integer', 'input': 'x'}",
        "{'type': 'string_type', 'loc': 'body.stop', 'msg': 'Input should be a valid string', 'input': '3'}",
        "{'type': 'list_type', 'loc': 'body.stop', 'msg': 'Input should be a valid list', 'input': '3'}",
        "{'type': 'bool_parsing', 'loc': 'body.stream', 'msg': "
        "'Input should be a valid boolean, unable to interpret input', 'input': 'maybe'}",
        "{'type': 'int_parsing', 'loc': 'body.top_k', 'msg': "
        "'Input should be a valid integer, unable to parse string as an integer', 'input': 'a'}",
    ]
    assert answer["error"]["param"] == "body.logit_bias"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"presence_penalty": 3}, "presence_penalty must be in [-2, 2], got 3.0."),
        ({"repetition_penalty": 0}, "repetition_penalty must be greater than zero, got 0.0."),
        ({"min_p": 2}, "min_p must be in [0, 1], got 2.0."),
        ({"top_k": -3}, "top_k must be 0 (disable), or at least 1, got -3."),
        ({"min_tokens": -1}, "min_tokens must be greater than or equal to 0, got -1."),
        ({"bad_words": [""]}, "bad_words cannot contain an empty string. Got bad_words=['']"),
        (
            {"logit_bias": {"x": 3}},
            "logit_bias contains key(s) that cannot be converted to integer token IDs: ['x'] "
            "(parameter=logit_bias, value=['x'])",
        ),
        (
            {"allowed_token_ids": []},
            "allowed_token_ids is not None and empty! (parameter=allowed_token_ids, value=[])",
        ),
        (
            {"continue_final_message": True, "add_generation_prompt": True},
            "Cannot set both `continue_final_message` and `add_generation_prompt` to True.",
        ),
        (
            {"tools": []},
            "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely. "
            "(parameter=tools)",
        ),
        (
            {"tools": [asking.TOOL], "tool_choice": "banana"},
            'Invalid value for `tool_choice`: banana! Only named tools, "none", "auto" or "required" are supported. '
            "(parameter=tool_choice)",
        ),
        (
            {"tools": [asking.TOOL], "tool_choice": {"function": {}}},
            "Expected field `name` in `function` in `tool_choice`! Correct usage: "
            '`{"type": "function", "function": {"name": "my_function"}}` (parameter=tool_choice.function.name)',
        ),
        ({"prompt_logprobs": "x"}, "`prompt_logprobs` must be an integer. (parameter=prompt_logprobs, value=x)"),
        (
            {"stream": True, "prompt_logprobs": 1},
            "`prompt_logprobs` are not available when `stream=True`. (parameter=prompt_logprobs)",
        ),
        (
            {"response_format": {"type": "json_schema"}},
            "When response_format type is 'json_schema', the 'json_schema' field must be provided. "
            "(parameter=response_format)",
        ),
        (
            {"structured_outputs": {"regex": "a", "choice": ["x"]}},
            "You can only use one kind of constraints for structured outputs ('json', 'regex' or 'choice').",
        ),
        (
            {"max_completion_tokens": 9999},
            "max_completion_tokens=9999 cannot be greater than max_model_len=2048. Please request fewer output tokens. "
            "(parameter=max_completion_tokens, value=9999)",
        ),
    ],
)
async def test_a_value_is_refused_in_the_words_of_vllm(
    simulator: Simulator, fields: dict[str, object], message: str
) -> None:
    answer = await asking.answer(simulator, asking.chat() | fields)

    assert message == answer["error"]["message"]
    assert answer["error"]["type"] == "BadRequestError"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stream_options": 3, "stream": True}, "body.stream_options"),
        ({"stream_options": {"include_usage": "x"}, "stream": True}, "body.stream_options.include_usage"),
        ({"tools": [{"type": "function"}], "tool_choice": "none"}, "body.tools.0.function"),
        ({"stop_token_ids": ["a"]}, "body.stop_token_ids.0"),
        ({"temperature": []}, "body.temperature"),
        ({"user": 5}, "body.user"),
        ({"ignore_eos": None}, "body.ignore_eos"),
        ({"skip_special_tokens": None}, "body.skip_special_tokens"),
        ({"messages": ["hi"]}, "body.messages.0"),
    ],
)
async def test_a_wrong_type_names_its_place(simulator: Simulator, fields: dict[str, object], param: str) -> None:
    answer = await asking.answer(simulator, asking.chat() | fields)

    assert param == answer["error"]["param"]
    assert answer["error"]["type"] == "Bad Request"


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": "0.5"},
        {"temperature": None},
        {"max_tokens": "3"},
        {"max_tokens": 3.0},
        {"n": None},
        {"stream": 0},
        {"structured_outputs": None},
        {"frobnicate": 1},
        {"model": ""},
    ],
)
async def test_what_pydantic_takes_is_taken(simulator: Simulator, fields: dict[str, object]) -> None:
    status, _ = await asking.post(simulator, asking.CHAT, asking.chat() | fields)

    assert status == 200


async def test_the_newer_version_takes_null_for_skip_special_tokens() -> None:
    async with Simulator() as simulator:
        status, _ = await asking.post(simulator, asking.CHAT, asking.chat(skip_special_tokens=None))

    assert status == 200


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/tokenize", {"prompt": ""}, {"count": 0, "max_model_len": 2048, "tokens": [], "token_strs": None}),
        ("/detokenize", {"tokens": [1, 70, 80, 2, 9999]}, {"prompt": "<|im_start|>dn<|im_end|>"}),
    ],
)
async def test_tokens_and_text_are_exchanged(
    simulator: Simulator, path: str, body: dict[str, object], expected: dict[str, object]
) -> None:
    assert expected == await asking.answer(simulator, body, path)


async def test_a_text_longer_than_the_context_is_tokenized_all_the_same(simulator: Simulator) -> None:
    answer = await asking.answer(simulator, {"prompt": "word " * 3000}, "/tokenize")

    assert answer["count"] > answer["max_model_len"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "body.prompt"),
        ("/tokenize", {"prompt": 5}, "body.prompt"),
        ("/detokenize", {}, "body.tokens"),
        ("/detokenize", {"tokens": ["x"]}, "body.tokens.0"),
    ],
)
async def test_a_wrong_token_request_is_refused(
    simulator: Simulator, path: str, body: dict[str, object], param: str
) -> None:
    assert param == (await asking.answer(simulator, body, path))["error"]["param"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"\xff", b'{"detail":"There was an error parsing the body"}'),
        (
            b"nul",
            b"{\"error\":{\"message\":\"1 validation error:\\n  {'type': 'json_invalid', 'loc': 'body.0', "
            b"'msg': 'JSON decode error', 'input': '<dict of 0 items>', 'ctx': {'error': 'Expecting value'}}"
            b'","type":"Bad Request","param":"body.0","code":400}}',
        ),
    ],
)
async def test_what_is_no_json_is_refused(simulator: Simulator, body: bytes, expected: bytes) -> None:
    head = f"POST {asking.CHAT} HTTP/1.1\r\nHost: s\r\nContent-Type: application/json\r\nConnection: close\r\n"

    raw = await asking.exchange(simulator, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    assert raw.startswith(b"HTTP/1.1 400 Bad Request")
    assert expected == raw.partition(b"\r\n\r\n")[2]
