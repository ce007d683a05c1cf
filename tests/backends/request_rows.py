# SPDX-License-Identifier: Apache-2.0
"""The table of what each field of a request becomes on its way to vLLM, written down as the contract has it.

A row is the path of a field, a request in protobuf's JSON that sets it, and what that adds to the backend's request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor

Row = tuple[str, dict[str, Any], dict[str, Any]]

DETECTION = {"max_pattern_size": 20, "min_pattern_size": 2, "min_count": 3}

# name in GenerationParams, what is set, what a chat sends, what a raw prompt sends where that is something else
PARAMS: list[
    tuple[str, dict[str, Any], dict[str, Any]] | tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]
] = [
    ("max_tokens", {"max_tokens": 7}, {"max_completion_tokens": 7}, {"max_tokens": 7}),
    ("min_tokens", {"min_tokens": 2}, {"min_tokens": 2}),
    ("min_tokens", {"min_tokens": 0}, {"min_tokens": 0}),
    ("temperature", {"temperature": 0.7}, {"temperature": 0.7}),
    ("temperature", {"temperature": 0}, {"temperature": 0.0}),
    ("top_p", {"top_p": 0.95}, {"top_p": 0.95}),
    ("top_k", {"top_k": 40}, {"top_k": 40}),
    ("top_k", {"top_k": -1}, {"top_k": -1}),
    ("top_k", {"top_k": 0}, {"top_k": 0}),
    ("min_p", {"min_p": 0.05}, {"min_p": 0.05}),
    ("presence_penalty", {"presence_penalty": -1.5}, {"presence_penalty": -1.5}),
    ("frequency_penalty", {"frequency_penalty": 0.1}, {"frequency_penalty": 0.1}),
    ("frequency_penalty", {"frequency_penalty": 0}, {"frequency_penalty": 0.0}),
    ("repetition_penalty", {"repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
    ("seed", {"seed": "-9007199254740993"}, {"seed": -9007199254740993}),
    ("seed", {"seed": "0"}, {"seed": 0}),
    ("n", {"n": 3}, {"n": 3}),
    ("stop", {"stop": ["\n\n", "Ü\u2028"]}, {"stop": ["\n\n", "Ü\u2028"]}),
    ("stop_token_ids", {"stop_token_ids": [0, 4294967295]}, {"stop_token_ids": [0, 4294967295]}),
    ("include_stop", {"include_stop": True}, {"include_stop_str_in_output": True}),
    ("include_stop", {"include_stop": False}, {"include_stop_str_in_output": False}),
    ("ignore_eos", {"ignore_eos": False}, {"ignore_eos": False}),
    ("ignore_eos", {"ignore_eos": True}, {"ignore_eos": True}),
    ("logit_bias", {"logit_bias": {"7": -1.5, "0": 100}}, {"logit_bias": {"7": -1.5, "0": 100.0}}),
    ("logprobs", {"logprobs": True}, {"logprobs": True}, {"logprobs": 0}),
    ("logprobs", {"logprobs": False}, {"logprobs": False}, {}),
    ("top_logprobs", {"logprobs": True, "top_logprobs": 5}, {"logprobs": True, "top_logprobs": 5}, {"logprobs": 5}),
    ("top_logprobs", {"logprobs": True, "top_logprobs": 0}, {"logprobs": True, "top_logprobs": 0}, {"logprobs": 0}),
    ("bad_words", {"bad_words": ["sea"]}, {"bad_words": ["sea"]}),
    ("allowed_token_ids", {"allowed_token_ids": [5, 6]}, {"allowed_token_ids": [5, 6]}),
    (
        "logprob_token_ids",
        {"logprobs": True, "logprob_token_ids": [9]},
        {"logprobs": True, "logprob_token_ids": [9]},
        {"logprobs": 0, "logprob_token_ids": [9]},
    ),
    ("skip_special_tokens", {"skip_special_tokens": False}, {"skip_special_tokens": False}),
    (
        "spaces_between_special_tokens",
        {"spaces_between_special_tokens": False},
        {"spaces_between_special_tokens": False},
    ),
    ("truncate_prompt_tokens", {"truncate_prompt_tokens": -1}, {"truncate_prompt_tokens": -1}),
    ("truncation_side", {"truncation_side": "TRUNCATION_SIDE_LEFT"}, {"truncation_side": "left"}),
    ("truncation_side", {"truncation_side": "TRUNCATION_SIDE_RIGHT"}, {"truncation_side": "right"}),
    ("length_penalty", {"length_penalty": 0.8}, {"length_penalty": 0.8}),
    ("watermarking", {"watermarking": False}, {"watermarking": False}),
    ("repetition_detection.max_pattern_size", {"repetition_detection": DETECTION}, {"repetition_detection": DETECTION}),
    ("repetition_detection.min_pattern_size", {"repetition_detection": DETECTION}, {"repetition_detection": DETECTION}),
    ("repetition_detection.min_count", {"repetition_detection": DETECTION}, {"repetition_detection": DETECTION}),
    (
        "repetition_detection.min_count",
        {"repetition_detection": {"max_pattern_size": 4, "min_count": 2}},
        {"repetition_detection": {"max_pattern_size": 4, "min_count": 2}},
    ),
]

SCHEMA = '{"type": "object", "maximum": 1.0, "minimum": 9007199254740993}'
READ_SCHEMA = {"type": "object", "maximum": 1.0, "minimum": 9007199254740993}


def _structured(kind: str, value: Any, sent: dict[str, Any], path: str = "") -> Row:
    return (f"structured_output.{path or kind}", {"structured_output": {kind: value}}, sent)


def _response_format(**schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


STRUCTURED: list[Row] = [
    _structured(
        "json_schema", {"schema": SCHEMA}, _response_format(name="response", schema=READ_SCHEMA), "json_schema.schema"
    ),
    _structured(
        "json_schema",
        {"schema": "{}", "name": "my-form"},
        _response_format(name="my-form", schema={}),
        "json_schema.name",
    ),
    _structured(
        "json_schema",
        {"schema": "{}", "strict": False},
        _response_format(name="response", schema={}, strict=False),
        "json_schema.strict",
    ),
    _structured("json_object", True, {"response_format": {"type": "json_object"}}),
    _structured("regex", "a+", {"structured_outputs": {"regex": "a+"}}),
    _structured(
        "choice", {"values": ["yes", "no"]}, {"structured_outputs": {"choice": ["yes", "no"]}}, "choice.values"
    ),
    _structured("grammar", 'root ::= "a"', {"structured_outputs": {"grammar": 'root ::= "a"'}}),
]

SHARED: list[Row] = [
    *STRUCTURED,
    ("model", {"model": "org/Model-7B:adapter"}, {"model": "org/Model-7B:adapter"}),
    ("session_id", {"session_id": "s-1"}, {"session_id": "s-1"}),
    ("priority", {"priority": "PRIORITY_BATCH"}, {"priority": 1}),
    ("priority", {"priority": "PRIORITY_INTERACTIVE"}, {}),
    ("stream_options.include_token_ids", {"stream_options": {"include_token_ids": True}}, {"return_token_ids": True}),
    ("stream_options.include_token_ids", {"stream_options": {"include_token_ids": False}}, {}),
]


def _said(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"messages": list(messages)}


def _message(path: str, set_: dict[str, Any], sent: dict[str, Any], role: str = "user") -> Row:
    """A message with this in it; its text is "hi" where nothing else is said."""
    if not {"content", "content_parts", "tool_calls"} & set_.keys():
        set_, sent = {"content": "hi"} | set_, {"content": "hi"} | sent
    request = _said({"role": f"ROLE_{role.upper()}"} | set_)
    return (f"messages.{path}", request, _said({"role": role} | sent))


def _part(path: str, set_: dict[str, Any], sent: dict[str, Any]) -> Row:
    return _message(f"content_parts.{path}", {"content_parts": [set_]}, {"content": [sent]})


CALL = {"id": "call-1", "name": "weather", "arguments": '{"city": "Köln"'}
SENT_CALL = {"id": "call-1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Köln"'}}
PIXEL = "data:image/png;base64,iVBORw0KGgo="

MESSAGES: list[Row] = [
    *(_message("role", {}, {}, role) for role in ("system", "developer", "user", "assistant")),
    _message("content", {"content": ""}, {"content": ""}),
    _message("content", {"content": 'a "quote",\u2028\0 and 🌍'}, {"content": 'a "quote",\u2028\0 and 🌍'}),
    _part("text", {"text": ""}, {"type": "text", "text": ""}),
    _part("image_url.url", {"image_url": {"url": PIXEL}}, {"type": "image_url", "image_url": {"url": PIXEL}}),
    _part(
        "image_url.detail",
        {"image_url": {"url": "https://x/y.png", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
    ),
    *(
        _part(
            f"input_audio.{field}",
            {"input_audio": {"data": "UklGRg==", "format": "wav"}},
            {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        )
        for field in ("data", "format")
    ),
    *(
        _part(f"{kind}.url", {kind: {"url": "http://x/y"}}, {"type": kind, kind: {"url": "http://x/y"}})
        for kind in ("audio_url", "video_url")
    ),
    _message("name", {"name": "Ada"}, {"name": "Ada"}),
    *(
        _message(f"tool_calls.{field}", {"tool_calls": [CALL]}, {"tool_calls": [SENT_CALL]}, "assistant")
        for field in ("id", "name", "arguments")
    ),
    _message("tool_call_id", {"tool_call_id": "call-1"}, {"tool_call_id": "call-1"}, "tool"),
    _message("reasoning", {"reasoning": "Hm."}, {"reasoning": "Hm."}, "assistant"),
]


def _tool(path: str, set_: dict[str, Any], sent: dict[str, Any]) -> Row:
    function = {"name": "weather"} | sent
    return (f"tools.{path}", {"tools": [{"name": "weather"} | set_]}, {"tools": [_function(function)]})


def _function(function: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": function}


def _tool_choice(path: str, choice: dict[str, Any], sent: Any) -> Row:
    tools = [_function({"name": "weather"})]
    request = {"tools": [{"name": "weather"}], "tool_choice": choice}
    return (f"tool_choice.{path}", request, {"tools": tools, "tool_choice": sent})


CHAT: list[Row] = [
    *SHARED,
    *MESSAGES,
    _tool("name", {}, {}),
    _tool("description", {"description": ""}, {"description": ""}),
    _tool("parameters", {"parameters": SCHEMA}, {"parameters": READ_SCHEMA}),
    _tool("strict", {"strict": False}, {"strict": False}),
    _tool("strict", {"strict": True}, {"strict": True}),
    _tool_choice("mode", {"mode": "MODE_NONE"}, "none"),
    _tool_choice("mode", {"mode": "MODE_AUTO"}, "auto"),
    _tool_choice("mode", {"mode": "MODE_REQUIRED"}, "required"),
    _tool_choice("function_name", {"function_name": "weather"}, _function({"name": "weather"})),
    ("tool_choice.mode", {"tool_choice": {"mode": "MODE_NONE"}}, {}),
    ("parallel_tool_calls", {"parallel_tool_calls": False}, {"parallel_tool_calls": False}),
    *(
        ("reasoning.effort", {"reasoning": {"effort": f"EFFORT_{effort.upper()}"}}, {"reasoning_effort": effort})
        for effort in ("none", "minimal", "low", "medium", "high", "xhigh", "max")
    ),
    ("reasoning.thinking_token_budget", {"reasoning": {"thinking_token_budget": 0}}, {"thinking_token_budget": 0}),
    ("reasoning.thinking_token_budget", {"reasoning": {"thinking_token_budget": -1}}, {"thinking_token_budget": -1}),
    ("reasoning.include", {"reasoning": {"include": False}}, {"include_reasoning": False}),
    ("cache_salt", {"cache_salt": "tenant-7"}, {"cache_salt": "tenant-7"}),
    (
        "backend_extensions",
        {
            "backend_extensions": {
                "vllm_xargs": {"n": 3, "f": 0.5, "big": 1e300, "l": [1, None, "x", True]},
                "echo": False,
            }
        },
        {"vllm_xargs": {"n": 3, "f": 0.5, "big": 1e300, "l": [1, None, "x", True]}, "echo": False},
    ),
]

GENERATE: list[Row] = [
    *SHARED,
    ("prompt", {"prompt": "Once\u2029"}, {"messages": [{"role": "user", "content": "Once\u2029"}]}),
    (
        "system",
        {"system": "Be brief."},
        _said({"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}),
    ),
    ("raw", {"raw": False}, {}),
]

RAW_PROMPT: list[Row] = [
    *SHARED,
    ("prompt", {"prompt": "Once\u2029"}, {"prompt": "Once\u2029"}),
]

CHAT += [(f"params.{row[0]}", {"params": row[1]}, row[2]) for row in PARAMS]
GENERATE += [(f"params.{row[0]}", {"params": row[1]}, row[2]) for row in PARAMS]
RAW_PROMPT += [(f"params.{row[0]}", {"params": row[1]}, row[-1]) for row in PARAMS]

# For the gateway itself, or with a test of its own beside the table.
OTHERS = {
    "params.time_limit",
    "params.use_beam_search",
    "stream_options.max_merge_bytes",
    "stream_options.min_flush_interval",
}
OTHERS_OF_CHAT = OTHERS | {"user", "metadata"}

WHOLE = {"google.protobuf.Struct", "google.protobuf.Duration"}


def paths(kind: Descriptor, prefix: str = "") -> Iterator[str]:
    """The path of every field of a message that holds a value, down to the last."""
    for field in kind.fields:
        path = f"{prefix}{field.name}"
        inner = field.message_type
        if inner is None or inner.GetOptions().map_entry or inner.full_name in WHOLE:
            yield path
        else:
            yield from paths(inner, f"{path}.")
