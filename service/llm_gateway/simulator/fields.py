# SPDX-License-Identifier: Apache-2.0
"""The types of the request fields, and pydantic's words for a value that has not the type: vLLM's 400 "Bad Request"."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from llm_gateway.simulator.errors import ApiError

Json = dict[str, Any]
Check = Callable[[Any], Iterator["Problem"]]


class UnreadableBodyError(Exception):
    """A body that is not even text, which FastAPI itself answers."""


class Problem(NamedTuple):
    """pydantic's type, message and context; where inside of the value, if not the whole, and what is there."""

    kind: str
    message: str
    context: dict[str, Any] | None = None
    inside: str = ""
    part: object = None


_STRINGS_OF_BOOL = {"0", "1", "off", "on", "f", "t", "false", "true", "n", "y", "no", "yes"}
_MOST_STOP_STRINGS = 4
_NO_OBJECT = "Input should be a valid dictionary or object to extract fields from"


def _bool(value: object) -> Iterator[Problem]:
    known = value in (0, 1) if isinstance(value, int | float) else str(value).lower() in _STRINGS_OF_BOOL
    if not isinstance(value, int | float | str):
        yield Problem("bool_type", "Input should be a valid boolean")
    elif not known:
        yield Problem("bool_parsing", "Input should be a valid boolean, unable to interpret input")


def _int(value: object) -> Iterator[Problem]:
    if isinstance(value, str) and not value.strip().lstrip("+-").isdecimal():
        yield Problem("int_parsing", "Input should be a valid integer, unable to parse string as an integer")
    elif isinstance(value, float) and not value.is_integer():
        yield Problem("int_from_float", "Input should be a valid integer, got a number with a fractional part")
    elif not isinstance(value, int | float | str):
        yield Problem("int_type", "Input should be a valid integer")


def _float(value: object) -> Iterator[Problem]:
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            yield Problem("float_parsing", "Input should be a valid number, unable to parse string as a number")
    elif not isinstance(value, int | float):
        yield Problem("float_type", "Input should be a valid number")


def _string(value: object) -> Iterator[Problem]:
    if not isinstance(value, str):
        yield Problem("string_type", "Input should be a valid string")


def _list(value: object) -> Iterator[Problem]:
    if not isinstance(value, list):
        yield Problem("list_type", "Input should be a valid list")


def _ints(value: object) -> Iterator[Problem]:
    yield from _list(value)
    for i, member in enumerate(value if isinstance(value, list) else []):
        for found in _int(member):
            yield found._replace(inside=f".{i}", part=member)


def _stream_options(value: object) -> Iterator[Problem]:
    yield from _object(value)
    for name in ("include_usage", "continuous_usage_stats"):
        member = value.get(name) if isinstance(value, dict) else None
        for found in _bool(member) if member is not None else ():
            yield found._replace(inside=f".{name}", part=member)


def _dict(value: object) -> Iterator[Problem]:
    if not isinstance(value, dict):
        yield Problem("dict_type", "Input should be a valid dictionary")


def _object(value: object) -> Iterator[Problem]:
    if not isinstance(value, dict):
        yield Problem("model_attributes_type", _NO_OBJECT)


def _prompt(value: object) -> Iterator[Problem]:
    if not isinstance(value, str | list):
        yield from _string(value)
        yield from _list(value)


def _stop(value: object) -> Iterator[Problem]:
    if isinstance(value, str):
        return
    if isinstance(value, list) and len(value) <= _MOST_STOP_STRINGS:
        return
    yield from _string(value)
    yield from _list(value)
    if isinstance(value, list):
        context = {"field_type": "List", "max_length": _MOST_STOP_STRINGS, "actual_length": len(value)}
        message = f"List should have at most {_MOST_STOP_STRINGS} items after validation, not {len(value)}"
        yield Problem("too_long", message, context)


# In the order of vLLM's models, for that is the order in which problems are told. A name with "?" may be null.
_SAMPLING: dict[str, Check] = {
    "frequency_penalty?": _float,
    "logit_bias?": _dict,
    "max_tokens?": _int,
    "max_completion_tokens?": _int,
    "n?": _int,
    "response_format?": _object,
    "structured_outputs?": _object,
    "stream_options?": _stream_options,
    "presence_penalty?": _float,
    "seed?": _int,
    "stop?": _stop,
    "stream?": _bool,
    "temperature?": _float,
    "top_p?": _float,
    "user?": _string,
    "use_beam_search": _bool,
    "top_k?": _int,
    "min_p?": _float,
    "repetition_penalty?": _float,
    "length_penalty": _float,
    "stop_token_ids?": _ints,
    "include_stop_str_in_output": _bool,
    "ignore_eos": _bool,
    "min_tokens": _int,
    "spaces_between_special_tokens": _bool,
    "allowed_token_ids?": _ints,
    "bad_words": _list,
    "add_special_tokens": _bool,
    "priority": _int,
    "request_id": _string,
    "return_tokens_as_token_ids?": _bool,
    "return_token_ids?": _bool,
    "cache_salt?": _string,
}
_CHAT: dict[str, Check] = {
    "model?": _string,
    **_SAMPLING,
    "logprobs?": _bool,
    "tools?": _list,
    "include_reasoning": _bool,
    "parallel_tool_calls?": _bool,
    "echo": _bool,
    "add_generation_prompt": _bool,
    "continue_final_message": _bool,
}
_TEXT: dict[str, Check] = {
    "model?": _string,
    "prompt": _prompt,
    "echo?": _bool,
    "logprobs?": _int,
    **_SAMPLING,
    "suffix?": _string,
}


