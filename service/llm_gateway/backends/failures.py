# SPDX-License-Identifier: Apache-2.0
"""What a backend's refusal means: HTTP statuses and error objects of every shape, mapped in this one place.

The shapes are those of vLLM, OpenAI, SGLang, llama.cpp, Ollama, TGI and of proxies between. Nothing that the backend
wrote goes into an error's message: it may quote the prompt. What is used is its status, `type`, `code` and `param`.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from llm_gateway.backends.wire import ChunkWire, NotTheProtocolError, decode_chunk
from llm_gateway.errors import (
    BackendLost,
    BackendOverloaded,
    BackendProtocolError,
    BackendRateLimited,
    BackendRefused,
    ContentRefused,
    ContextLengthExceeded,
    FieldViolation,
    InvalidRequest,
    ModelLoading,
    ModelNotFound,
    UnsupportedParameter,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_gateway.errors import GatewayError

# `param` of a vLLM validation error, and the field of our contract that it comes from.
FIELDS = {
    "max_completion_tokens": "params.max_tokens",
    "include_stop_str_in_output": "params.include_stop",
    "messages": "messages",
    "model": "model",
    "prompt": "prompt",
    "reasoning_effort": "reasoning.effort",
    "thinking_token_budget": "reasoning.thinking_token_budget",
    "response_format": "structured_output",
    "structured_outputs": "structured_output",
    "tool_choice": "tool_choice",
    "tools": "tools",
    "cache_salt": "cache_salt",
    "image_url": "messages",
    # SGLang's and llama.cpp's names
    "no_stop_trim": "params.include_stop",
    "repeat_penalty": "params.repetition_penalty",
    "n_predict": "params.max_tokens",
    "regex": "structured_output",
    "ebnf": "structured_output",
    "grammar": "structured_output",
    "json_schema": "structured_output",
} | {
    name: f"params.{name}"
    for name in (
        "max_tokens", "min_tokens", "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty",
        "repetition_penalty", "seed", "n", "stop", "stop_token_ids", "ignore_eos", "logit_bias", "logprobs",
        "top_logprobs", "bad_words", "allowed_token_ids", "logprob_token_ids", "truncate_prompt_tokens",
        "truncation_side", "length_penalty", "repetition_detection", "use_beam_search", "watermarking",
    )
}  # fmt: skip

CONTEXT_PARAMS = frozenset({"input_tokens", "input_text"})
CONTEXT_WORDS = frozenset({"context_length_exceeded", "exceed_context_size_error"})
CONTENT_WORDS = frozenset({"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"})
UNSUPPORTED_WORDS = frozenset({"unsupported_parameter", "unknown_parameter", "unsupported_value"})
MODEL_WORDS = frozenset({"model_not_found", "NotFoundError", "not_found_error"})
QUOTA_WORDS = frozenset({"insufficient_quota"})
LOADING_WORDS = frozenset({"unavailable_error"})
# Only for events whose `code` is no status: the one that a word in `code` or `type` stands for.
STATUS_OF_WORD = {
    "BadRequestError": 400,
    "Bad Request": 400,
    "invalid_request_error": 400,
    "UnprocessableEntityError": 422,
    "NotFoundError": 404,
    "rate_limit_error": 429,
    "overloaded": 429,
    "Service Unavailable": 503,
    "ServiceUnavailableError": 503,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "not_found_error": 404,
    "model_not_found": 404,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "unavailable_error": 503,
    "overloaded_error": 529,
    "permission_error": 403,
    "not_supported_error": 501,
    # TGI's error_type
    "validation": 422,
    "template_error": 422,
    "generation": 424,
} | dict.fromkeys(CONTEXT_WORDS | CONTENT_WORDS | UNSUPPORTED_WORDS, 400)


class Refusal(msgspec.Struct):
    """What a backend said, without its words: the fields of an error object that are safe to act on."""

    status: int
    type: str | None = None
    code: str | None = None
    param: str | None = None
    retry_after: float | None = None
    in_stream: bool = False
    """Whether it came as an event under HTTP 200, so that its status was never one of HTTP."""

    def says(self, words: frozenset[str]) -> bool:
        """Whether its type or code is one of `words`."""
        return self.type in words or self.code in words


def is_error(chunk: ChunkWire) -> bool:
    """Whether an event is an error in the place of a chunk. `error: null` beside choices is none."""
    return bool(chunk.error) or chunk.object == "error"


def error_of_event(chunk: ChunkWire) -> GatewayError:
    """The error that an event under HTTP 200 stands for: its `code` is read as if it were the status."""
    refusal = _refusal(chunk, status=0)
    refusal.in_stream = True
    words = (STATUS_OF_WORD.get(word or "") for word in (refusal.code, refusal.type))
    refusal.status = _as_status(refusal.code) or next(filter(None, words), 500)
    return _error_of(refusal)


def error_of_response(status: int, body: bytes, retry_after: float | None = None) -> GatewayError:
    """The error that an HTTP response other than 200 stands for; `retry_after` is its header's, in seconds."""
    try:
        refusal = _refusal(decode_chunk(body), status)
    except NotTheProtocolError:
        refusal = Refusal(status)
    refusal.retry_after = retry_after
    return _error_of(refusal)


