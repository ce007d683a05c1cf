# SPDX-License-Identifier: Apache-2.0
"""How servers other than vLLM differ from it, as far as a gateway could trip over it: what they refuse, what they do
not have, what their errors look like. Their streams are in reshaping.py.

Read in those servers' sources, or in what is written about them, and not off recordings: docs/dialects.md.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aiohttp import web

from llm_gateway.simulator.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

Json = dict[str, Any]

DIALECTS = ("vllm", "openai", "sglang", "llamacpp", "ollama")

_VLLMS_OWN = frozenset({"/health", "/ping", "/metrics", "/tokenize", "/detokenize", "/version", "/load"})
_OPENAI_FIELDS = frozenset({
    "model", "stream", "stream_options", "temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "n",
    "stop", "logit_bias", "logprobs", "user", "metadata", "store", "service_tier",
})  # fmt: skip
_OPENAI_CHAT = _OPENAI_FIELDS | {
    "messages", "max_completion_tokens", "max_tokens", "top_logprobs", "tools", "tool_choice", "parallel_tool_calls",
    "response_format", "reasoning_effort", "verbosity", "prompt_cache_key", "safety_identifier",
}  # fmt: skip
_OPENAI_TEXT = _OPENAI_FIELDS | {"prompt", "max_tokens", "suffix", "echo", "best_of"}
_OPENAI_STREAM_OPTIONS = frozenset({"include_usage", "include_obfuscation"})
_OLLAMA_FIELDS = frozenset({
    "model", "messages", "prompt", "stream", "stream_options", "max_tokens", "seed", "stop", "temperature",
    "frequency_penalty", "presence_penalty", "top_p", "response_format", "tools", "reasoning_effort", "suffix",
})  # fmt: skip
_SGLANG_NOT_NULL = ("n", "stream", "frequency_penalty", "presence_penalty", "min_tokens", "parallel_tool_calls")


class Manner:
    """vLLM's own."""

    missing: frozenset[str] = frozenset()
    """Paths of vLLM's that this server has not."""
    refuses_before_the_stream = False
    """Whether what vLLM finds too late for a status is an HTTP error all the same."""
    gauges: dict[str, str] = {}  # noqa: RUF012 - nobody writes to it
    """The names of vLLM's gauges, where `/metrics` has others."""

    def read(self, body: Json, *, chat: bool) -> Json:
        """The request as vLLM would be asked it. Raises ApiError."""
        return body

    def error(self, error: ApiError) -> bytes:
        """The body of an HTTP error."""
        return error.body()

    def tokenized(self, body: Json) -> Json:
        """A request to `/tokenize` as vLLM would be asked it."""
        return body

    def routes(self) -> list[tuple[str, str, Handler]]:
        """What it has beside vLLM's paths."""
        return []


class OpenAIManner(Manner):
    """OpenAI, which refuses what it does not know."""

    missing = _VLLMS_OWN
    refuses_before_the_stream = True

    def read(self, body: Json, *, chat: bool) -> Json:
        known = _OPENAI_CHAT if chat else _OPENAI_TEXT
        for name in body:
            if name not in known:
                raise _openai_error(name, "unknown_parameter", f"Unknown parameter: '{name}'.")
        for name in body.get("stream_options") or {}:
            if name not in _OPENAI_STREAM_OPTIONS:
                raise _openai_error(f"stream_options.{name}", "unknown_parameter", f"Unknown parameter: '{name}'.")
        if chat and "max_tokens" in body:
            words = "Unsupported parameter: 'max_tokens' is not supported with this model."
            raise _openai_error("max_tokens", "unsupported_parameter", words)
        options = {"include_usage": bool((body.get("stream_options") or {}).get("include_usage"))}
        return body | {"stream_options": options} if body.get("stream") else body

    def error(self, error: ApiError) -> bytes:
        kind, code, param = "invalid_request_error", error.code, error.param
        if error.status == HTTPStatus.NOT_FOUND:
            code = "model_not_found"
        elif param in {"input_tokens", "input_text"}:
            code, param = "context_length_exceeded", "messages"
        elif error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            kind = "server_error"
        return error.written({"error": {"message": error.message, "type": kind, "param": param, "code": code}})


