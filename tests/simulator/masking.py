# SPDX-License-Identifier: Apache-2.0
"""Takes out of an answer what no two servers share (ids, times, the model's words), and leaves everything else."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulator.recorded import Exchange

Json = dict[str, Any]

_HEADERS = ("content-type", "transfer-encoding", "allow", "vary", "server", "x-request-id")
_RANDOM_ID = re.compile(r"\b([0-9a-f]{32}|[0-9a-f]{16})$")
_WORDS = ("content", "text", "reasoning", "arguments", "token", "decoded_token")
_MEASURED = ("created", "logprob", "root", "rank")


def masked(exchange: Exchange) -> Json:
    """What two answers to the same request must have in common."""
    headers = {name: _RANDOM_ID.sub("#", exchange.headers[name]) for name in _HEADERS if name in exchange.headers}
    body: Any = exchange.body.decode()
    if headers.get("content-type", "").startswith("text/event-stream"):
        body = _events(body)
    elif headers.get("content-type") == "application/json":
        body = _document(body)
    return {"status": exchange.status, "headers": headers, "body": body}


def _document(text: str) -> str:
    """A JSON text with its keys in order, and whether it was written with spaces."""
    content = json.loads(text)
    by_itself = _ended_by_itself(content)
    return _style(text) + json.dumps(_mask(content, by_itself))


def _events(text: str) -> list[str]:
    """Events of one shape that follow one another in a choice count once: vLLM, when late, packs several tokens."""
    shapes: list[str] = []
    latest: dict[str, str] = {}
    contents = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    by_itself = any(_ended_by_itself(json.loads(content)) for content in contents if content.startswith("{"))
    for content in contents:
        shape = _event(content, by_itself) if content.startswith("{") else content
        choice = shape.partition('"choices": [{"index": ')[2][:1]
        if latest.get(choice) != shape:
            shapes.append(shape)
        latest[choice] = shape
    return shapes


def _event(text: str, by_itself: bool) -> str:
    content = json.loads(text)
    if content.get("choices") and "usage" in content:  # counts on the way: vLLM may have packed tokens
        content["usage"] |= dict.fromkeys(("total_tokens", "completion_tokens"), "…")
    return _style(text) + json.dumps(_mask(content, by_itself))


def _style(text: str) -> str:
    return "spaced " if '": ' in text.partition(",")[0] else "compact "


def _ended_by_itself(content: Json) -> bool:
    """Where the model itself ended its reply, or its own words did, its length is its own affair."""
    return any(choice.get("finish_reason") in ("stop", "tool_calls") for choice in content.get("choices") or [])


def _mask(content: Any, by_itself: bool) -> Any:
    if isinstance(content, list):
        return [_mask(item, by_itself) for item in content]
    if not isinstance(content, dict):
        return content
    return {key: _masked_value(key, value, by_itself) for key, value in content.items()}


def _masked_value(key: str, value: Any, by_itself: bool) -> Any:
    if key == "error":  # messages are compared letter by letter
        return value
    if isinstance(value, str):
        return _masked_text(key, value)
    if key in _MEASURED or isinstance(value, float):
        return "…"
    if by_itself and key in ("completion_tokens", "total_tokens"):
        return "…"
    special = _SPECIAL.get(key)
    if special is not None and value is not None:
        return special(value)
    return _mask(value, by_itself)


def _masked_text(key: str, value: str) -> str:
    if key in _WORDS or key in _MEASURED:
        return "…" if value else ""
    if key == "system_fingerprint":
        return value.rpartition("-")[0]
    return _RANDOM_ID.sub("#", value) if key == "id" else value


def _of_tokens(values: list[Any]) -> list[Any]:
    """One value for each token: their number counts, and which of them are null."""
    return [None if value is None else f"{len(value)} tops" if isinstance(value, dict) else "…" for value in values]


def _of_chat_tops(tops: list[Json]) -> list[list[str]]:
    return [list(top) for top in tops]


def _of_cache(details: Json) -> Json:
    """What is in the cache already depends on the requests before."""
    created = details.get("created_cache_tokens")
    counted = {"cached_tokens": details["cached_tokens"] + (created or 0)}
    return (
        details | counted | ({"created_cache_tokens": created is not None} if "created_cache_tokens" in details else {})
    )


_SPECIAL: dict[str, Callable[[Any], Any]] = {
    "token_ids": _of_tokens,
    "tokens": lambda tokens: tokens if isinstance(tokens[0], int) else _of_tokens(tokens),
    "text_offset": _of_tokens,
    "token_logprobs": _of_tokens,
    "bytes": lambda _: "…",
    "prompt_logprobs": _of_tokens,
    "prompt_tokens_details": _of_cache,
    "top_logprobs": lambda tops: _of_chat_tops(tops) if tops and "token" in (tops[0] or {}) else _of_tokens(tops),
}
