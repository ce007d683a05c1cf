# SPDX-License-Identifier: Apache-2.0
"""What is said under a constraint keeps to it, and an impossible constraint is refused."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from llm_gateway.simulator import Simulator
from llm_gateway.simulator.errors import ApiError
from llm_gateway.simulator.structured import text_of, value_of
from tests.simulator import asking


@pytest.mark.parametrize(
    "regex",
    [
        "[0-9]{4}-[0-9]{2}",
        "(yes|no)+",
        r"\w+@\w+\.(com|org)",
        "[^a-y]x?",
        r"(\d)\1\s\S\D\W",
        "a{2,5}?.[^a]",
        "^(?:ab|cd)*$",
        "(?=x)x",
        "(?>ab)c++",
    ],
)
def test_the_text_of_a_regex_matches_it(regex: str) -> None:
    assert re.fullmatch(regex, text_of(regex))


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "boolean"}, False),
        ({"type": "null"}, None),
        ({"type": "integer", "minimum": 3}, 3),
        ({"type": "integer", "exclusiveMinimum": 3, "maximum": 9}, 4),
        ({"type": "number", "maximum": -2}, -2),
        ({"enum": ["red", "blue"]}, "red"),
        ({"const": 7}, 7),
        ({"type": ["string", "null"], "maxLength": 3}, "sta"),
        ({"type": "string", "pattern": "a{3}"}, "aaa"),
        ({"type": "string", "format": "date"}, "2026-01-01"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [0, 0]),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, None),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"const": 1}}}, 1),
        ({"properties": {"a": {"type": "object", "properties": {"b": {"type": "null"}}}}}, {"a": {"b": None}}),
        (True, {}),
    ],
)
def test_the_simplest_value_conforms(schema: Any, expected: object) -> None:
    assert expected == value_of(schema)


def test_a_long_enough_string_is_made_of_words() -> None:
    assert len(value_of({"type": "string", "minLength": 40})) >= 40


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "banana"}, "Grammar error: Invalid type: banana"),
        ({"$ref": "#"}, "Grammar error: the schema is nested too deeply"),
    ],
)
def test_an_impossible_schema_is_refused(schema: dict[str, object], message: str) -> None:
    with pytest.raises(ApiError) as refused:
        value_of(schema)

    assert message == refused.value.message


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"response_format": {"type": "json_object"}}, r"\{.*\}"),
        ({"structured_outputs": {"json_object": True}}, r"\{.*\}"),
        ({"structured_outputs": {"json": {"type": "boolean"}}}, "false"),
        ({"structured_outputs": {"json": '{"type": "boolean"}'}}, "false"),
        ({"structured_outputs": {"choice": ["yes please", "no thanks"]}}, "yes please"),
        ({"structured_outputs": {"regex": "[a-f]{3}"}}, "[a-f]{3}"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"const": 1}}}}, "1"),
        ({"response_format": {"type": "text"}}, " one night.*"),
    ],
)
async def test_an_answer_keeps_to_its_constraint(fields: dict[str, object], pattern: str) -> None:
    async with Simulator() as simulator:
        answer = await asking.answer(simulator, asking.chat() | fields)

    assert re.fullmatch(pattern, answer["choices"][0]["message"]["content"])


@pytest.mark.parametrize("constraint", [{}, {"grammar": "root ::= x"}, {"regex": "[0-9"}, {"regex": "("}])
async def test_a_bad_constraint_is_found_inside_of_a_stream(constraint: dict[str, str]) -> None:
    async with Simulator() as simulator:
        error, done = await asking.lines(simulator, asking.chat(structured_outputs=constraint))

    assert json.loads(error)["error"]["code"] == 400
    assert done == "[DONE]"