class SglangManner(Manner):
    """SGLang: other names, errors without an envelope."""

    missing = frozenset({"/ping", "/version", "/load"})
    refuses_before_the_stream = True
    gauges = {  # noqa: RUF012 - nobody writes to it
        "vllm:num_requests_running": "sglang:num_running_reqs",
        "vllm:num_requests_waiting": "sglang:num_queue_reqs",
        "vllm:kv_cache_usage_perc": "sglang:token_usage",
    }

    def read(self, body: Json, *, chat: bool) -> Json:
        for name in _SGLANG_NOT_NULL:
            if name in body and body[name] is None:
                raise ApiError.unparsable(name, f"body -> {name}: Input should be valid")
        if body.get("top_k") == 0:
            raise ApiError.bad_request("top_k must be -1 (disable) or at least 1, got 0.")
        read = {name: value for name, value in body.items() if name not in {"regex", "ebnf", "no_stop_trim"}}
        read.pop("structured_outputs", None)
        if "regex" in body:
            read["structured_outputs"] = {"regex": body["regex"]}
        if "no_stop_trim" in body:
            read["include_stop_str_in_output"] = body["no_stop_trim"]
        return read

    def error(self, error: ApiError) -> bytes:
        param = None if error.param in {"input_tokens", "input_text"} else error.param
        content = {"object": "error", "message": error.message, "type": error.kind, "param": param}
        return error.written(content | {"code": error.status})

    def routes(self) -> list[tuple[str, str, Handler]]:
        return [("GET", "/ready", _well)]


class LlamacppManner(Manner):
    """llama.cpp's server."""

    missing = frozenset({"/ping", "/version", "/load"})
    refuses_before_the_stream = True
    gauges = {  # noqa: RUF012 - nobody writes to it
        "vllm:num_requests_running": "llamacpp:requests_processing",
        "vllm:num_requests_waiting": "llamacpp:requests_deferred",
    }

    def error(self, error: ApiError) -> bytes:
        kind = {400: "invalid_request_error", 404: "not_found_error"}.get(error.status, error.kind)
        if error.param in {"input_tokens", "input_text"}:
            kind = "exceed_context_size_error"
        return error.written({"error": {"code": error.status, "message": error.message, "type": kind}})

    def tokenized(self, body: Json) -> Json:
        return {"model": body.get("model"), "prompt": body.get("content")}


class OllamaManner(Manner):
    """Ollama, which knows few fields and ignores the others."""

    missing = _VLLMS_OWN
    refuses_before_the_stream = True

    def read(self, body: Json, *, chat: bool) -> Json:
        read = {name: value for name, value in body.items() if name in _OLLAMA_FIELDS}
        return read | ({"tool_choice": "auto"} if read.get("tools") else {})

    def error(self, error: ApiError) -> bytes:
        kind = {400: "invalid_request_error", 404: "not_found_error"}.get(error.status, "api_error")
        return error.written({"error": {"message": error.message, "type": kind, "param": None, "code": None}})

    def routes(self) -> list[tuple[str, str, Handler]]:
        return [("GET", "/", _runs)]


MANNERS: dict[str, Callable[[], Manner]] = {
    "vllm": Manner,
    "openai": OpenAIManner,
    "sglang": SglangManner,
    "llamacpp": LlamacppManner,
    "ollama": OllamaManner,
}


def loading() -> ApiError:
    """What a server says that still reads its model."""
    return ApiError(503, "Loading model", kind="unavailable_error")


def _openai_error(param: str, code: str, message: str) -> ApiError:
    return ApiError(400, message, param, "invalid_request_error", code=code)


async def _well(_: web.Request) -> web.StreamResponse:
    return web.Response()


async def _runs(_: web.Request) -> web.StreamResponse:
    return web.Response(text="Ollama is running")
