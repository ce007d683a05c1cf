# SPDX-License-Identifier: Apache-2.0
"""Requests from the wire: bytes in, a Generation or a TokenQuery out, or an error that names every wrong field."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtoMessage

from llm_gateway.codec.conversation import decode_messages, decode_tool_choice, decode_tools
from llm_gateway.codec.sampling import MAX_TIME_LIMIT, decode_sampling, seconds
from llm_gateway.codec.violations import Violations
from llm_gateway.errors import InvalidRequest, MessageTooLarge, UnsupportedParameter
from llm_gateway.generation import (
    Constraint,
    Generation,
    JsonSchema,
    Message,
    Priority,
    Reasoning,
    StreamOptions,
    TokenQuery,
)
from llm_gateway.v1 import generation_pb2
from llm_gateway.v1 import llm_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Collection

M = TypeVar("M", bound=ProtoMessage)

CACHE_SALT = re.compile(r"[^@/\\\0]{1,128}\Z")
SCHEMA_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
DEFAULT_SCHEMA_NAME = "response"
MAX_NAME_BYTES = 256
EXACT_FLOATS = 2**53  # a float above may stand for another integer than the caller's
MAX_METADATA = 16
MAX_METADATA_KEY_BYTES = 64
MAX_MERGE_BYTES = 1_048_576
MAX_EXTENSION_BYTES = 256 * 1024
MAX_FLUSH_INTERVAL = 10.0
EFFORTS = {
    value: name.removeprefix("EFFORT_").lower()
    for name, value in generation_pb2.ReasoningOptions.Effort.items()
    if value != generation_pb2.ReasoningOptions.EFFORT_UNSPECIFIED
}
PRIORITIES = {
    generation_pb2.PRIORITY_UNSPECIFIED: Priority.INTERACTIVE,
    generation_pb2.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
    generation_pb2.PRIORITY_BATCH: Priority.BATCH,
}


def parse(kind: type[M], data: bytes, limit: int) -> M:
    """A message of the wire. Raises MessageTooLarge above `limit` bytes, and InvalidRequest if it is not one."""
    if len(data) > limit:
        raise MessageTooLarge(f"The request has {len(data)} bytes; the gateway takes {limit}.")
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise InvalidRequest(f"The request is not a {kind.DESCRIPTOR.full_name}.") from error


def decode_chat(request: pb.ChatCompletionRequest, *, unary: bool, extensions: Collection[str]) -> Generation:
    """A conversation to be answered; `extensions` are the names that `backend_extensions` may have."""
    violations = Violations()
    violations.check(request.messages, "messages", "needs at least one message")
    tools = decode_tools(request.tools, violations)
    allowed = _extensions(request, extensions, violations)
    generation = Generation(
        model=_model(request, violations),
        messages=decode_messages(request.messages, violations),
        sampling=decode_sampling(request.params, violations),
        tools=tools,
        tool_choice=decode_tool_choice(request.tool_choice, tools, violations),
        parallel_tool_calls=request.parallel_tool_calls if request.HasField("parallel_tool_calls") else None,
        reasoning=_reasoning(request, violations),
        cache_salt=_cache_salt(request, violations),
        user=_name(request, "user", violations),
        metadata=_metadata(request, violations),
        extensions=allowed,
        **_shared(request, violations, unary=unary),
    )
    violations.raise_if_any()
    return _without_beams_in_streams(generation)


def decode_generate(request: pb.GenerateRequest, *, unary: bool) -> Generation:
    """A prompt to be continued."""
    violations = Violations()
    violations.check(request.prompt, "prompt", "must not be empty")
    raw = request.raw
    if raw:
        violations.check(not request.HasField("system"), "system", "cannot go with raw: there is no chat template")
    system = (Message(role="system", content=request.system),) if request.HasField("system") else ()
    generation = Generation(
        model=_model(request, violations),
        messages=() if raw else (*system, Message(role="user", content=request.prompt)),
        prompt=request.prompt if raw else None,
        sampling=decode_sampling(request.params, violations),
        **_shared(request, violations, unary=unary),
    )
    violations.raise_if_any()
    return _without_beams_in_streams(generation)


def decode_token_query(request: pb.CountTokensRequest) -> TokenQuery:
    """A prompt to be counted."""
    violations = Violations()
    has_prompt = request.HasField("prompt")
    violations.check(has_prompt or request.messages, "messages", "is needed where there is no prompt")
    violations.check(not (has_prompt and request.messages), "prompt", "cannot go with messages")
    violations.check(not (has_prompt and request.tools), "tools", "cannot go with prompt: there is no chat template")
    query = TokenQuery(
        model=_model(request, violations),
        messages=decode_messages(request.messages, violations),
        tools=decode_tools(request.tools, violations),
        prompt=request.prompt if has_prompt else None,
    )
    violations.raise_if_any()
    return query


def _shared(
    request: pb.ChatCompletionRequest | pb.GenerateRequest, violations: Violations, *, unary: bool
) -> dict[str, Any]:
    """What both kinds of requests have."""
    time_limit = None
    if request.params.HasField("time_limit"):
        time_limit = seconds(request.params.time_limit, "params.time_limit", MAX_TIME_LIMIT, violations)
    priority = PRIORITIES.get(request.priority)
    violations.check(priority is not None, "priority", "is not known")
    return {
        "constraint": _constraint(request.structured_output, violations),
        "stream_options": _stream_options(request.stream_options, violations),
        "priority": priority or Priority.INTERACTIVE,
        "session_id": _name(request, "session_id", violations),
        "time_limit": time_limit,
        "unary": unary,
        "size": request.ByteSize(),
    }


def _without_beams_in_streams(generation: Generation) -> Generation:
    if generation.sampling.get("use_beam_search") and not generation.unary:
        raise UnsupportedParameter.of("params.use_beam_search", "is only for the unary RPCs: beams do not stream")
    return generation


def _model(request: Any, violations: Violations) -> str | None:  # noqa: ANN401 - three kinds of requests
    if not request.HasField("model"):
        return None
    violations.check(request.model, "model", "must not be empty; leave it out for the default")
    return _name(request, "model", violations)


def _name(request: Any, field: str, violations: Violations) -> str | None:  # noqa: ANN401
    if not request.HasField(field):
        return None
    value: str = getattr(request, field)
    violations.check(len(value.encode()) <= MAX_NAME_BYTES, field, f"must have at most {MAX_NAME_BYTES} bytes")
    return value


def _cache_salt(request: pb.ChatCompletionRequest, violations: Violations) -> str | None:
    if not request.HasField("cache_salt"):
        return None
    valid = CACHE_SALT.match(request.cache_salt)
    violations.check(valid, "cache_salt", 'must be 1-128 characters without "@", "/", "\\" and NUL')
    return request.cache_salt


def _metadata(request: pb.ChatCompletionRequest, violations: Violations) -> dict[str, str]:
    if not request.metadata:
        return {}
    if not violations.few(request.metadata, MAX_METADATA, "metadata"):
        return {}
    metadata = dict(request.metadata)
    short = all(
        len(key.encode()) <= MAX_METADATA_KEY_BYTES and len(value.encode()) <= MAX_NAME_BYTES
        for key, value in metadata.items()
    )
    limits = f"keys of {MAX_METADATA_KEY_BYTES} and values of {MAX_NAME_BYTES} bytes at most"
    violations.check(short, "metadata", f"must have {limits}")
    return metadata


def _reasoning(request: pb.ChatCompletionRequest, violations: Violations) -> Reasoning | None:
    if not request.HasField("reasoning"):
        return None
    options = request.reasoning
    effort = None
    if options.effort != generation_pb2.ReasoningOptions.EFFORT_UNSPECIFIED:
        effort = EFFORTS.get(options.effort)
        violations.check(effort is not None, "reasoning.effort", "is not known")
    budget = options.thinking_token_budget if options.HasField("thinking_token_budget") else None
    violations.check(budget is None or budget >= -1, "reasoning.thinking_token_budget", "must be at least -1")
    include = options.include if options.HasField("include") else None
    return Reasoning(effort=effort, thinking_token_budget=budget, include=include)


def _stream_options(options: generation_pb2.StreamOptions, violations: Violations) -> StreamOptions:
    interval = 0.0
    if options.HasField("min_flush_interval"):
        field = "stream_options.min_flush_interval"
        interval = seconds(options.min_flush_interval, field, MAX_FLUSH_INTERVAL, violations)
    merge = options.max_merge_bytes if options.HasField("max_merge_bytes") else StreamOptions().max_merge_bytes
    violations.check(
        1 <= merge <= MAX_MERGE_BYTES, "stream_options.max_merge_bytes", f"must be from 1 to {MAX_MERGE_BYTES}"
    )
    return StreamOptions(
        min_flush_interval=interval, max_merge_bytes=merge, include_token_ids=options.include_token_ids
    )


def _constraint(output: generation_pb2.StructuredOutput, violations: Violations) -> Constraint | None:
    kind = output.WhichOneof("constraint")
    if kind is None:
        return None
    field = f"structured_output.{kind}"
    if kind == "json_schema":
        return Constraint(kind, _json_schema(output.json_schema, field, violations))
    if kind == "choice":
        values = list(output.choice.values)
        violations.check(values and all(values), field, "needs at least one value, none of them empty")
        return Constraint(kind, values)
    value = getattr(output, kind)
    violations.check(value, field, "must be true" if kind == "json_object" else "must not be empty")
    return Constraint(kind, value)


def _json_schema(schema: generation_pb2.JsonSchema, field: str, violations: Violations) -> JsonSchema:
    name = schema.name if schema.HasField("name") else DEFAULT_SCHEMA_NAME
    violations.check(SCHEMA_NAME.match(name), f"{field}.name", 'must be 1-64 letters, digits, "_" or "-"')
    return JsonSchema(
        name=name,
        schema=violations.json_object(schema.schema, f"{field}.schema") or {},
        strict=schema.strict if schema.HasField("strict") else None,
    )


def _extensions(request: pb.ChatCompletionRequest, allowed: Collection[str], violations: Violations) -> dict[str, Any]:
    """The backend's own fields. Raises UnsupportedParameter for one that the operator does not allow."""
    if not request.HasField("backend_extensions"):
        return {}
    for name in request.backend_extensions.fields:
        if name not in allowed:
            shown = name.encode()[:MAX_METADATA_KEY_BYTES].decode(errors="ignore")
            field = f"backend_extensions.{shown}"
            raise UnsupportedParameter.of(field, "is not among the extensions that the operator allows")
    if request.backend_extensions.ByteSize() > MAX_EXTENSION_BYTES:
        violations.add("backend_extensions", f"must have at most {MAX_EXTENSION_BYTES:,} bytes")
        return {}
    try:
        extensions: dict[str, Any] = _whole_numbers(MessageToDict(request.backend_extensions))
    except ValueError:  # JSON has neither NaN nor infinity
        violations.add("backend_extensions", "must have only finite numbers")
        return {}
    return extensions


def _whole_numbers(value: Any) -> Any:  # noqa: ANN401 - whatever a Struct holds
    """A Struct has only floats; 1.0 was an integer in the caller's mind, and vLLM wants it so."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= EXACT_FLOATS:
        return int(value)
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    if isinstance(value, dict):
        return {key: _whole_numbers(item) for key, item in value.items()}
    return value
