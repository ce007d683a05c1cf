# SPDX-License-Identifier: Apache-2.0
"""Sampling parameters of a configuration file: what they become, and which are refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from llm_gateway.codec.defaults import decode_defaults
from llm_gateway.codec.sampling import RANGES
from llm_gateway.errors import InvalidRequest


def refused(values: dict[Any, Any]) -> dict[str, str]:
    """What is said of each parameter."""
    with pytest.raises(InvalidRequest) as caught:
        decode_defaults(values)
    return {violation.field: violation.description for violation in caught.value.violations}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"max_tokens": 1024, "temperature": 0.7, "top_k": -1, "seed": -5},
        {"stop": ["a", "b"], "stop_token_ids": [1, 2], "ignore_eos": False},
        {"logit_bias": {5: -100.0}},
        {"truncation_side": "left"},
        {"repetition_detection": {"max_pattern_size": 4, "min_count": 3}},
    ],
    ids=str,
)
def test_what_is_right_is_as_a_request_would_have_it(values: dict[str, Any]) -> None:
    assert decode_defaults(values) == values


def test_numbers_become_what_the_field_holds() -> None:
    decoded = decode_defaults({"temperature": 1, "logit_bias": {"7": 2}})

    assert decoded == {"temperature": 1.0, "logit_bias": {7: 2.0}}
    assert isinstance(decoded["temperature"], float)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("max_tokens", 0, "must be at least 1"),
        ("max_tokens", "5", "must be a whole number"),
        ("max_tokens", True, "must be a whole number"),
        ("max_tokens", 5.0, "must be a whole number"),
        ("max_tokens", 2**32, "is out of range"),
        ("temperature", 2.1, "must be at least 0 and at most 2"),
        ("temperature", None, "must be a number"),
        ("temperature", math.nan, "is out of range"),
        ("temperature", 10**400, "is out of range"),
        ("top_p", 0, "must be above 0 and at most 1"),
        ("stop", "x", "must be a list, each item text"),
        ("stop", [1], "must be a list, each item text"),
        ("stop", [""], "must not be empty"),
        ("stop_token_ids", [-1], "is out of range"),
        ("ignore_eos", "yes", "must be true or false"),
        ("truncation_side", "up", "must be left or right"),
        ("truncation_side", 1, "must be left or right"),
        ("logit_bias", [1], "must be a mapping from token ids to numbers"),
        ("logit_bias", {5: "x"}, "must be a mapping from token ids to numbers"),
        ("logit_bias", {"x": 1}, "has a wrong field or value"),
        ("logit_bias", {5: 101}, "must be at least -100 and at most 100"),
        ("repetition_detection", {"min": 2}, "has a wrong field or value"),
        ("top_logprobs", 2, "needs logprobs"),
        ("n", 2, "cannot have a default: only a caller can want it"),
        ("time_limit", "5s", "cannot have a default: only a caller can want it"),
        ("maxTokens", 5, "there is no such parameter; did you mean max_tokens?"),
        (7, 5, "there is no such parameter"),
    ],
    ids=repr,
)
def test_what_is_wrong_is_said_by_its_name(name: Any, value: Any, said: str) -> None:
    ((field, description),) = refused({name: value}).items()

    assert field.partition("[")[0] == str(name)
    assert description == said


def test_each_is_said() -> None:
    assert list(refused({"zzz": 1, "top_k": "x", "min_p": 2})) == ["zzz", "top_k", "min_p"]


@pytest.mark.parametrize("name", sorted(RANGES.keys() - {"n"}))
def test_the_ranges_are_those_of_a_request(name: str) -> None:
    low, _ = RANGES[name]

    assert refused({name: int(low) - 1}).keys() == {name}
