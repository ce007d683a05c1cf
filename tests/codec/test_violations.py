# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a request is collected, bounded, and never quoted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.codec.violations import MAX_DEPTH, MAX_SHOWN, Violations
from llm_gateway.errors import InvalidRequest


def raised(violations: Violations) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        violations.raise_if_any()
    return caught.value


def nested(depth: int, opening: str, closing: str) -> str:
    """A JSON object with containers nested so deep, itself counted."""
    return '{"a":' + opening * (depth - 2) + "[]" + closing * (depth - 2) + "}"


def test_without_a_violation_nothing_is_raised() -> None:
    violations = Violations()
    violations.check(True, "a", "is wrong")

    violations.raise_if_any()


def test_a_million_violations_are_counted_and_few_are_kept() -> None:
    violations = Violations()
    for index in range(1_000_000):
        violations.add(f"messages[{index}]", "is wrong")

    error = raised(violations)

    assert len(error.violations) == MAX_SHOWN
    assert error.message == "messages[0]: is wrong (and 999,999 more)"


@pytest.mark.parametrize(("size", "kept"), [(2000, 1), (600, 1), (300, 3), (90, 10)])
def test_the_first_is_always_told_and_the_rest_as_far_as_there_is_room(size: int, kept: int) -> None:
    violations = Violations()
    for index in range(20):
        violations.add(f"fields[{index:02}]", "ü" * ((size - 10) // 2))

    error = raised(violations)

    assert [violation.field for violation in error.violations] == [f"fields[{index:02}]" for index in range(kept)]
    assert error.message.endswith("(and 19 more)")


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False)),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)),
    max_leaves=10,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON))
def test_a_json_object_is_read_as_it_was_written(value: dict[str, Any]) -> None:
    assert Violations().json_object(json.dumps(value), "schema") == value


@pytest.mark.parametrize(("opening", "closing"), [('{"a":', "}"), ("[", "]")], ids=["objects", "lists"])
def test_an_object_may_be_nested_so_deep_and_no_deeper(opening: str, closing: str) -> None:
    violations = Violations()

    assert violations.json_object(nested(MAX_DEPTH, opening, closing), "schema") is not None
    assert violations.json_object(nested(MAX_DEPTH + 1, opening, closing), "schema") is None
    assert raised(violations).message == f"schema: is nested more than {MAX_DEPTH} deep"


@pytest.mark.parametrize("text", ["", "{", "nope", '{"a": NaN}', '{"a": Infinity}', r'{"a": "\ud800"}', '{"a": 1e999}'])
def test_what_is_not_json_is_refused(text: str) -> None:
    violations = Violations()

    assert violations.json_object(text, "schema") is None
    assert raised(violations).message == "schema: is not JSON"


@pytest.mark.parametrize("text", ["[]", "1", '"text"', "null"])
def test_json_that_is_no_object_is_refused(text: str) -> None:
    violations = Violations()

    assert violations.json_object(text, "schema") is None
    assert raised(violations).message == "schema: is not a JSON object"
