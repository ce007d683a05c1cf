# SPDX-License-Identifier: Apache-2.0
"""A model's default parameters, where a request is silent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_gateway.generation import Generation

NEED_LOGPROBS = ("top_logprobs", "logprob_token_ids")


def with_defaults(generation: Generation, defaults: Mapping[str, Any]) -> Generation:
    """The request with the defaults in it; one that contradicts what the caller said is left out."""
    if not defaults:
        return generation
    said = generation.sampling
    return replace(generation, sampling={**_without_contradictions(defaults, said), **said})


def _without_contradictions(defaults: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """The rules are those by which a request's own fields are held to each other."""
    left = dict(defaults)
    if "min_tokens" in said and left.get("max_tokens", said["min_tokens"]) < said["min_tokens"]:
        del left["max_tokens"]
    if "max_tokens" in said and left.get("min_tokens", 0) > said["max_tokens"]:
        del left["min_tokens"]
    if not said.get("logprobs", left.get("logprobs")):
        for name in NEED_LOGPROBS:
            left.pop(name, None)
    if said.get("n", 1) > 1 and left.get("temperature") == 0:
        del left["temperature"]
    return left
