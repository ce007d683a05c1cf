# SPDX-License-Identifier: Apache-2.0
"""Behaviours spelled out as text: `[[sim fault=cut after=3]]` in a prompt, or JSON for `POST /simulator/script`."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from typing import Any

from llm_gateway.simulator.errors import ApiError
from llm_gateway.simulator.options import Behaviour, Fault

_DIRECTIVE = re.compile(r"\[\[sim\b((?:\"(?:\\.|[^\"\\])*\"|[^\]\"]|\](?!\]))*)\]\]")
_INTEGERS = ("tokens", "after", "status")
_SECONDS = ("time_to_first_token", "pace", "seconds")
_MILLISECONDS = {"ttft_ms": "time_to_first_token", "pace_ms": "pace", "ms": "seconds"}


def find_directive(text: str) -> Behaviour | None:
    """The behaviour that a prompt asks for, or None; ApiError if it cannot be read."""
    found = _DIRECTIVE.search(text)
    if found is None:
        return None
    given: dict[str, Any] = {}
    try:
        words = shlex.split(str(found.group(1)))
    except ValueError as error:
        raise _bad(f"{found.group()}: {error}") from None
    for word in words:
        name, equals, value = str(word).partition("=")
        if not equals:
            raise _bad(f"{word!r} is not of the form name=value")
        given[name] = value
    return behaviour_of(given)


def behaviour_of(given: Any) -> Behaviour:  # noqa: ANN401 (decoded JSON)
    """A behaviour from names and values; numbers may be strings."""
    if not isinstance(given, dict):
        raise _bad("a behaviour is an object")
    known = {field.name for field in fields(Behaviour)} | set(_MILLISECONDS)
    if unknown := sorted(set(given) - known):
        raise _bad(f"unknown {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    read: dict[str, Any] = {}
    for name, value in given.items():
        if value is not None:
            read[str(_MILLISECONDS.get(name, name))] = _read(name, value)
    return Behaviour(**read)


def _read(name: str, value: Any) -> Any:  # noqa: ANN401 (decoded JSON)
    try:
        if name == "fault":
            return Fault(value)
        if name in _INTEGERS:
            return _not_negative(int(value))
        if name in _SECONDS:
            return _not_negative(float(value))
        if name in _MILLISECONDS:
            return _not_negative(float(value) / 1000)
    except (ValueError, TypeError):
        expected = f"one of {', '.join(Fault)}" if name == "fault" else "a number, 0 or more"
        raise _bad(f"{name}={value} should be {expected}") from None
    return _read_other(name, value)


def _read_other(name: str, value: Any) -> Any:  # noqa: ANN401 (decoded JSON)
    if name == "body":
        return str(value).encode()
    if name == "role_first":
        return str(value).lower() in ("1", "true", "yes")
    if name == "headers" and isinstance(value, dict):
        return {str(key): str(content) for key, content in value.items()}
    if name == "tool_calls" and isinstance(value, list):
        return tuple((str(call), str(arguments)) for call, arguments in value)
    if name in ("headers", "tool_calls"):
        raise _bad(f"{name} can only be given through POST /simulator/script")
    return str(value)


def _not_negative(number: float) -> float:
    if number < 0:
        raise ValueError(number)
    return number


def _bad(message: str) -> ApiError:
    return ApiError(400, f"Bad simulator directive: {message}", "simulator")