def parse_json(raw: bytes, content_type: str) -> Json:
    """A request's body, or what FastAPI says of it."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise ApiError.unparsable(None, "Unsupported Media Type: Only 'application/json' is allowed")
    if not raw:
        raise ApiError.unparsable("body", problem("missing", "body", "Field required", None))
    try:
        body = json.loads(raw)
    except json.JSONDecodeError as error:
        where, context = f"body.{error.pos}", {"error": error.msg}
        raise ApiError.unparsable(where, problem("json_invalid", where, "JSON decode error", {}, context)) from None
    except UnicodeDecodeError:
        raise UnreadableBodyError from None
    if not isinstance(body, dict):
        raise ApiError.unparsable("body", problem("model_attributes_type", "body", _NO_OBJECT, body))
    return body


def check_chat_fields(body: Json, version: str) -> None:
    """Refuse a chat request whose fields have not their types."""
    problems = []
    if "messages" not in body:
        problems.append(("body.messages", problem("missing", "body.messages", "Field required", body)))
    problems += _problems(body, {"messages": _list, **_CHAT, **_skip_special(version)})
    problems += _response_format_problems(body.get("response_format"))
    problems += _members(body, "messages", "role") + _members(body, "tools", "function")
    _raise(problems)


def check_text_fields(body: Json, version: str) -> None:
    """Refuse a `/v1/completions` request whose fields have not their types."""
    _raise(
        _problems(body, {**_TEXT, **_skip_special(version)}) + _response_format_problems(body.get("response_format"))
    )


def check_tokenize_fields(body: Json) -> None:
    """`/tokenize` takes a prompt or messages: where neither fits, pydantic tells the problems of both."""
    if isinstance(body.get("prompt"), str) or isinstance(body.get("messages"), list):
        return
    problems = []
    for name, check in (("prompt", _string), ("messages", _list)):
        where = f"body.{name}"
        if name in body:
            problems += _problems(body, {name: check})
        else:
            problems.append((where, problem("missing", where, "Field required", body)))
    _raise(problems)


def check_detokenize_fields(body: Json) -> None:
    """`/detokenize` takes tokens."""
    if "tokens" not in body:
        raise ApiError.unparsable("body.tokens", problem("missing", "body.tokens", "Field required", body))
    _raise(_problems(body, {"tokens": _ints}))


def _skip_special(version: str) -> dict[str, Check]:
    return {"skip_special_tokens" if version == "0.32.0" else "skip_special_tokens?": _bool}


def _problems(body: Json, checks: dict[str, Check]) -> list[tuple[str, str]]:
    found = []
    for key, check in checks.items():
        name = key.removesuffix("?")
        if name not in body or (body[name] is None and key != name):
            continue
        for kind, message, context, inside, part in check(body[name]):
            where = f"body.{name}{inside}"
            found.append((where, problem(kind, where, message, part if inside else body[name], context)))
    return found


def _members(body: Json, name: str, key: str) -> list[tuple[str, str]]:
    """Each member of a list is an object with a certain key. (pydantic has more to say of its unions.)"""
    found = []
    for i, member in enumerate(body[name] if isinstance(body.get(name), list) else []):
        where = f"body.{name}.{i}"
        if not isinstance(member, dict):
            found.append((where, problem("model_attributes_type", where, _NO_OBJECT, member)))
        elif key not in member:
            where = f"{where}.{key}"
            found.append((where, problem("missing", where, "Field required", member)))
    return found


def _response_format_problems(value: object) -> list[tuple[str, str]]:
    """vLLM's response_format is one of three models: an unknown type gets the problems of each."""
    if not isinstance(value, dict) or value.get("type") in ("text", "json_object", "json_schema", "structural_tag"):
        return []
    where = "body.response_format"

    def literal(expected: str) -> tuple[str, str]:
        at = f"{where}.type"
        context = {"expected": expected}
        return at, problem("literal_error", at, f"Input should be {expected}", value.get("type"), context)

    def missing(name: str) -> tuple[str, str]:
        return f"{where}.{name}", problem("missing", f"{where}.{name}", "Field required", value)

    tag = "'structural_tag'"
    plain = literal("'text', 'json_object' or 'json_schema'")
    return [plain, literal(tag), missing("format"), literal(tag), missing("structures"), missing("triggers")]


def _raise(problems: list[tuple[str, str]]) -> None:
    if problems:
        raise ApiError.unparsable(problems[0][0], *(text for _, text in problems))


def problem(kind: str, where: str, message: str, value: object, context: Json | None = None) -> str:
    """One problem as vLLM prints it: the repr of a dict, with containers as their sizes only."""
    shown = f"<{type(value).__name__} of {len(value)} items>" if isinstance(value, dict | list) else str(value)
    told: Json = {"type": kind, "loc": where, "msg": message, "input": shown}
    return repr(told | ({"ctx": context} if context else {}))
