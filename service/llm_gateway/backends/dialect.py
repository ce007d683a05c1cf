# SPDX-License-Identifier: Apache-2.0
"""What differs between the backends that speak OpenAI's protocol, as values: nothing else asks what a backend is.

docs/dialects.md has the tables, and says where each fact was read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from llm_gateway.backends.spelling import (
    bare_object,
    bare_schema,
    choice_as_grammar,
    object_format,
    schema_format,
    structured_outputs,
)
from llm_gateway.backends.spelling import field as spelled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_gateway.backends.spelling import Spelling


class RawLength(Enum):
    """What a raw prompt without `max_tokens` gets, for it may fill the context."""

    ITS_OWN = "its own"  # the backend's default is the context
    CONTEXT = "context"  # the default is shorter; more than fits is cut, so that the context's length can be sent
    REFUSED = "refused"  # the default is shorter, and more than fits is refused


@dataclass(frozen=True, slots=True)
class Probing:
    """How to ask whether it can serve: the first of `paths` that exists; the statuses that mean ready, and loading.

    `patience`: it is asked so much less often than others.
    """

    paths: tuple[str, ...]
    ready: frozenset[int]
    loading: frozenset[int] = frozenset()
    patience: float = 1.0


@dataclass(frozen=True, slots=True)
class Counting:
    """How `/tokenize` is asked: the field of a raw prompt, what is added, whether it takes a conversation."""

    prompt: str
    extra: Mapping[str, bool] = field(default_factory=dict)
    takes_messages: bool = False


@dataclass(frozen=True, slots=True)
class LoadFamilies:
    """The families of `/metrics` that tell how busy it is."""

    running: bytes
    waiting: bytes
    kv_usage: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one kind of backend speaks OpenAI's protocol.

    `params` are the sampling fields that it honours in a chat, by our name, with its name; `raw_params` those of a raw
    prompt, where an empty name is for what is written in a way of its own. `fields` are the paths of what else it
    honours; what is in none of them is refused. An empty `raw_params` is a backend that takes no raw prompts.
    """

    name: str
    params: Mapping[str, str]
    raw_params: Mapping[str, str]
    fields: frozenset[str]
    constraints: Mapping[str, Spelling]
    raw_constraints: Mapping[str, Spelling]
    extensions: frozenset[str] | None
    """The names that `backend_extensions` may have; None: the operator's list is enough, for none is ignored."""
    probing: Probing
    honours_everything: bool = False
    """That there is nothing to look for in a request."""
    raw_length: RawLength = RawLength.REFUSED
    stream_options: Mapping[str, bool] | None
    reasoning: str = "reasoning"
    """The name of what an assistant thought, in a conversation that is sent."""
    developer: str = "system"
    """The role that developers have."""
    every_token: int | None = None
    """What `top_k` is for all tokens, where it is not both 0 and -1."""
    least_top_logprobs: int = 0
    """`top_logprobs` below it would give no `logprobs` at all, or unasked ones."""
    counting: Counting | None = None
    load: LoadFamilies | None = None


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


# ---------------------------------------------------------------------------------------------- what several have

_OPENAI_RAW = _same(
    "max_tokens", "temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "n", "stop", "logit_bias"
)
_RAW_LOGPROBS = {"logprobs": "", "top_logprobs": ""}  # one number there, see request.py
_OPENAI = _OPENAI_RAW | _same("logprobs", "top_logprobs")
_VLLM_RAW = _OPENAI_RAW | _same(
    "min_tokens", "top_k", "min_p", "repetition_penalty", "stop_token_ids", "ignore_eos", "bad_words",
    "allowed_token_ids", "logprob_token_ids", "skip_special_tokens", "spaces_between_special_tokens",
    "truncate_prompt_tokens", "truncation_side", "use_beam_search", "length_penalty", "watermarking",
    "repetition_detection",
) | {"include_stop": "include_stop_str_in_output"}  # fmt: skip
_SGLANG_RAW = _OPENAI_RAW | _same(
    "min_tokens", "top_k", "min_p", "repetition_penalty", "stop_token_ids", "ignore_eos", "skip_special_tokens"
) | {"include_stop": "no_stop_trim"}  # fmt: skip
_LLAMACPP_RAW = _OPENAI_RAW | _same("top_k", "min_p", "ignore_eos") | {"repetition_penalty": "repeat_penalty"}
_MAX_COMPLETION_TOKENS = {"max_tokens": "max_completion_tokens"}

_TOOLS = frozenset({"tools", "tools.strict", "tool_choice.mode", "tool_choice.function_name", "parallel_tool_calls"})
_IMAGES = frozenset({"messages.content_parts.image_url", "messages.content_parts.image_url.detail"})
_INPUT_AUDIO = frozenset({"messages.content_parts.input_audio"})
_MEDIA_BY_URL = frozenset({"messages.content_parts.audio_url", "messages.content_parts.video_url"})

_JSON: dict[str, Spelling] = {"json_schema": schema_format, "json_object": object_format}
_VLLM_FORMS = _JSON | {kind: structured_outputs(kind) for kind in ("regex", "choice", "grammar")}
_SGLANG_FORMS = _JSON | {
    "regex": spelled("regex"), "choice": choice_as_grammar("ebnf"), "grammar": spelled("ebnf"),
}  # fmt: skip
_LLAMACPP_GRAMMARS: dict[str, Spelling] = {"choice": choice_as_grammar("grammar"), "grammar": spelled("grammar")}
_USAGE = {"include_usage": True}

# It answers, and refuses this key, or this many requests: that is for the calls to say, which say it better than
# "no healthy backend" would.
_ALIVE = frozenset({200, 401, 403, 429})

