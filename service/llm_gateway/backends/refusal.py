# SPDX-License-Identifier: Apache-2.0
"""What of a request a dialect cannot honour: it is refused with the paths of the fields, never dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_gateway.backends.dialect import RawLength
from llm_gateway.errors import FieldViolation, UnsupportedParameter
from llm_gateway.generation import AudioPart, ImagePart, MediaPart, NamedTool, ToolMode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_gateway.backends.dialect import Dialect
    from llm_gateway.generation import Generation, Part, TokenQuery

    Asked = tuple[str, str, Any]  # the field as dialects name it, its path in this request, what it holds

# What every backend does unasked: it is honoured by leaving it out.
HONOURED_BY_ALL = {
    "params.n": 1,
    "params.min_tokens": 0,
    "params.include_stop": False,
    "params.ignore_eos": False,
    "params.use_beam_search": False,
    "params.logprobs": False,
    "params.skip_special_tokens": True,
    "tools.strict": False,
    "tool_choice.mode": ToolMode.AUTO,
    "parallel_tool_calls": True,
    "reasoning.include": True,
    "messages.content_parts.image_url.detail": "auto",
}


def refusal_of(generation: Generation, dialect: Dialect) -> UnsupportedParameter | None:
    """The error that names each field that the dialect cannot honour, of messages and tools the first of a kind."""
    if dialect.honours_everything:
        return None
    found: dict[str, FieldViolation] = {}
    for field, path, value in _asked(generation):
        if field not in found and not _honours(dialect, generation, field, value):
            found[field] = FieldViolation(path, f"a backend of the dialect {dialect.name} cannot do this")
    if _needs_max_tokens(generation, dialect):
        found["params.max_tokens"] = FieldViolation(
            "params.max_tokens", f"is needed with raw: a backend of the dialect {dialect.name} would end it early"
        )
    if not found:
        return None
    violations = tuple(found.values())
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    return UnsupportedParameter(f"{violations[0].field}: {violations[0].description}{more}", violations)


def refusal_of_count(query: TokenQuery, dialect: Dialect) -> UnsupportedParameter | None:
    """The error of a dialect that cannot count such a prompt's tokens."""
    counting = dialect.counting
    if counting is not None and (counting.takes_messages or query.prompt is not None):
        return None
    field = "messages" if query.prompt is None else "prompt"
    return UnsupportedParameter.of(field, f"a backend of the dialect {dialect.name} cannot count its tokens")


def _honours(dialect: Dialect, generation: Generation, field: str, value: Any) -> bool:  # noqa: ANN401
    if field in HONOURED_BY_ALL and HONOURED_BY_ALL[field] == value:
        return True
    group, _, name = field.partition(".")
    raw = generation.prompt is not None and bool(dialect.raw_params)
    if group == "params":
        return name in (dialect.raw_params if raw else dialect.params)
    if group == "structured_output":
        return name in (dialect.raw_constraints if raw else dialect.constraints)
    if group == "backend_extensions":
        return dialect.extensions is None or name in dialect.extensions
    return field in dialect.fields or (field == "raw" and bool(dialect.raw_params))


def _needs_max_tokens(generation: Generation, dialect: Dialect) -> bool:
    raw = generation.prompt is not None and bool(dialect.raw_params)
    return raw and dialect.raw_length is RawLength.REFUSED and "max_tokens" not in generation.sampling


def _asked(generation: Generation) -> Iterator[Asked]:
    """Every field that was set. Hints are not among them: priority, session_id, user and metadata."""
    if generation.prompt is not None:
        yield "raw", "raw", True
    for name, value in generation.sampling.items():
        yield f"params.{name}", f"params.{name}", value
    if generation.constraint is not None:
        path = f"structured_output.{generation.constraint.kind}"
        yield path, path, generation.constraint.value
    for path, value in (
        ("parallel_tool_calls", generation.parallel_tool_calls),
        ("cache_salt", generation.cache_salt),
        ("stream_options.include_token_ids", generation.stream_options.include_token_ids or None),
    ):
        if value is not None:
            yield path, path, value
    for name in generation.extensions:
        yield f"backend_extensions.{name}", f"backend_extensions.{name}", True
    yield from _asked_of_reasoning(generation)
    yield from _asked_of_tools(generation)
    yield from _asked_in_messages(generation)


def _asked_of_reasoning(generation: Generation) -> Iterator[Asked]:
    if generation.reasoning is not None:
        for name in ("effort", "thinking_token_budget", "include"):
            value = getattr(generation.reasoning, name)
            if value is not None:
                yield f"reasoning.{name}", f"reasoning.{name}", value


def _asked_of_tools(generation: Generation) -> Iterator[Asked]:
    if generation.tools:
        yield "tools", "tools", True
    for number, tool in enumerate(generation.tools):
        if tool.strict is not None:
            yield "tools.strict", f"tools[{number}].strict", tool.strict
    choice = generation.tool_choice
    if choice is not None:
        path = "tool_choice.function_name" if isinstance(choice, NamedTool) else "tool_choice.mode"
        yield path, path, choice


def _asked_in_messages(generation: Generation) -> Iterator[Asked]:
    for number, message in enumerate(generation.messages):
        where = f"messages[{number}]"
        if message.name is not None:
            yield "messages.name", f"{where}.name", message.name
        if message.reasoning is not None:
            yield "messages.reasoning", f"{where}.reasoning", message.reasoning
        if isinstance(message.content, tuple):
            for place, part in enumerate(message.content):
                yield from _asked_of_part(part, f"{where}.content_parts[{place}]")


def _asked_of_part(part: Part, where: str) -> Iterator[Asked]:
    match part:
        case ImagePart(_, detail):
            yield "messages.content_parts.image_url", f"{where}.image_url", True
            if detail is not None:
                yield "messages.content_parts.image_url.detail", f"{where}.image_url.detail", detail
        case AudioPart():
            yield "messages.content_parts.input_audio", f"{where}.input_audio", True
        case MediaPart(kind, _):
            yield f"messages.content_parts.{kind}", f"{where}.{kind}", True
