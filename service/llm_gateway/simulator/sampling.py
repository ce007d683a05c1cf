# SPDX-License-Identifier: Apache-2.0
"""What vLLM refuses of a well-typed request: before a stream begins, or lazily, inside of it."""

from __future__ import annotations

from typing import Any

from llm_gateway.simulator.errors import ApiError

Json = dict[str, Any]
_HIGHEST_TEMPERATURE = 2
_LARGEST_PENALTY = 2
_MOST_LOGPROBS = 20
"""vLLM's `--max-logprobs`."""


def check_before_types(body: Json, logprobs_field: str) -> None:
    """vLLM's "before" validators, which look at the raw fields."""
    if body.get("stream_options") and not body.get("stream"):
        raise ApiError.parameter("Stream options can only be defined when `stream=True`.", "stream_options")
    for name in ("prompt_logprobs", logprobs_field):
        value = body.get(name)
        if value is not None and not isinstance(value, int | float):
            raise ApiError.parameter(f"`{name}` must be an integer.", name, value)
        if value is not None and value < 0 and value != -1:
            raise ApiError.parameter(f"`{name}` must be a positive value or -1.", name, value)
    if body.get("stream") and body.get("prompt_logprobs"):
        raise ApiError.parameter("`prompt_logprobs` are not available when `stream=True`.", "prompt_logprobs")
    if logprobs_field == "top_logprobs" and body.get("top_logprobs") and not body.get("logprobs"):
        message = "when using `top_logprobs`, `logprobs` must be set to true."
        raise ApiError.parameter(message, "top_logprobs")
    _check_constraints(body)


def _check_constraints(body: Json) -> None:
    given = body.get("response_format")
    response_format = given if isinstance(given, dict) else {}
    if response_format.get("type") == "json_schema" and response_format.get("json_schema") is None:
        message = "When response_format type is 'json_schema', the 'json_schema' field must be provided."
        raise ApiError.parameter(message, "response_format")
    given = body.get("structured_outputs")
    constraints = given if isinstance(given, dict) else {}
    if sum(constraints.get(kind) is not None for kind in ("json", "regex", "choice")) > 1:
        message = "You can only use one kind of constraints for structured outputs ('json', 'regex' or 'choice')."
        raise ApiError.bad_request(message)


def check_ranges(body: Json, max_tokens: int | None) -> None:
    """SamplingParams' own checks: a real 400, even of a stream."""
    _check_logit_bias(body)
    _check_floats(body)
    _check_counts(body, max_tokens)
    stop = body.get("stop") or []
    if body.get("stop") == "" or "" in stop:
        raise ApiError.bad_request("stop cannot contain an empty string.")
    if "" in (body.get("bad_words") or []):
        raise ApiError.bad_request(f"bad_words cannot contain an empty string. Got bad_words={body['bad_words']}")
    sequences = _int(body, "n", 1)
    if sequences > 1 and body.get("temperature") == 0:
        raise ApiError.bad_request(f"n must be 1 when using greedy sampling, got {sequences}.")


def _check_logit_bias(body: Json) -> None:
    unreadable = [key for key in body.get("logit_bias") or {} if not key.strip().lstrip("+-").isdecimal()]
    if unreadable:
        message = f"logit_bias contains key(s) that cannot be converted to integer token IDs: {unreadable}"
        raise ApiError.parameter(message, "logit_bias", unreadable)


def _check_floats(body: Json) -> None:
    for name in ("presence_penalty", "frequency_penalty"):
        if abs(value := _float(body, name, 0)) > _LARGEST_PENALTY:
            raise ApiError.bad_request(f"{name} must be in [-2, 2], got {value}.")
    if (penalty := _float(body, "repetition_penalty", 1)) <= 0:
        raise ApiError.bad_request(f"repetition_penalty must be greater than zero, got {penalty}.")
    temperature = _float(body, "temperature", 1)
    if temperature < 0:
        raise ApiError.parameter(f"temperature must be non-negative, got {temperature}.", "temperature", temperature)
    if temperature > _HIGHEST_TEMPERATURE:
        raise ApiError.parameter(f"temperature must be in [0, 2], got {temperature}.", "temperature", temperature)
    if not 0 < (top_p := _float(body, "top_p", 1)) <= 1:
        raise ApiError.parameter(f"top_p must be in (0, 1], got {top_p}.", "top_p", top_p)
    if not 0 <= (min_p := _float(body, "min_p", 0)) <= 1:
        raise ApiError.bad_request(f"min_p must be in [0, 1], got {min_p}.")


def _check_counts(body: Json, max_tokens: int | None) -> None:
    if (sequences := _int(body, "n", 1)) < 1:
        raise ApiError.bad_request(f"n must be at least 1, got {sequences}.")
    if (top_k := _int(body, "top_k", 0)) < -1:
        raise ApiError.bad_request(f"top_k must be 0 (disable), or at least 1, got {top_k}.")
    if max_tokens is not None and max_tokens < 1:
        raise ApiError.parameter(f"max_tokens must be at least 1, got {max_tokens}.", "max_tokens", max_tokens)
    if (min_tokens := _int(body, "min_tokens", 0)) < 0:
        raise ApiError.bad_request(f"min_tokens must be greater than or equal to 0, got {min_tokens}.")
    if max_tokens is not None and min_tokens > max_tokens:
        raise ApiError.bad_request(
            f"min_tokens must be less than or equal to max_tokens={max_tokens}, got {min_tokens}."
        )


def check_lazily(body: Json, logprobs: int | None, vocabulary: int) -> None:
    """What only the engine finds: in a stream these come under HTTP 200, as its first event."""
    if logprobs is not None and logprobs > _MOST_LOGPROBS:
        message = f"Requested sample logprobs of {logprobs}, which is greater than max allowed: {_MOST_LOGPROBS}"
        raise ApiError.parameter(message, "logprobs", logprobs)
    outside = [int(token) for token in body.get("logit_bias") or {} if not 0 <= int(token) < vocabulary]
    if outside:
        message = f"token_id(s) {outside} in logit_bias contain out-of-vocab token ids. Vocabulary size: {vocabulary}"
        raise ApiError.parameter(message, "logit_bias", outside)
    allowed = body.get("allowed_token_ids")
    if allowed == []:
        raise ApiError.parameter("allowed_token_ids is not None and empty!", "allowed_token_ids", allowed)
    if allowed is not None and any(not 0 <= token < vocabulary for token in allowed):
        raise ApiError.parameter("allowed_token_ids contains out-of-vocab token id!", "allowed_token_ids", allowed)


def _float(body: Json, name: str, default: float) -> float:
    value = body.get(name)
    return float(default if value is None else value)


def _int(body: Json, name: str, default: int) -> int:
    value = body.get(name)
    return int(default if value is None else value)
