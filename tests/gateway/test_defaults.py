# SPDX-License-Identifier: Apache-2.0
"""A model's defaults hold where a request is silent, and never make a good request a bad one."""

from __future__ import annotations

from typing import Any

import pytest

from llm_gateway.gateway.defaults import with_defaults
from llm_gateway.generation import Generation


@pytest.mark.parametrize(
    ("defaults", "said", "sent"),
    [
        ({}, {"seed": 1}, {"seed": 1}),
        ({"temperature": 0.7, "max_tokens": 100}, {}, {"temperature": 0.7, "max_tokens": 100}),
        ({"temperature": 0.7, "max_tokens": 100}, {"max_tokens": 5}, {"temperature": 0.7, "max_tokens": 5}),
        ({"max_tokens": 100}, {"min_tokens": 100}, {"max_tokens": 100, "min_tokens": 100}),
        ({"max_tokens": 100}, {"min_tokens": 101}, {"min_tokens": 101}),
        ({"min_tokens": 10}, {"max_tokens": 10}, {"min_tokens": 10, "max_tokens": 10}),
        ({"min_tokens": 10}, {"max_tokens": 9}, {"max_tokens": 9}),
        ({"logprobs": True, "top_logprobs": 2}, {}, {"logprobs": True, "top_logprobs": 2}),
        ({"logprobs": True, "top_logprobs": 2}, {"logprobs": False}, {"logprobs": False}),
        ({"top_logprobs": 2}, {"logprobs": True}, {"logprobs": True, "top_logprobs": 2}),
        ({"temperature": 0.0}, {"n": 1}, {"temperature": 0.0, "n": 1}),
        ({"temperature": 0.0}, {"n": 2}, {"n": 2}),
        ({"temperature": 0.1}, {"n": 2}, {"temperature": 0.1, "n": 2}),
    ],
    ids=str,
)
def test_what_is_sent(defaults: dict[str, Any], said: dict[str, Any], sent: dict[str, Any]) -> None:
    assert with_defaults(Generation(sampling=said), defaults).sampling == sent


def test_without_defaults_the_request_is_the_same_object() -> None:
    generation = Generation(sampling={"seed": 1})

    assert with_defaults(generation, {}) is generation
