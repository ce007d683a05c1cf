# SPDX-License-Identifier: Apache-2.0
"""Tool calls as vLLM's hermes parser knows them: what is refused, and what the model says to make a call."""

from __future__ import annotations

import json
from typing import Any

from llm_gateway.simulator.errors import ApiError
from llm_gateway.simulator.replies import Kind
from llm_gateway.simulator.structured import value_of

Json = dict[str, Any]
Part = tuple[Kind, str, int]

_USAGE = 'Correct usage: `{"type": "function", "function": {"name": "my_function"}}`'


def tool_choice(body: Json) -> Any:  # noqa: ANN401 (a string or an object)
    """What is in force: "auto" where there are tools, but no choice."""
    choice = body.get("tool_choice")
    if choice is None:
        return "auto" if body.get("tools") and "tool_choice" not in body else "none"
    return choice


def check_tool_fields(body: Json) -> None:
    """vLLM's own checks of tools and tool_choice."""
    if body.get("tools") == []:
        message = "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely."
        raise ApiError.parameter(message, "tools")
    choice = tool_choice(body)
    if choice == "none":
        return
    if body.get("tools") is None:
        raise ApiError.parameter("When using `tool_choice`, `tools` must be set.", "tool_choice")
    if choice not in ("auto", "required") and not isinstance(choice, dict):
        message = f"Invalid value for `tool_choice`: {choice}! "
        message += 'Only named tools, "none", "auto" or "required" are supported.'
        raise ApiError.parameter(message, "tool_choice")
    if isinstance(choice, dict):
        _check_named(choice, body["tools"])


def _check_named(choice: Json, tools: list[Json]) -> None:
    function = choice.get("function")
    if not isinstance(function, dict):
        message = f"Invalid value for `function`: `{function}` in `tool_choice`! {_USAGE}"
        raise ApiError.parameter(message, "tool_choice.function")
    if "name" not in function:
        message = f"Expected field `name` in `function` in `tool_choice`! {_USAGE}"
        raise ApiError.parameter(message, "tool_choice.function.name")
    names = [(tool.get("function") or {}).get("name") for tool in tools]
    if function["name"] not in names:
        message = "The tool specified in `tool_choice` does not match any of the specified `tools`"
        raise ApiError.parameter(message, "tool_choice")


def check_tool_parser(body: Json, tool_parser: bool) -> None:
    """Without `--tool-call-parser` there are no tool calls."""
    choice = tool_choice(body)
    if tool_parser or choice == "none":
        return
    if choice == "auto":
        message = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
        raise ApiError.bad_request(message)
    shown = '"required"' if choice == "required" else f'function "{choice["function"]["name"]}"'
    raise ApiError.bad_request(f"tool_choice={shown} requires --tool-call-parser to be set")


def forced_call(body: Json) -> tuple[tuple[str, str], ...]:
    """The call that "required" or a named choice asks for, with the simplest arguments; "auto" asks for none."""
    choice = tool_choice(body)
    if choice in ("none", "auto"):
        return ()
    functions = [tool["function"] for tool in body["tools"]]
    if isinstance(choice, dict):
        functions = [function for function in functions if function["name"] == choice["function"]["name"]]
    arguments = value_of(functions[0].get("parameters") or {"type": "object"})
    return ((functions[0]["name"], json.dumps(arguments)),)


def spoken(calls: tuple[tuple[str, str], ...]) -> list[Part]:
    """What the model generates to make the calls; the markup costs tokens, but is never shown."""
    parts: list[Part] = []
    for call, (name, arguments) in enumerate(calls):
        parts += [
            (Kind.SILENT, '<tool_call>\n{"name": "', call),
            (Kind.CALL_NAME, name, call),
            (Kind.SILENT, '", "arguments": ', call),
            (Kind.CALL_ARGUMENTS, arguments, call),
            (Kind.SILENT, "}\n</tool_call>", call),
        ]
    return parts
