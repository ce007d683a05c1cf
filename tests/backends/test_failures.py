# SPDX-License-Identifier: Apache-2.0
"""What a backend's refusal means: every shape of an error, under every status and inside a stream."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from llm_gateway.backends.failures import error_of_event, error_of_response, is_error
from llm_gateway.backends.wire import decode_chunk
from llm_gateway.errors import BackendError, GatewayError, InvalidRequest

LONG = "the text of a prompt " * 50


def vllm(code: object, type_: str = "BadRequestError", param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": LONG, "type": type_, "param": param, "code": code}}


def openai(type_: str | None, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": LONG, "type": type_, "param": param, "code": code}}


def sglang(code: int, type_: str = "BadRequestError", param: str | None = None) -> dict[str, Any]:
    return {"object": "error", "message": LONG, "type": type_, "param": param, "code": code}


LLAMA_CONTEXT = {"error": {"code": 400, "message": LONG, "type": "exceed_context_size_error", "n_ctx": 9}}
LLAMA_LOADING = {"error": {"code": 503, "message": LONG, "type": "unavailable_error"}}
TGI = {"error": LONG, "error_type": "validation"}
ANTHROPIC = {"type": "error", "error": {"type": "invalid_request_error", "message": LONG}}
HTML = b"<html><body>" + LONG.encode() + b"</body></html>"

# status, body, reason, the field that is named
RESPONSES: list[tuple[int, Any, str, str | None]] = [
    (400, vllm(400, "Bad Request", "body.n"), "INVALID_REQUEST", "params.n"),
    (400, vllm(400, param="min_tokens"), "INVALID_REQUEST", "params.min_tokens"),
    (400, vllm(400, param="max_completion_tokens"), "INVALID_REQUEST", "params.max_tokens"),
    (400, vllm(400, param="no_field_of_ours"), "INVALID_REQUEST", None),
    (400, vllm(400), "INVALID_REQUEST", None),
    (400, vllm(400, param="input_tokens"), "CONTEXT_LENGTH_EXCEEDED", None),
    (400, vllm(400, param="input_text"), "CONTEXT_LENGTH_EXCEEDED", None),
    (422, vllm(422, "UnprocessableEntityError", "image_url"), "INVALID_REQUEST", "messages"),
    (404, vllm(404, "NotFoundError", "model"), "MODEL_NOT_FOUND", None),
    (404, {"detail": "Not Found"}, "BACKEND_PROTOCOL_ERROR", None),
    (405, {"detail": "Method Not Allowed"}, "BACKEND_PROTOCOL_ERROR", None),
    (307, b"", "BACKEND_PROTOCOL_ERROR", None),
    (204, b"", "BACKEND_PROTOCOL_ERROR", None),
    (401, {"error": "Unauthorized"}, "BACKEND_REFUSED", None),
    (403, HTML, "BACKEND_REFUSED", None),
    (503, vllm(503, "Service Unavailable"), "BACKEND_OVERLOADED", None),
    (503, {"error": "The model is currently scaling"}, "BACKEND_OVERLOADED", None),
    (503, HTML, "BACKEND_OVERLOADED", None),
    (503, b"", "BACKEND_OVERLOADED", None),
    (529, b"", "BACKEND_OVERLOADED", None),
    (500, vllm(500, "InternalServerError"), "BACKEND_LOST", None),
    (502, HTML, "BACKEND_LOST", None),
    (504, HTML, "BACKEND_LOST", None),
    (501, vllm(501, "NotImplementedError", "n"), "UNSUPPORTED_PARAMETER", "params.n"),
    (501, vllm(501, "NotImplementedError"), "UNSUPPORTED_PARAMETER", None),
    (413, HTML, "INVALID_REQUEST", None),
    (415, {"detail": [{"loc": ["body"], "msg": LONG}]}, "INVALID_REQUEST", None),
    (400, openai("invalid_request_error", "context_length_exceeded", "messages"), "CONTEXT_LENGTH_EXCEEDED", None),
    (400, openai("invalid_request_error", "content_filter"), "CONTENT_REFUSED", None),
    (400, openai("invalid_request_error", "unsupported_parameter", "top_k"), "UNSUPPORTED_PARAMETER", "params.top_k"),
    (400, openai("invalid_request_error", None, "temperature"), "INVALID_REQUEST", "params.temperature"),
    (404, openai("invalid_request_error", "model_not_found"), "MODEL_NOT_FOUND", None),
    (429, openai("tokens", "rate_limit_exceeded"), "BACKEND_RATE_LIMITED", None),
    (429, openai("insufficient_quota", "insufficient_quota"), "BACKEND_RATE_LIMITED", None),
    (401, openai("invalid_request_error", "invalid_api_key"), "BACKEND_REFUSED", None),
    (400, sglang(400, param="temperature"), "INVALID_REQUEST", "params.temperature"),
    (404, sglang(404, "NotFoundError"), "MODEL_NOT_FOUND", None),
    (503, sglang(503, "ServiceUnavailableError"), "BACKEND_OVERLOADED", None),
    (400, LLAMA_CONTEXT, "CONTEXT_LENGTH_EXCEEDED", None),
    (503, LLAMA_LOADING, "MODEL_LOADING", None),
    (503, sglang(503, "ServiceUnavailable"), "BACKEND_OVERLOADED", None),
    (400, openai("invalid_request_error", "unknown_parameter", "min_p"), "UNSUPPORTED_PARAMETER", "params.min_p"),
    (400, openai("invalid_request_error", None, "repeat_penalty"), "INVALID_REQUEST", "params.repetition_penalty"),
    (400, sglang(400, param="ebnf"), "INVALID_REQUEST", "structured_output"),
    (404, openai("not_found_error"), "MODEL_NOT_FOUND", None),
    (422, TGI, "INVALID_REQUEST", None),
    (424, {"error": LONG, "error_type": "generation"}, "BACKEND_LOST", None),
    (429, {"error": LONG, "error_type": "overloaded"}, "BACKEND_RATE_LIMITED", None),
    (400, ANTHROPIC, "INVALID_REQUEST", None),
    (400, HTML, "INVALID_REQUEST", None),
    (400, b"", "INVALID_REQUEST", None),
    (400, b"\xff\xfe{", "INVALID_REQUEST", None),
    (400, [LONG], "INVALID_REQUEST", None),
    (400, {"error": {"message": {}, "type": [LONG], "param": 7, "code": {}}}, "INVALID_REQUEST", None),
    (400, {"error": [LONG]}, "INVALID_REQUEST", None),
    (400, b'{"error":' + b"[" * 5000 + b"]" * 5000 + b"}", "INVALID_REQUEST", None),
    (503, b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}", "BACKEND_OVERLOADED", None),
    (408, b"", "BACKEND_LOST", None),
    (409, b"", "BACKEND_LOST", None),
    (599, b"", "BACKEND_LOST", None),
]

EVENTS: list[tuple[dict[str, Any], str]] = [
    (vllm(400, param="min_tokens"), "INVALID_REQUEST"),
    (vllm(400, param="input_tokens"), "CONTEXT_LENGTH_EXCEEDED"),
    (vllm(404, "NotFoundError", "model"), "MODEL_NOT_FOUND"),
    (vllm(500, "InternalServerError"), "BACKEND_LOST"),
    (vllm(503, "Service Unavailable"), "BACKEND_OVERLOADED"),
    (vllm(503, "InternalServerError"), "BACKEND_OVERLOADED"),
    (vllm(429), "BACKEND_RATE_LIMITED"),
    (vllm("400"), "INVALID_REQUEST"),
    (vllm("503"), "BACKEND_OVERLOADED"),
    (vllm("٤٠٠", "InternalServerError"), "BACKEND_LOST"),
    (vllm(200, "InternalServerError"), "BACKEND_LOST"),
    (vllm("4" * 5000, "InternalServerError"), "BACKEND_LOST"),
    (vllm(None), "INVALID_REQUEST"),
    (vllm(None, "ServiceUnavailableError"), "BACKEND_OVERLOADED"),
    (vllm(None, "NotFoundError"), "MODEL_NOT_FOUND"),
    (openai("invalid_request_error", "context_length_exceeded"), "CONTEXT_LENGTH_EXCEEDED"),
    (openai(None, "context_length_exceeded"), "CONTEXT_LENGTH_EXCEEDED"),
    (openai(None, "content_filter"), "CONTENT_REFUSED"),
    (openai(None, "model_not_found"), "MODEL_NOT_FOUND"),
    (openai("tokens", "rate_limit_exceeded"), "BACKEND_RATE_LIMITED"),
    (openai("rate_limit_error"), "BACKEND_RATE_LIMITED"),
    (openai("server_error"), "BACKEND_LOST"),
    (sglang(400), "INVALID_REQUEST"),
    (sglang(503), "BACKEND_OVERLOADED"),
    (LLAMA_CONTEXT, "CONTEXT_LENGTH_EXCEEDED"),
    (LLAMA_LOADING, "MODEL_LOADING"),
    (ANTHROPIC, "INVALID_REQUEST"),
    ({"type": "error", "error": {"type": "overloaded_error", "message": LONG}}, "BACKEND_OVERLOADED"),
    ({"error": {"object": "error"} | sglang(503)}, "BACKEND_OVERLOADED"),
    ({"error": {"code": 501, "message": LONG, "type": "not_supported_error"}}, "UNSUPPORTED_PARAMETER"),
    (openai("not_supported_error"), "UNSUPPORTED_PARAMETER"),
    (openai("permission_error"), "BACKEND_REFUSED"),
    (TGI, "INVALID_REQUEST"),
    ({"error": LONG, "error_type": "template_error"}, "INVALID_REQUEST"),
    ({"error": LONG, "error_type": "generation"}, "BACKEND_LOST"),
    ({"error": LONG, "error_type": "incomplete_generation"}, "BACKEND_LOST"),
    ({"error": LONG, "error_type": "overloaded"}, "BACKEND_RATE_LIMITED"),
    ({"error": LONG, "error_type": [LONG]}, "BACKEND_LOST"),
    ({"error": LONG}, "BACKEND_LOST"),
    ({"error": {"message": ""}}, "BACKEND_LOST"),
    ({"error": [LONG]}, "BACKEND_LOST"),
]


def numbered(rows: list[Any], name: int) -> list[Any]:
    return [
        pytest.param(*row, id=f"{number}-{row[0] if name == 0 else ''}-{row[name]}") for number, row in enumerate(rows)
    ]


def fields_of(error: GatewayError) -> list[str]:
    return [violation.field for violation in error.violations] if isinstance(error, InvalidRequest) else []


@pytest.mark.parametrize(("status", "body", "reason", "field"), numbered(RESPONSES, 2))
def test_a_response_that_is_not_ok_has_a_reason(status: int, body: Any, reason: str, field: str | None) -> None:
    error = error_of_response(status, body if isinstance(body, bytes) else msgspec.json.encode(body))

    assert error.reason == reason
    assert fields_of(error) == ([field] if field else [])
    assert LONG.strip() not in error.message
    assert len(error.message) < 200


@pytest.mark.parametrize(("payload", "reason"), numbered(EVENTS, 1))
def test_an_error_in_a_stream_has_a_reason(payload: dict[str, Any], reason: str) -> None:
    chunk = decode_chunk(msgspec.json.encode(payload))

    assert is_error(chunk)
    assert error_of_event(chunk).reason == reason


@pytest.mark.parametrize("payload", [{"error": None, "choices": []}, {"choices": []}, {"object": "chat.completion"}])
def test_a_chunk_with_an_empty_error_is_none(payload: dict[str, Any]) -> None:
    assert not is_error(decode_chunk(msgspec.json.encode(payload)))


@pytest.mark.parametrize("status", range(300, 600))
def test_every_status_has_a_reason(status: int) -> None:
    assert error_of_response(status, b"").reason


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_wait_that_the_backend_asks_for_is_kept(status: int) -> None:
    assert error_of_response(status, b"", 1.0).asked_wait == 1.0
    assert error_of_response(status, b"").asked_wait is None


def test_a_spent_quota_is_not_tried_again() -> None:
    error = error_of_response(429, msgspec.json.encode(openai("insufficient_quota")))

    assert isinstance(error, BackendError)
    assert not error.retryable


@pytest.mark.parametrize("asked", [None, 0.0, 60.0])
def test_a_spent_quota_comes_back_only_when_the_backend_says_so(asked: float | None) -> None:
    assert error_of_response(429, msgspec.json.encode(openai("insufficient_quota")), asked).retry_after == asked


@pytest.mark.parametrize("payload", [vllm(500), vllm(502), {"error": LONG}], ids=["500", "502", "no code"])
def test_an_error_in_a_stream_names_no_status_that_was_never_there(payload: dict[str, Any]) -> None:
    error = error_of_event(decode_chunk(msgspec.json.encode(payload)))

    assert error.message == "The backend failed and said so in its answer."
    assert error_of_response(502, b"").message == "The backend failed with HTTP 502."
