# SPDX-License-Identifier: Apache-2.0
"""The simplest text that a JSON schema, a regex or a choice allows: what the model says under a constraint."""

from __future__ import annotations

import json
import re
from importlib import import_module
from typing import Any

from llm_gateway.simulator.errors import ApiError

Json = dict[str, Any]

# The standard library's own parser of regular expressions; it has no public name, nor types.
_parser: Any = import_module("re._parser")
_TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
_DEEPEST = 20
_NONE = {
    **dict.fromkeys(("json", "regex", "choice", "grammar", "json_object")),
    **dict.fromkeys(("disable_any_whitespace", "disable_additional_properties"), False),
    **dict.fromkeys(("whitespace_pattern", "structural_tag", "_backend")),
    "_backend_was_auto": False,
}
"""How vLLM prints a constraint that asks for nothing."""
_WORDS = ("star", "city", "night", "light", "stone", "song")


def constrained_text(body: Json) -> str | None:
    """What a request's response_format or structured_outputs asks for; None where it asks for nothing."""
    response_format = body.get("response_format") or {}
    if response_format.get("type") == "json_schema":
        return json.dumps(value_of(response_format["json_schema"].get("schema") or {}))
    if response_format.get("type") == "json_object":
        return json.dumps({"story": "one small star"})
    constraint = body.get("structured_outputs")
    return None if constraint is None else _structured_outputs(constraint)


def _structured_outputs(constraint: Json) -> str:
    if (choice := constraint.get("choice")) is not None:
        return str(choice[0])
    if (regex := constraint.get("regex")) is not None:
        return text_of(regex)
    if (schema := constraint.get("json")) is not None:
        return json.dumps(value_of(json.loads(schema) if isinstance(schema, str) else schema))
    if constraint.get("json_object"):
        return json.dumps({"story": "one small star"})
    if constraint.get("grammar") is not None or constraint.get("structural_tag") is not None:
        raise ApiError.bad_request("The simulator knows no grammars and structural tags.")
    raise ApiError.bad_request(
        f"You must use one kind of structured outputs constraint but none are specified: {_NONE}"
    )


def value_of(schema: Any, root: Json | None = None, depth: int = 0) -> Any:  # noqa: ANN401 (any JSON)
    """The simplest value that conforms to a JSON schema."""
    if schema is True or schema == {}:
        return {}
    root = schema if root is None else root
    if depth > _DEEPEST:
        raise ApiError.bad_request("Grammar error: the schema is nested too deeply")
    if given := [schema[key] for key in ("const", "default") if key in schema] or schema.get("enum"):
        return given[0]
    if (reference := schema.get("$ref")) is not None:
        return value_of(_resolve(reference, root), root, depth + 1)
    if branches := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        return value_of(branches[0], root, depth + 1)
    return _typed(schema, root, depth)


def _typed(schema: Json, root: Json, depth: int) -> Any:  # noqa: ANN401 (any JSON)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind not in _TYPES:
        raise ApiError.bad_request(f"Grammar error: Invalid type: {kind}")
    if kind == "object":
        properties = schema.get("properties") or {}
        return {name: value_of(part, root, depth + 1) for name, part in properties.items()}
    if kind == "array":
        item = schema.get("items", {"type": "string"})
        return [value_of(item, root, depth + 1) for _ in range(max(schema.get("minItems", 1), 0))]
    if kind in ("integer", "number"):
        return _number(schema, kind)
    return {"string": _string(schema), "boolean": False, "null": None}[kind]


def _number(schema: Json, kind: str) -> int | float:
    step = 1 if kind == "integer" else 0.5
    low = schema.get("minimum", schema["exclusiveMinimum"] + step if "exclusiveMinimum" in schema else None)
    high = schema.get("maximum", schema["exclusiveMaximum"] - step if "exclusiveMaximum" in schema else None)
    value = 0 if low is None else max(low, 0)
    return value if high is None else min(value, high)


