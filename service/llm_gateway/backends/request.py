# SPDX-License-Identifier: Apache-2.0
"""A generation as the JSON that vLLM takes. What the caller left unset is left out: vLLM refuses null for many fields,
and its defaults come from the model.

Field names: `vllm/entrypoints/openai/chat_completion/protocol.py` and `…/completion/protocol.py` of 0.33.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import msgspec

from llm_gateway.generation import AudioPart, ImagePart, MediaPart, NamedTool, Priority, TextPart

if TYPE_CHECKING:
    from llm_gateway.generation import Constraint, Generation, Message, Part, TokenQuery, Tool

# Where vLLM's name for a parameter is not ours.
RENAMED = {"include_stop": "include_stop_str_in_output"}
BATCH_PRIORITY = 1  # vLLM: a lower number goes first, and 0 is the default

CHAT_PATH = "/v1/chat/completions"
COMPLETION_PATH = "/v1/completions"


def generation_request(generation: Generation, model: str, context_length: int | None) -> tuple[str, bytes]:
    """The path and the body. `context_length` bounds a raw prompt that sets no `max_tokens`: vLLM's default is 16."""
    body: dict[str, Any] = {"model": model}
    if generation.prompt is None:
        path = CHAT_PATH
        body["messages"] = [_message(message) for message in generation.messages]
        _chat(generation, body)
    else:
        path = COMPLETION_PATH
        body["prompt"] = generation.prompt
        _completion(generation, body, context_length)
    if generation.sampling.get("use_beam_search"):
        body["stream"] = False
    else:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    _common(generation, body)
    return path, msgspec.json.encode(body)


def tokenize_request(query: TokenQuery, model: str) -> bytes:
    """The body of `/tokenize`."""
    if query.prompt is not None:
        return msgspec.json.encode({"model": model, "prompt": query.prompt})
    body: dict[str, Any] = {"model": model, "messages": [_message(message) for message in query.messages]}
    if query.tools:
        body["tools"] = [_tool(tool) for tool in query.tools]
    return msgspec.json.encode(body)


def _common(generation: Generation, body: dict[str, Any]) -> None:
    for field in ("session_id", "cache_salt"):
        value = getattr(generation, field)
        if value is not None:
            body[field] = value
    if generation.priority is Priority.BATCH:
        body["priority"] = BATCH_PRIORITY
    if generation.stream_options.include_token_ids:
        body["return_token_ids"] = True
    body.update(generation.extensions)


def _sampling(generation: Generation, body: dict[str, Any], *, without: frozenset[str]) -> None:
    for name, value in generation.sampling.items():
        if name not in without:
            body[RENAMED.get(name, name)] = value


def _chat(generation: Generation, body: dict[str, Any]) -> None:
    _sampling(generation, body, without=frozenset({"max_tokens"}))
    if "max_tokens" in generation.sampling:
        body["max_completion_tokens"] = generation.sampling["max_tokens"]
    if generation.tools:
        body["tools"] = [_tool(tool) for tool in generation.tools]
    if isinstance(generation.tool_choice, NamedTool):
        body["tool_choice"] = {"type": "function", "function": {"name": generation.tool_choice.name}}
    elif generation.tool_choice is not None:
        body["tool_choice"] = generation.tool_choice
    if generation.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = generation.parallel_tool_calls
    if generation.constraint is not None:
        body.update(_constraint(generation.constraint))
    _reasoning(generation, body)


def _completion(generation: Generation, body: dict[str, Any], context_length: int | None) -> None:
    _sampling(generation, body, without=frozenset({"logprobs", "top_logprobs"}))
    if "max_tokens" not in body and context_length is not None:
        body["max_tokens"] = context_length  # vLLM cuts it to what the prompt leaves
    if generation.sampling.get("logprobs"):
        # A completion's `logprobs` is the number of alternatives, a chat's says whether there are any.
        body["logprobs"] = generation.sampling.get("top_logprobs", 0)
    if generation.constraint is not None:
        body.update(_constraint(generation.constraint))


def _reasoning(generation: Generation, body: dict[str, Any]) -> None:
    reasoning = generation.reasoning
    if reasoning is None:
        return
    if reasoning.effort is not None:
        body["reasoning_effort"] = reasoning.effort
    if reasoning.thinking_token_budget is not None:
        body["thinking_token_budget"] = reasoning.thinking_token_budget
    if reasoning.include is not None:
        body["include_reasoning"] = reasoning.include


def _constraint(constraint: Constraint) -> dict[str, Any]:
    if constraint.kind == "json_schema":
        schema: dict[str, Any] = {"name": constraint.value.name, "schema": constraint.value.schema}
        if constraint.value.strict is not None:
            schema["strict"] = constraint.value.strict
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    if constraint.kind == "json_object":
        return {"response_format": {"type": "json_object"}}
    return {"structured_outputs": {constraint.kind: constraint.value}}


def _message(message: Message) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role}
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
        body["reasoning"] = message.reasoning
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


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}
