# SPDX-License-Identifier: Apache-2.0
"""A generation as the JSON that a backend takes. What the caller left unset is left out: vLLM refuses null for many
fields, and its defaults come from the model.

Names are in the dialect; a field of ours whose name there is not is left out too, for the request was refused before
(see refusal.py) unless every backend does that unasked.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import msgspec

from llm_gateway.generation import AudioPart, ImagePart, MediaPart, NamedTool, Priority, TextPart

if TYPE_CHECKING:
    from llm_gateway.backends.dialect import Dialect
    from llm_gateway.generation import Generation, Message, Part, Reasoning, TokenQuery, Tool

BATCH_PRIORITY = 1  # vLLM: a lower number goes first, and 0 is the default

CHAT_PATH = "/v1/chat/completions"
COMPLETION_PATH = "/v1/completions"


def generation_request(
    generation: Generation, model: str, dialect: Dialect, context_length: int | None
) -> tuple[str, bytes]:
    """The path and the body. `context_length` bounds a raw prompt that sets no `max_tokens`: see RawLength."""
    body: dict[str, Any] = {"model": model}
    if generation.prompt is None:
        path = CHAT_PATH
        body["messages"] = [_message(message, dialect) for message in generation.messages]
        _chat(generation, body, dialect)
    else:
        path = COMPLETION_PATH
        body["prompt"] = generation.prompt
        _completion(generation, body, dialect, context_length)
    if generation.sampling.get("use_beam_search"):
        body["stream"] = False
    else:
        body["stream"] = True
        if dialect.stream_options is not None:
            body["stream_options"] = dialect.stream_options
    _common(generation, body, dialect)
    return path, msgspec.json.encode(body)


def tokenize_request(query: TokenQuery, model: str, dialect: Dialect) -> bytes:
    """The body of `/tokenize`, of a dialect that has it."""
    counting = dialect.counting
    assert counting is not None, "else it is refused"  # noqa: S101 - narrows the type
    if query.prompt is not None:
        return msgspec.json.encode({"model": model, counting.prompt: query.prompt, **counting.extra})
    body: dict[str, Any] = {"model": model, "messages": [_message(message, dialect) for message in query.messages]}
    if query.tools:
        body["tools"] = [_tool(tool, dialect) for tool in query.tools]
    return msgspec.json.encode(body)


def _common(generation: Generation, body: dict[str, Any], dialect: Dialect) -> None:
    for field in ("session_id", "cache_salt"):
        value = getattr(generation, field)
        if value is not None and field in dialect.fields:
            body[field] = value
    if generation.priority is Priority.BATCH and "priority" in dialect.fields:
        body["priority"] = BATCH_PRIORITY
    if generation.stream_options.include_token_ids:
        body["return_token_ids"] = True
    body.update(generation.extensions)


def _chat(generation: Generation, body: dict[str, Any], dialect: Dialect) -> None:
    sampling, names = generation.sampling, dialect.params
    for name, value in sampling.items():
        if name in names:
            body[names[name]] = value
    if sampling:
        _odd_values(body, dialect)
    if generation.tools:
        _tools(generation, body, dialect)
    if generation.parallel_tool_calls is not None and "parallel_tool_calls" in dialect.fields:
        body["parallel_tool_calls"] = generation.parallel_tool_calls
    if generation.constraint is not None:
        body.update(dialect.constraints[generation.constraint.kind](generation.constraint.value))
    if generation.reasoning is not None:
        _reasoning(generation.reasoning, body, dialect.fields)


def _tools(generation: Generation, body: dict[str, Any], dialect: Dialect) -> None:
    body["tools"] = [_tool(tool, dialect) for tool in generation.tools]
    if isinstance(generation.tool_choice, NamedTool):
        body["tool_choice"] = {"type": "function", "function": {"name": generation.tool_choice.name}}
    elif generation.tool_choice is not None and "tool_choice.mode" in dialect.fields:
        body["tool_choice"] = generation.tool_choice


def _completion(generation: Generation, body: dict[str, Any], dialect: Dialect, context_length: int | None) -> None:
    sampling, names = generation.sampling, dialect.raw_params
    for name, value in sampling.items():
        if names.get(name):
            body[names[name]] = value
    if "max_tokens" not in body and context_length is not None:
        body["max_tokens"] = context_length
    if sampling.get("logprobs"):
        # A completion's `logprobs` is the number of alternatives, a chat's says whether there are any.
        body["logprobs"] = sampling.get("top_logprobs", 0)
    _odd_top_k(body, dialect)
    if generation.constraint is not None:
        body.update(dialect.raw_constraints[generation.constraint.kind](generation.constraint.value))


def _odd_values(body: dict[str, Any], dialect: Dialect) -> None:
    """Values that mean something else to this dialect than to us."""
    _odd_top_k(body, dialect)
    if dialect.least_top_logprobs and body.get("logprobs"):
        body["top_logprobs"] = max(body.get("top_logprobs", 0), dialect.least_top_logprobs)


def _odd_top_k(body: dict[str, Any], dialect: Dialect) -> None:
    if dialect.every_token is not None and body.get("top_k") in {0, -1}:
        body["top_k"] = dialect.every_token


def _reasoning(reasoning: Reasoning, body: dict[str, Any], fields: frozenset[str]) -> None:
    if reasoning.effort is not None:
        body["reasoning_effort"] = reasoning.effort
    if reasoning.thinking_token_budget is not None:
        body["thinking_token_budget"] = reasoning.thinking_token_budget
    if reasoning.include is not None and "reasoning.include" in fields:
        body["include_reasoning"] = reasoning.include


def _message(message: Message, dialect: Dialect) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role if message.role != "developer" else dialect.developer}
    if isinstance(message.content, str):
        body["content"] = message.content
    elif message.content is not None:
        body["content"] = [_part(part) for part in message.content]
    if message.name is not None:
        body["name"] = message.name
    if message.tool_calls:
        body["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        body["tool_call_id"] = message.tool_call_id
    if message.reasoning is not None:
        body[dialect.reasoning] = message.reasoning
    return body


def _part(part: Part) -> dict[str, Any]:
    match part:
        case TextPart(text):
            return {"type": "text", "text": text}
        case ImagePart(url, detail):
            image = {"url": url} if detail is None else {"url": url, "detail": detail}
            return {"type": "image_url", "image_url": image}
        case AudioPart(data, format_):
            audio = {"data": base64.b64encode(data).decode(), "format": format_}
            return {"type": "input_audio", "input_audio": audio}
        case MediaPart(kind, url):
            return {"type": kind, kind: {"url": url}}


def _tool(tool: Tool, dialect: Dialect) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    if tool.strict is not None and "tools.strict" in dialect.fields:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}