# --------------------------------------------------------------------------------------------------- the dialects

VLLM = Dialect(
    name="vllm",
    honours_everything=True,
    params=_VLLM_RAW | _same("logprobs", "top_logprobs") | _MAX_COMPLETION_TOKENS,
    raw_params=_VLLM_RAW | _RAW_LOGPROBS,
    fields=_TOOLS | _IMAGES | _INPUT_AUDIO | _MEDIA_BY_URL | frozenset({
        "messages.name", "messages.reasoning", "reasoning.effort", "reasoning.thinking_token_budget",
        "reasoning.include", "stream_options.include_token_ids", "priority", "session_id", "cache_salt",
    }),
    constraints=_VLLM_FORMS,
    raw_constraints=_VLLM_FORMS,
    extensions=None,
    raw_length=RawLength.CONTEXT,
    stream_options=_USAGE,
    developer="developer",
    probing=Probing(("/health", "/v1/models"), _ALIVE),  # a proxy may let only the latter pass
    counting=Counting("prompt", takes_messages=True),
    load=LoadFamilies(b"vllm:num_requests_running", b"vllm:num_requests_waiting", b"vllm:kv_cache_usage_perc"),
)  # fmt: skip

OPENAI = Dialect(
    name="openai",
    params=_OPENAI | _MAX_COMPLETION_TOKENS,
    raw_params=_OPENAI_RAW | _RAW_LOGPROBS,
    fields=_TOOLS | _IMAGES | _INPUT_AUDIO | frozenset({"messages.name", "reasoning.effort"}),
    constraints=_JSON,
    raw_constraints={},
    extensions=None,
    stream_options=_USAGE | {"include_obfuscation": False},
    developer="developer",
    probing=Probing(("/v1/models",), _ALIVE, patience=15.0),  # a service of others, that counts requests
)

SGLANG = Dialect(
    name="sglang",
    params=_SGLANG_RAW | _same("logprobs", "top_logprobs") | _MAX_COMPLETION_TOKENS,
    raw_params=_SGLANG_RAW | _RAW_LOGPROBS,
    fields=_TOOLS | _IMAGES | _MEDIA_BY_URL | frozenset({
        "messages.name", "messages.reasoning", "reasoning.effort", "cache_salt",
    }),
    constraints=_SGLANG_FORMS,
    raw_constraints=_SGLANG_FORMS,
    extensions=frozenset({
        "chat_template_kwargs", "continue_final_message", "custom_params", "lora_path", "separate_reasoning",
        "stop_regex", "stream_reasoning",
    }),
    stream_options=_USAGE,
    reasoning="reasoning_content",
    every_token=-1,
    # Not /health, which generates a token when the engine is idle. Older ones have no /ready.
    probing=Probing(("/ready", "/v1/models"), _ALIVE, loading=frozenset({503})),
    counting=Counting("prompt"),
    load=LoadFamilies(b"sglang:num_running_reqs", b"sglang:num_queue_reqs", b"sglang:token_usage"),
)  # fmt: skip

LLAMACPP = Dialect(
    name="llamacpp",
    params=_LLAMACPP_RAW | _same("logprobs", "top_logprobs"),
    raw_params=_LLAMACPP_RAW,
    fields=_INPUT_AUDIO | frozenset({
        "tools", "tools.strict", "tool_choice.mode", "parallel_tool_calls", "messages.name", "messages.reasoning",
        "messages.content_parts.image_url",
    }),
    constraints=_JSON | _LLAMACPP_GRAMMARS,
    raw_constraints=_LLAMACPP_GRAMMARS | {"json_schema": bare_schema, "json_object": bare_object},
    extensions=frozenset({
        "add_generation_prompt", "cache_prompt", "chat_template_kwargs", "dry_base", "dry_multiplier", "mirostat",
        "mirostat_eta", "mirostat_tau", "n_keep", "reasoning_format", "repeat_last_n", "samplers", "top_n_sigma",
        "typical_p", "xtc_probability", "xtc_threshold",
    }),
    raw_length=RawLength.ITS_OWN,
    stream_options=_USAGE,
    reasoning="reasoning_content",
    every_token=0,
    least_top_logprobs=1,
    probing=Probing(("/health", "/v1/models"), _ALIVE, loading=frozenset({503})),
    counting=Counting("content", extra={"add_special": True}),
    load=LoadFamilies(
        b"llamacpp:requests_processing", b"llamacpp:requests_deferred", b"llamacpp:kv_cache_usage_ratio"
    ),
)  # fmt: skip

OLLAMA = Dialect(
    name="ollama",
    params=_same("max_tokens", "temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "stop"),
    raw_params={},  # its /v1/completions puts the prompt into the chat template
    fields=frozenset({"tools", "messages.reasoning", "messages.content_parts.image_url", "reasoning.effort"}),
    constraints=_JSON,
    raw_constraints={},
    extensions=frozenset(),
    stream_options=_USAGE,
    probing=Probing(("/", "/v1/models"), _ALIVE),
)

GENERIC = Dialect(
    name="generic",
    params=_OPENAI,
    raw_params=_OPENAI_RAW | _RAW_LOGPROBS,
    fields=_TOOLS | _IMAGES | _INPUT_AUDIO | frozenset({"messages.name", "reasoning.effort"}),
    constraints=_JSON,
    raw_constraints={},
    extensions=None,
    stream_options=_USAGE,
    # Not all of them list their models.
    probing=Probing(("/v1/models",), _ALIVE | frozenset({404, 405})),
)

DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect for dialect in (VLLM, OPENAI, SGLANG, LLAMACPP, OLLAMA, GENERIC)
}
"""Every dialect by its name."""
