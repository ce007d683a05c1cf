# SPDX-License-Identifier: Apache-2.0
"""The chat template of the recorded model: what a list of messages is as one prompt."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from llm_gateway.simulator.errors import ApiError

Json = dict[str, Any]


def render_chat(body: Json, model: str) -> str:
    """The prompt text of a chat request (or of a `/tokenize` request with messages)."""
    if not body["messages"]:
        message = "Cannot apply chat template to an empty conversation. Provide at least one message."
        raise ApiError.bad_request(message)
    parts = []
    if body.get("tools"):
        tools = json.dumps([_tool(tool) for tool in body["tools"]], ensure_ascii=False)
        parts.append(
            f"<|im_start|>system\nTools: {tools}\n"
            'Call one as <tool_call>{"name": ..., "arguments": {...}}</tool_call>.<|im_end|>\n'
        )
    messages = body["messages"]
    parts += [_turn(message, model) for message in messages]
    if body.get("continue_final_message") and parts:
        parts[-1] = parts[-1].removesuffix("<|im_end|>\n")
    elif body.get("add_generation_prompt", True):
        parts.append("<|im_start|>assistant\n")
    return "".join(parts)


def _turn(message: Json, model: str) -> str:
    calls = message.get("tool_calls") or []
    shown = "".join(f"<tool_call>{json.dumps(_call(call), ensure_ascii=False)}</tool_call>" for call in calls)
    return f"<|im_start|>{message.get('role', '')}\n{message_text(message, model)}{shown}<|im_end|>\n"


def _tool(tool: Json) -> Json:
    """A tool as vLLM hands it to the template: its known keys, in its order."""
    given = tool.get("function") or {}
    function = {key: given.get(key) for key in ("name", "description", "parameters")}
    function |= {key: given[key] for key in ("strict", "defer_loading") if given.get(key) is not None}
    return {"type": tool.get("type", "function"), "function": function}


def _call(call: Json) -> Json:
    """A call as the template sees it: its arguments are an object by then."""
    function = dict(call.get("function") or {})
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        with suppress(ValueError):  # what is no JSON stays a string
            function["arguments"] = json.loads(arguments or "{}")
    return function


def message_text(message: Json, model: str = "it") -> str:
    """A message's content as one string; a part that is no text is refused, for the model is not multimodal."""
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(_part_text(part, model) for part in content)


def _part_text(part: Any, model: str) -> str:  # noqa: ANN401 (decoded JSON)
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return str(part["text"])
    raise ApiError.bad_request(f"{model} is not a multimodal model")