def _string(schema: Json) -> str:
    if "pattern" in schema:
        return text_of(schema["pattern"])
    formats = {
        "date": "2026-01-01",
        "date-time": "2026-01-01T00:00:00Z",
        "uuid": "00000000-0000-4000-8000-000000000000",
    }
    text = formats.get(schema.get("format", ""), " ".join(_WORDS[:2]))
    while len(text) < schema.get("minLength", 0):
        text += " " + _WORDS[len(text) % len(_WORDS)]
    return text[: schema.get("maxLength", len(text))]


def _resolve(reference: str, root: Json) -> Any:  # noqa: ANN401 (any JSON)
    found: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        found = found[part] if part else found
    return found


def text_of(regex: str) -> str:
    """The shortest text that matches, taking the first branch of each choice."""
    try:
        return _sequence(_parser.parse(regex), [])
    except re.error as error:
        raise ApiError.bad_request(_regex_error(regex, error)) from None


# What Python's parser of regular expressions says, in the words of vLLM's.
REGEX_REASONS = {"unterminated character set": "unclosed character class"}


def _regex_error(regex: str, error: re.error) -> str:
    reason = REGEX_REASONS.get(error.msg, error.msg)
    column = " " * (error.pos or 0)
    return (
        f'Grammar error: at 1(8): invalid regex "{regex}" (in regex): regex parse error:\n'
        f"    {regex}\n    {column}^\nerror: {reason}\n   1 | start: /{regex}/\n              ^"
    )


def _sequence(items: Any, groups: list[str]) -> str:  # noqa: ANN401 (untyped parser)
    return "".join(_item(str(operator), argument, groups) for operator, argument in items)


def _item(operator: str, argument: Any, groups: list[str]) -> str:  # noqa: ANN401 (untyped parser)
    if operator == "LITERAL":
        return chr(argument)
    if operator == "NOT_LITERAL":
        return "a" if argument != ord("a") else "b"
    if operator == "ANY":
        return "a"
    if operator == "IN":
        return _one_of(argument)
    if operator in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        least, _, inner = argument
        return "".join(_sequence(inner, groups) for _ in range(int(least)))
    return _group(operator, argument, groups)


def _group(operator: str, argument: Any, groups: list[str]) -> str:  # noqa: ANN401 (untyped parser)
    if operator == "SUBPATTERN":
        text = _sequence(argument[3], groups)
        groups.append(text)
        return text
    if operator == "ATOMIC_GROUP":
        return _sequence(argument, groups)
    if operator == "BRANCH":
        return _sequence(argument[1][0], groups)
    if operator == "GROUPREF":
        return str(groups[argument - 1])
    return ""  # anchors and look-arounds take no text


def _one_of(members: Any) -> str:  # noqa: ANN401 (untyped parser)
    first, argument = members[0]
    if str(first) == "NEGATE":
        pattern = re.compile("[" + "".join(_spelled(str(kind), value) for kind, value in members) + "]")
        return str(next(char for char in map(chr, [*range(97, 123), *range(32, 127)]) if pattern.match(char)))
    if str(first) == "RANGE":
        return chr(argument[0])
    return chr(argument) if str(first) == "LITERAL" else _category(str(argument))


def _spelled(kind: str, value: Any) -> str:  # noqa: ANN401 (untyped parser)
    if kind == "NEGATE":
        return "^"
    if kind == "RANGE":
        return f"{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}"
    if kind == "LITERAL":
        return re.escape(chr(value))
    return _CATEGORIES[str(value)][1]


_CATEGORIES: dict[str, tuple[str, str]] = {
    "CATEGORY_DIGIT": ("0", r"\d"),
    "CATEGORY_NOT_DIGIT": ("a", r"\D"),
    "CATEGORY_SPACE": (" ", r"\s"),
    "CATEGORY_NOT_SPACE": ("a", r"\S"),
    "CATEGORY_WORD": ("a", r"\w"),
    "CATEGORY_NOT_WORD": ("-", r"\W"),
}


def _category(name: str) -> str:
    return _CATEGORIES[name][0]
