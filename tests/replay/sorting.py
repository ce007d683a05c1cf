# SPDX-License-Identifier: Apache-2.0
"""Which recording is put to which test. A recording that is in no list, or in two, fails the run."""

from __future__ import annotations

from dataclasses import dataclass

# Whole answers, streamed or not, of /v1/chat/completions and /v1/completions.
ANSWERS = {
    "chat", "chat_default_len", "chat_ignore_eos", "clamp", "completion", "completion_batch", "completion_stream",
    "content_parts", "err_role", "force_usage", "json_object", "json_schema", "json_schema_stream", "key1", "key2",
    "logprobs", "max_completion_tokens", "min_tokens", "n2", "no_model_field", "request_id_body", "request_id_header",
    "return_token_ids", "sse_keep_alive", "stop_string", "stop_string_included", "stop_string_stream", "stop_token_id",
    "stop_token_ids", "stream", "stream_logprobs", "stream_n2", "stream_natural_stop", "stream_raw", "stream_usage",
    "stream_usage_cont", "structured_choice", "structured_regex", "tool_none", "tool_result_turn", "unknown_field",
    "flags/tool_auto", "flags/tool_named", "flags/tool_named_stream", "flags/tool_named_strict", "flags/tool_required",
    "flags/tool_required_stream", "flags/tool_required_strict", "flags/tool_required_strict_stream",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the caller is told: the code, the reason, and the fields that are wrong."""

    code: str
    reason: str
    fields: tuple[str, ...] = ()


def _invalid(*fields: str) -> Refusal:
    return Refusal("INVALID_ARGUMENT", "INVALID_REQUEST", fields)


_TOO_LONG = Refusal("INVALID_ARGUMENT", "CONTEXT_LENGTH_EXCEEDED")
_NO_MODEL = Refusal("NOT_FOUND", "MODEL_NOT_FOUND")
_CREDENTIALS = Refusal("INTERNAL", "BACKEND_REFUSED")
_NO_ROUTE = Refusal("INTERNAL", "BACKEND_PROTOCOL_ERROR")

# Refusals, as a status or as an event under HTTP 200.
REFUSALS = {
    "basic": _CREDENTIALS,
    "embeddings": _NO_ROUTE,  # a route of another kind of model: this is how a wrong kind looks
    "err_bad_json": _invalid(),
    "err_content_type": _invalid(),
    "err_context_long": _TOO_LONG,
    "err_context_long_stream": _TOO_LONG,
    "err_empty_body": _invalid(),
    "err_image": _invalid(),
    "err_json_schema_bad": _invalid(),
    "err_max_tokens_negative": _invalid("params.max_tokens"),
    "err_max_tokens_over": _invalid("params.max_tokens"),
    "err_max_tokens_zero": _invalid("params.max_tokens"),
    "err_messages_empty": _invalid(),
    "err_messages_missing": _invalid("messages"),
    "err_messages_type": _invalid("messages"),
    "err_n_greedy": _invalid(),
    "err_n_zero": _invalid(),
    "err_not_object": _invalid(),
    "err_regex_bad": _invalid(),
    "err_response_format_type": _invalid(),  # vLLM's `param` has the path of the type, which is not a field of ours
    "err_stream_options_no_stream": _invalid(),
    "err_temperature": _invalid("params.temperature"),
    "err_temperature_type": _invalid("params.temperature"),
    "err_tool_choice_without_tools": _invalid("tool_choice"),
    "err_tool_unknown": _invalid("tool_choice"),
    "err_top_logprobs_big": _invalid("params.logprobs"),
    "err_top_logprobs_no_flag": _invalid("params.top_logprobs"),
    "err_top_p": _invalid("params.top_p"),
    "err_unknown_model": _NO_MODEL,
    "err_unknown_model_stream": _NO_MODEL,
    "method_not_allowed": _NO_ROUTE,
    "model_one": _NO_ROUTE,
    "no_key": _CREDENTIALS,
    "nokey_invocations": _NO_ROUTE,
    "nokey_v1_nope": _CREDENTIALS,
    "not_found": _NO_ROUTE,
    "null_scalar": _invalid("params.ignore_eos"),
    "s_bad_regex": _invalid(),
    "s_bad_schema": _invalid(),
    "s_logit_bias": _invalid("params.logit_bias"),
    "s_max_tokens_over": _invalid("params.max_tokens"),
    "s_min_over_max": _invalid(),
    "s_n_greedy": _invalid(),
    "s_stop_token": _invalid("params.allowed_token_ids"),
    "s_temperature": _invalid("params.temperature"),
    "s_top_logprobs": _invalid("params.logprobs"),
    "stop_five": _invalid("params.stop"),
    "temp_over": _invalid("params.temperature"),
    "default/tool_auto": _invalid(),  # this server has no parser of tool calls
    "default/tool_named": _invalid(),
    "default/tool_named_stream": _invalid(),
    "default/tool_required": _invalid(),
    "default/tool_required_stream": _invalid(),
    "wrong_key": _CREDENTIALS,
    "x_api_key": _CREDENTIALS,
}

# Answers of /tokenize and /v1/models.
COUNTS = {"tokenize_chat", "tokenize_prompt"}
COUNT_REFUSALS = {"nokey_tokenize": _NO_ROUTE}
MODELS = {"models"}
MODELS_REFUSALS = {"nokey_v1_models": _CREDENTIALS}

_NOT_OPENAI = "another API of vLLM, which the gateway does not speak"
_STATUS_ALONE = "the probe reads the status alone; tests of the health service cover it"
_NOT_ASKED = "the gateway does not ask for it"
NOT_APPLICABLE = {
    "anthropic": _NOT_OPENAI,
    "anthropic_stream": _NOT_OPENAI,
    "responses": _NOT_OPENAI,
    "responses_stream": _NOT_OPENAI,
    "detokenize": "the contract has no RPC that turns tokens into text",
    "health": _STATUS_ALONE,
    "health_after": _STATUS_ALONE,
    "nokey_health": _STATUS_ALONE,
    "load": _NOT_ASKED,
    "load_after": _NOT_ASKED,
    "nokey_load": _NOT_ASKED,
    "metrics": _NOT_ASKED,
    "metrics_after": _NOT_ASKED,
    "nokey_metrics": _NOT_ASKED,
    "ping": _NOT_ASKED,
    "nokey_ping": _NOT_ASKED,
    "version": _NOT_ASKED,
    "nokey_version": _NOT_ASKED,
    "nokey_docs": "a page for people",
    "options": "a browser's question before a request",
}

LISTS: dict[str, set[str]] = {
    "answers": ANSWERS,
    "refusals": set(REFUSALS),
    "counts": COUNTS | set(COUNT_REFUSALS),
    "models": MODELS | set(MODELS_REFUSALS),
    "not applicable": set(NOT_APPLICABLE),
}


def lists_of(folder: str, name: str) -> list[str]:
    """The lists that a recording is in, by its name alone or by its folder and name."""
    return [title for title, names in LISTS.items() for key in (name, f"{folder}/{name}") if key in names]


def refusal_of(folder: str, name: str) -> Refusal:
    """What is expected of a recorded refusal."""
    return REFUSALS.get(name) or REFUSALS[f"{folder}/{name}"]