def _refusal(chunk: ChunkWire, status: int) -> Refusal:
    if isinstance(chunk.error, dict):
        error: dict[str, Any] = chunk.error
        return Refusal(status, _word(error.get("type")), _word(error.get("code")), _word(error.get("param")))
    if chunk.object == "error":
        return Refusal(status, chunk.type, _word(chunk.code), chunk.param)
    return Refusal(status, type=_word(chunk.error_type))


def _error_of(refusal: Refusal) -> GatewayError:
    make = BY_STATUS.get(refusal.status)
    if make is not None:
        return make(refusal)
    if refusal.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _lost(refusal)
    if refusal.status >= HTTPStatus.BAD_REQUEST:
        return _invalid(refusal)
    return BackendProtocolError(f"The backend answered with HTTP {refusal.status}, which is not of its protocol.")


def _invalid(refusal: Refusal) -> GatewayError:
    if refusal.param in CONTEXT_PARAMS or refusal.says(CONTEXT_WORDS):
        return ContextLengthExceeded("The prompt is longer than the model's context.")
    if refusal.says(CONTENT_WORDS):
        return ContentRefused("A content filter refused the prompt.")
    field = FIELDS.get((refusal.param or "").removeprefix("body."))
    violations = (FieldViolation(field, "the backend refuses the value"),) if field else ()
    where = f" because of {field}" if field else ""
    if refusal.says(UNSUPPORTED_WORDS):
        return UnsupportedParameter(f"The backend cannot do what the request asks for{where}.", violations)
    return InvalidRequest(f"The backend refused the request as invalid{where}.", violations)


def _not_found(refusal: Refusal) -> GatewayError:
    if refusal.param == "model" or refusal.says(MODEL_WORDS):
        return ModelNotFound("The backend does not serve the model.")
    return BackendProtocolError("The backend does not have the route: it serves another kind of model.")


def _too_many(refusal: Refusal) -> GatewayError:
    error = BackendRateLimited("The backend's rate limit is reached.", retry_after=refusal.retry_after)
    if refusal.says(QUOTA_WORDS):
        error.retryable = False  # a spent quota does not come back, unless the backend says when
        error.retry_after = refusal.retry_after
    return error


def _unavailable(refusal: Refusal) -> GatewayError:
    if refusal.says(LOADING_WORDS):
        return ModelLoading("The backend is loading its model.", retry_after=refusal.retry_after)
    return BackendOverloaded("The backend is overloaded.", retry_after=refusal.retry_after)


def _refused(_: Refusal) -> GatewayError:
    return BackendRefused("The backend refuses the gateway's credentials.")


def _unsupported(refusal: Refusal) -> GatewayError:
    field = FIELDS.get(refusal.param or "")
    violations = (FieldViolation(field, "the backend cannot do this"),) if field else ()
    return UnsupportedParameter("The backend cannot do what the request asks for.", violations)


def _no_route(_: Refusal) -> GatewayError:
    return BackendProtocolError("The backend does not have the method: it speaks another protocol.")


def _lost(refusal: Refusal) -> GatewayError:
    how = "and said so in its answer" if refusal.in_stream else f"with HTTP {refusal.status}"
    return BackendLost(f"The backend failed {how}.", retry_after=refusal.retry_after)


BY_STATUS: dict[int, Callable[[Refusal], GatewayError]] = {
    401: _refused,
    403: _refused,
    404: _not_found,
    405: _no_route,
    408: _lost,
    409: _lost,
    424: _lost,  # TGI: generation failed
    429: _too_many,
    501: _unsupported,
    503: _unavailable,
    529: _unavailable,  # overloaded, as some proxies say it
}


def _as_status(code: str | None) -> int | None:
    """An HTTP status in a `code`, which some backends write as a string."""
    if code is None or len(code) != 3 or not (code.isascii() and code.isdigit()):  # noqa: PLR2004 - a status has three
        return None
    status = int(code)
    return status if HTTPStatus.BAD_REQUEST <= status < 600 else None  # noqa: PLR2004 - past the last class


def _word(value: object) -> str | None:
    return str(value) if isinstance(value, str | int) else None
