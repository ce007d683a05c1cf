# SPDX-License-Identifier: Apache-2.0
"""Every field of a request in every dialect: what docs/dialects.md says of it is what is sent, or refused."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.json_format import ParseDict

from llm_gateway.backends.dialect import DIALECTS, GENERIC, LLAMACPP, OLLAMA, OPENAI, SGLANG, VLLM
from llm_gateway.backends.openai import OpenAIBackend
from llm_gateway.backends.refusal import refusal_of
from llm_gateway.backends.request import generation_request
from llm_gateway.backends.spelling import grammar_of_choice
from llm_gateway.codec.requests import decode_chat, decode_generate
from llm_gateway.errors import UnsupportedParameter
from llm_gateway.generation import Generation, Message, TokenQuery
from llm_gateway.v1 import llm_service_pb2 as pb
from tests.backends.dialect_rows import (
    CHAT_TABLE,
    LEFT_OUT,
    OTHERS,
    PROMPT_TABLE,
    RAW_TABLE,
    REFUSED,
    expected,
    is_unasked,
    names_in,
)
from tests.backends.request_rows import CHAT, GENERATE, RAW_PROMPT, paths

if TYPE_CHECKING:
    from llm_gateway.backends.dialect import Dialect
    from tests.backends.request_rows import Row

HELLO = {"role": "user", "content": "hello"}
CONTEXT = 99
USAGE = {"include_usage": True}
OPENAI_STREAM = {"include_usage": True, "include_obfuscation": False}
# Known to no dialect but by their own names.
EXTENSIONS = ["vllm_xargs", "echo", "chat_template_kwargs"]
MORE_CHAT: list[Row] = [
    ("params.n", {"params": {"n": 1}}, {"n": 1}),
    ("params.skip_special_tokens", {"params": {"skip_special_tokens": True}}, {"skip_special_tokens": True}),
    ("params.use_beam_search", {"params": {"use_beam_search": True}}, {"use_beam_search": True}),
    ("params.use_beam_search", {"params": {"use_beam_search": False}}, {"use_beam_search": False}),
    ("params.time_limit", {"params": {"time_limit": "10s"}}, {}),
    ("parallel_tool_calls", {"parallel_tool_calls": True}, {"parallel_tool_calls": True}),
    ("reasoning.include", {"reasoning": {"include": True}}, {"include_reasoning": True}),
    ("stream_options.max_merge_bytes", {"stream_options": {"max_merge_bytes": 9}}, {}),
    ("stream_options.min_flush_interval", {"stream_options": {"min_flush_interval": "0.001s"}}, {}),
    ("user", {"user": "ada"}, {}),
    ("metadata", {"metadata": {"team": "blue"}}, {}),
]
MORE_RAW: list[Row] = [
    ("params.use_beam_search", {"params": {"use_beam_search": True}}, {"use_beam_search": True}),
    ("params.n", {"params": {"n": 1}}, {"n": 1}),
]


def chat(fields: dict[str, Any]) -> Generation:
    hello = {"messages": [{"role": "ROLE_USER", "content": "hello"}]}
    return decode_chat(ParseDict(hello | fields, pb.ChatCompletionRequest()), unary=True, extensions=EXTENSIONS)


def prompt(fields: dict[str, Any]) -> Generation:
    return decode_generate(ParseDict({"prompt": "hello"} | fields, pb.GenerateRequest()), unary=True)


def raw(fields: dict[str, Any]) -> Generation:
    """A raw prompt that says how long its answer may be, as some dialects need it."""
    params = {"max_tokens": 7} | fields.get("params", {})
    return prompt(fields | {"raw": True, "params": params})


def body_of(generation: Generation, dialect: Dialect, model: str = "tiny") -> dict[str, Any]:
    body: dict[str, Any] = json.loads(generation_request(generation, model, dialect, None)[1])
    return body


def refused(generation: Generation, dialect: Dialect) -> list[str]:
    """The paths of the fields that a dialect refuses."""
    error = refusal_of(generation, dialect)
    return [] if error is None else [violation.field for violation in error.violations]


def streamed(dialect: Dialect, row: Row) -> dict[str, Any]:
    if row[1].get("params", {}).get("use_beam_search"):
        return {"stream": False}
    return {"stream": True, "stream_options": OPENAI_STREAM if dialect is OPENAI else USAGE}


def cases(rows: list[Row], dialects: tuple[str, ...]) -> list[Any]:
    return [
        pytest.param(name, row, id=f"{name}-{number}-{row[0]}") for name in dialects for number, row in enumerate(rows)
    ]


def check(dialect: str, row: Row, cell: str, generation: Generation, base: dict[str, Any]) -> None:
    """That a row's field is refused by its path, or arrives as the table says, with nothing beside it."""
    path = row[0]
    model = row[1].get("model", "tiny")
    if cell == REFUSED and row[2] and not is_unasked(row):
        fields = refused(generation, DIALECTS[dialect])
        assert any(_is_about(field, path) for field in fields)
        assert all(_is_about(field, path) or field.startswith("params.logprobs") for field in fields)
        return
    assert refused(generation, DIALECTS[dialect]) == []
    body = body_of(generation, DIALECTS[dialect], model)
    sent = expected(dialect, row, cell, raw=generation.prompt is not None)
    assert body == base | streamed(DIALECTS[dialect], row) | sent
    if cell != REFUSED and body != base | streamed(DIALECTS[dialect], row):
        text = json.dumps(body)
        assert [name for name in names_in(cell) if f'"{name}"' not in text] == []


