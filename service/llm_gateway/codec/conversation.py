# SPDX-License-Identifier: Apache-2.0
"""Messages, tools and the choice among them, from the wire."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llm_gateway.generation import (
    AudioPart,
    ImagePart,
    MediaPart,
    Message,
    NamedTool,
    TextPart,
    Tool,
    ToolCall,
    ToolMode,
)
from llm_gateway.v1 import message_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Collection

    from llm_gateway.codec.violations import Violations
    from llm_gateway.generation import Part

ROLES = {
    pb.ROLE_SYSTEM: "system",
    pb.ROLE_DEVELOPER: "developer",
    pb.ROLE_USER: "user",
    pb.ROLE_ASSISTANT: "assistant",
    pb.ROLE_TOOL: "tool",
}
TOOL_MODES = {
    pb.ToolChoice.MODE_NONE: ToolMode.NONE,
    pb.ToolChoice.MODE_AUTO: ToolMode.AUTO,
    pb.ToolChoice.MODE_REQUIRED: ToolMode.REQUIRED,
}
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
MAX_MESSAGES = 65_536
MAX_TOOLS = 1024
MAX_PARTS = 1024
MAX_CALLS = 1024
MAX_PARTS_AND_CALLS = 65_536  # of all messages: reading them must not hold up the other callers
IMAGE_DETAILS = frozenset({"low", "high", "auto"})
URL_SCHEMES = ("http://", "https://", "data:")


def decode_messages(messages: Collection[pb.Message], violations: Violations) -> tuple[Message, ...]:
    """The conversation."""
    if not violations.few(messages, MAX_MESSAGES, "messages"):
        return ()
    together = sum(len(message.content_parts) + len(message.tool_calls) for message in messages)
    if together > MAX_PARTS_AND_CALLS:
        violations.add("messages", f"must have at most {MAX_PARTS_AND_CALLS:,} content_parts and tool_calls together")
        return ()
    return tuple(_message(message, f"messages[{index}]", violations) for index, message in enumerate(messages))


def decode_tools(tools: Collection[pb.Tool], violations: Violations) -> tuple[Tool, ...]:
    """The functions that may be called."""
    if not tools or not violations.few(tools, MAX_TOOLS, "tools"):
        return ()
    decoded = tuple(_tool(tool, f"tools[{index}]", violations) for index, tool in enumerate(tools))
    names: set[str] = set()
    for index, tool in enumerate(decoded):
        violations.check(tool.name not in names, f"tools[{index}].name", "must be unique")
        names.add(tool.name)
    return decoded


def decode_tool_choice(
    choice: pb.ToolChoice, tools: tuple[Tool, ...], violations: Violations
) -> ToolMode | NamedTool | None:
    """Whether, and which, functions are called; None leaves it to the backend."""
    kind = choice.WhichOneof("choice")
    if kind == "function_name":
        known = any(tool.name == choice.function_name for tool in tools)
        violations.check(known, "tool_choice.function_name", "must be the name of one of the tools")
        return NamedTool(choice.function_name)
    if kind is None or choice.mode == pb.ToolChoice.MODE_UNSPECIFIED:
        return None
    mode = TOOL_MODES.get(choice.mode)
    violations.check(mode is not None, "tool_choice.mode", "is not known")
    if mode is not ToolMode.NONE:
        violations.check(tools, "tool_choice", "needs tools")
    elif not tools:
        return None  # nothing to call and nothing called: the backend would refuse a choice without tools
    return mode


def _message(message: pb.Message, field: str, violations: Violations) -> Message:
    role = ROLES.get(message.role)
    violations.check(role is not None, f"{field}.role", "is needed, and must be known")
    has_content = message.HasField("content")
    violations.check(not (has_content and message.content_parts), field, "has both content and content_parts")
    if not has_content and not message.content_parts:
        violations.check(role == "assistant" and message.tool_calls, field, "needs content or content_parts")
    _check_role_fields(message, role, field, violations)
    parts = _parts(message.content_parts, f"{field}.content_parts", violations)
    return Message(
        role=role or "user",
        content=message.content if has_content else (parts or None),
        name=message.name if message.HasField("name") else None,
        tool_calls=_calls(message.tool_calls, f"{field}.tool_calls", violations),
        tool_call_id=message.tool_call_id if message.HasField("tool_call_id") else None,
        reasoning=message.reasoning if message.HasField("reasoning") else None,
    )


def _check_role_fields(message: pb.Message, role: str | None, field: str, violations: Violations) -> None:
    """Fields that only one role may, or must, have."""
    if role != "assistant":
        violations.check(not message.tool_calls, f"{field}.tool_calls", "is only for ROLE_ASSISTANT")
        violations.check(not message.HasField("reasoning"), f"{field}.reasoning", "is only for ROLE_ASSISTANT")
    if role == "tool":
        violations.check(message.tool_call_id, f"{field}.tool_call_id", "is needed with ROLE_TOOL")
    else:
        violations.check(not message.HasField("tool_call_id"), f"{field}.tool_call_id", "is only for ROLE_TOOL")


def _calls(calls: Collection[pb.ToolCall], field: str, violations: Violations) -> tuple[ToolCall, ...]:
    if not calls or not violations.few(calls, MAX_CALLS, field):
        return ()
    for index, call in enumerate(calls):
        violations.check(call.id, f"{field}[{index}].id", "is needed")
        violations.check(call.name, f"{field}[{index}].name", "is needed")
    return tuple(ToolCall(call.id, call.name, call.arguments) for call in calls)


def _parts(parts: Collection[pb.ContentPart], field: str, violations: Violations) -> tuple[Part, ...]:
    if not parts or not violations.few(parts, MAX_PARTS, field):
        return ()
    return tuple(_part(part, f"{field}[{index}]", violations) for index, part in enumerate(parts))


def _part(part: pb.ContentPart, field: str, violations: Violations) -> Part:
    kind = part.WhichOneof("part")
    if kind == "text":
        return TextPart(part.text)
    if kind == "image_url":
        image = part.image_url
        detail = image.detail if image.HasField("detail") else None
        known = detail is None or detail in IMAGE_DETAILS
        violations.check(known, f"{field}.image_url.detail", 'must be "low", "high" or "auto"')
        return ImagePart(_url(image.url, f"{field}.image_url.url", violations), detail)
    if kind == "input_audio":
        violations.check(part.input_audio.data, f"{field}.input_audio.data", "is needed")
        violations.check(part.input_audio.format, f"{field}.input_audio.format", "is needed")
        return AudioPart(part.input_audio.data, part.input_audio.format)
    if kind in {"audio_url", "video_url"}:
        return MediaPart(kind, _url(getattr(part, kind).url, f"{field}.{kind}.url", violations))
    violations.add(field, "needs a part of a known kind")
    return TextPart("")


def _url(url: str, field: str, violations: Violations) -> str:
    violations.check(url.startswith(URL_SCHEMES), field, "must be an http, https or data URL")
    return url


def _tool(tool: pb.Tool, field: str, violations: Violations) -> Tool:
    valid = NAME.match(tool.name)
    violations.check(valid, f"{field}.name", 'must be 1-64 letters, digits, "_", "-" or "."')
    parameters = None
    if tool.HasField("parameters"):
        parameters = violations.json_object(tool.parameters, f"{field}.parameters")
    return Tool(
        name=tool.name,
        description=tool.description if tool.HasField("description") else None,
        parameters=parameters,
        strict=tool.strict if tool.HasField("strict") else None,
    )