def _is_about(field: str, path: str) -> bool:
    bare = re.sub(r"\[\d+\]", "", field)
    return path.startswith(bare) or bare.startswith(path)


@pytest.mark.parametrize(("dialect", "row"), cases([*CHAT, *MORE_CHAT], ("vllm", *OTHERS)))
def test_a_field_of_a_chat_is_honoured_or_refused_as_the_table_says(dialect: str, row: Row) -> None:
    cell = CHAT_TABLE[row[0]][dialect]

    check(dialect, row, cell, chat(row[1]), {"model": "tiny", "messages": [HELLO]})


@pytest.mark.parametrize(
    ("dialect", "row"), cases([row for row in GENERATE if row[0] in {"prompt", "system"}], ("vllm", *OTHERS))
)
def test_a_prompt_is_a_chat_in_every_dialect(dialect: str, row: Row) -> None:
    cell = PROMPT_TABLE[row[0]][dialect]

    check(dialect, row, cell, prompt(row[1]), {"model": "tiny", "messages": [HELLO]})


RAW_ROWS = [row for row in [*RAW_PROMPT, *MORE_RAW] if row[0] != "prompt"]


@pytest.mark.parametrize(
    ("dialect", "row"), cases(RAW_ROWS, tuple(name for name in ("vllm", *OTHERS) if name != "ollama"))
)
def test_a_field_of_a_raw_prompt_is_honoured_or_refused_as_the_table_says(dialect: str, row: Row) -> None:
    cell = RAW_TABLE[row[0]][dialect]

    check(dialect, row, cell, raw(row[1]), {"model": "tiny", "prompt": "hello", "max_tokens": 7})


@pytest.mark.parametrize(
    ("table", "kinds"),
    [
        (CHAT_TABLE, [pb.ChatCompletionRequest]),
        (CHAT_TABLE | PROMPT_TABLE, [pb.GenerateRequest, pb.ChatCompletionRequest]),
    ],
    ids=["chat", "prompt"],
)
def test_no_field_of_the_contract_is_without_a_row(table: dict[str, Any], kinds: list[Any]) -> None:
    assert set(table) == {path for kind in kinds for path in paths(kind.DESCRIPTOR)}


def test_no_row_is_without_a_cell_for_each_dialect_nor_a_test() -> None:
    tested = {row[0] for row in [*CHAT, *MORE_CHAT]}

    assert {tuple(cells) for table in (CHAT_TABLE, PROMPT_TABLE) for cells in table.values()} == {tuple(DIALECTS)}
    assert {tuple(cells) for cells in RAW_TABLE.values()} == {tuple(name for name in DIALECTS if name != "ollama")}
    assert set(CHAT_TABLE) == tested
    assert set(RAW_TABLE) == {row[0] for row in RAW_ROWS}


def test_nothing_is_left_out_that_is_neither_a_hint_nor_the_gateways_own() -> None:
    left_out = {
        path for table in (CHAT_TABLE, RAW_TABLE) for path, cells in table.items() if LEFT_OUT in cells.values()
    }

    assert left_out == {
        "priority", "session_id", "user", "metadata", "params.time_limit", "stream_options.max_merge_bytes",
        "stream_options.min_flush_interval",
    }  # fmt: skip


def test_every_field_that_is_refused_is_named_and_a_repeated_one_once() -> None:
    generation = chat({
        "messages": [
            {"role": "ROLE_ASSISTANT", "content": "a", "reasoning": "b"},
            {"role": "ROLE_ASSISTANT", "content": "a", "reasoning": "b"},
            {"role": "ROLE_USER", "content_parts": [{"text": "x"}, {"video_url": {"url": "http://x/y"}}]},
        ],
        "params": {"top_k": 3, "temperature": 0.5, "min_p": 0.1},
        "cache_salt": "s",
    })  # fmt: skip

    assert refused(generation, OPENAI) == [
        "params.top_k", "params.min_p", "cache_salt", "messages[0].reasoning", "messages[2].content_parts[1].video_url",
    ]  # fmt: skip


def test_a_refusal_says_how_much_it_is_about_and_by_whom() -> None:
    error = refusal_of(chat({"params": {"top_k": 3, "min_p": 0.1}}), OPENAI)

    assert isinstance(error, UnsupportedParameter)
    assert error.message == "params.top_k: a backend of the dialect openai cannot do this (and 1 more)"


def test_a_backend_refuses_by_its_dialect() -> None:
    generation = chat({"params": {"top_k": 3}})

    assert OpenAIBackend("a", "http://localhost:1").refusal(generation) is None
    assert OpenAIBackend("a", "http://localhost:1", dialect=OPENAI).refusal(generation) is not None


@pytest.mark.parametrize("dialect", [OPENAI, SGLANG, GENERIC], ids=lambda dialect: dialect.name)
def test_a_raw_prompt_needs_max_tokens_where_it_would_be_cut_short(dialect: Dialect) -> None:
    assert refused(prompt({"raw": True}), dialect) == ["params.max_tokens"]
    assert refused(prompt({"raw": True, "params": {"max_tokens": 3}}), dialect) == []


@pytest.mark.parametrize("dialect", [VLLM, LLAMACPP], ids=lambda dialect: dialect.name)
def test_a_raw_prompt_needs_no_max_tokens_where_it_may_fill_the_context(dialect: Dialect) -> None:
    assert refused(prompt({"raw": True}), dialect) == []


def test_ollama_takes_no_raw_prompt_and_names_only_what_else_it_cannot_do() -> None:
    generation = prompt({"raw": True, "params": {"temperature": 0.5, "top_k": 3}})

    assert refused(generation, OLLAMA) == ["raw", "params.top_k"]


@pytest.mark.parametrize(("name", "fields"), [("sglang", ["vllm_xargs"]), ("llamacpp", ["vllm_xargs"]),
                                              ("ollama", ["vllm_xargs", "chat_template_kwargs"]),
                                              ("openai", []), ("generic", []), ("vllm", [])])  # fmt: skip
def test_an_extension_that_would_be_ignored_is_refused_by_its_name(name: str, fields: list[str]) -> None:
    generation = chat({"backend_extensions": {"vllm_xargs": {"a": 1}, "chat_template_kwargs": {"b": 2}}})

    # A Struct has its fields in no order.
    assert sorted(refused(generation, DIALECTS[name])) == sorted(f"backend_extensions.{field}" for field in fields)


@pytest.mark.parametrize(
    ("values", "grammar"),
    [
        (["yes"], 'root ::= "yes"'),
        (['say "no"', "a\\b"], 'root ::= "say \\"no\\"" | "a\\\\b"'),
        (["two\nlines\r\t", "[x] ü"], 'root ::= "two\\nlines\\r\\t" | "[x] ü"'),
    ],
)
def test_a_choice_is_a_grammar_of_exactly_its_texts(values: list[str], grammar: str) -> None:
    assert grammar_of_choice(values) == grammar


UNCOUNTED = [(dialect, "prompt") for dialect in (OPENAI, OLLAMA, GENERIC)] + [
    (dialect, "messages") for dialect in (OPENAI, OLLAMA, GENERIC, SGLANG, LLAMACPP)
]
QUERIES = {"prompt": TokenQuery(prompt="hi"), "messages": TokenQuery(messages=(Message(role="user", content="hi"),))}


@pytest.mark.parametrize(("dialect", "field"), UNCOUNTED, ids=lambda value: getattr(value, "name", value))
async def test_what_cannot_be_counted_is_refused_and_nobody_asked(dialect: Dialect, field: str) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        await OpenAIBackend("a", "http://localhost:1", dialect=dialect).count_tokens(QUERIES[field], "m", "r-1")

    assert [violation.field for violation in caught.value.violations] == [field]
