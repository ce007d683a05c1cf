# SPDX-License-Identifier: Apache-2.0
"""Reads `tests/recordings/`: what was sent to a real vLLM, and what came back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llm_gateway.simulator import Options

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = Path(__file__).parents[1] / "recordings"

OPTIONS = {
    "default": Options(models=("tiny",), version="0.32.0"),
    "lazy": Options(models=("tiny",), version="0.32.0"),
    "flags": Options(
        models=("tiny",),
        version="0.32.0",
        tool_parser=True,
        request_id_headers=True,
        load_tracking=True,
        prompt_tokens_details=True,
        per_request_metrics=True,
    ),
    "apikey": Options(models=("tiny",), version="0.32.0", api_key="key-one"),
}
FORCED_USAGE = Options(models=("tiny",), version="0.32.0", force_include_usage=True)

NOT_REPLAYED = {
    "anthropic": "/v1/messages is not simulated",
    "anthropic_stream": "/v1/messages is not simulated",
    "responses": "/v1/responses is not simulated",
    "responses_stream": "/v1/responses is not simulated",
    "nokey_docs": "a page for people",
    "options": "for browsers",
    "sse_keep_alive": "has its own test: the engine was frozen by a signal",
    "nokey_metrics": "has its own test",
    "metrics": "has its own test",
    "metrics_after": "has its own test",
    "stream_raw": "has its own test: recorded before chunked decoding",
}

_JSON = {"Content-Type": "application/json"}
_PATHS = {"load_after": "/load", "health_after": "/health", "models": "/v1/models", "model_one": "/v1/models/tiny"}
_CHAT, _TEXT = "/v1/chat/completions", "/v1/completions"
_HELLO = b'{"messages":[{"role":"user","content":"x"}],"max_tokens":2}'
_FORCED = b'{"messages":[{"role":"user","content":"x"}],"max_tokens":2,"stream":true}'


@dataclass(frozen=True)
class Exchange:
    """One request and its answer, or the answer the simulator gave to the same request."""

    name: str
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Sent:
    """A request as it went out."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None


def names(folder: str) -> list[str]:
    """Every recording of a folder that the simulator can replay."""
    return sorted(path.stem for path in (FOLDER / folder).glob("*.resp") if path.stem not in NOT_REPLAYED)


def answer(folder: str, name: str) -> Exchange:
    """What vLLM answered."""
    raw = (FOLDER / folder / f"{name}.resp").read_bytes()
    separator = b"\r\n\r\n" if b"\r\n\r\n" in raw[:1000] else b"\n\n"
    head, _, body = raw.partition(separator)
    first, *lines = head.decode().splitlines()
    headers = dict(line.split(": ", 1) for line in lines)
    return Exchange(name, int(first.split()[1]), headers, body)


def request(folder: str, name: str) -> Sent:
    """What vLLM was asked; the names of the recordings say where."""
    if folder == "apikey":
        return _keyed(name)
    file = FOLDER / folder / f"{name}.req"
    if not file.exists():
        if name == "method_not_allowed":
            return Sent("GET", _CHAT, {}, None)
        return Sent("GET", _PATHS.get(name, f"/{name}"), {}, None)
    headers = {"Content-Type": "text/plain"} if name == "err_content_type" else _JSON
    if name == "request_id_header":
        headers = headers | {"X-Request-Id": "my-req-42"}
    return Sent("POST", _path(name), headers, file.read_bytes())


def _path(name: str) -> str:
    if name.startswith(("tokenize", "detokenize")):
        return "/" + name.partition("_")[0]
    if name == "embeddings":
        return "/v1/embeddings"
    return _TEXT if name.startswith("completion") else _CHAT


def _keyed(name: str) -> Sent:
    """The folder has no requests: these are what the names say."""
    credentials = {
        "key1": {"Authorization": "Bearer key-one"},
        "key2": {"Authorization": "Bearer key-one"},
        "wrong_key": {"Authorization": "Bearer key-three"},
        "basic": {"Authorization": "Basic a2V5LW9uZQ=="},
        "x_api_key": {"X-Api-Key": "key-one"},
    }
    if name == "force_usage":
        return Sent("POST", _CHAT, _JSON, _FORCED)
    if name.startswith("nokey_"):
        return Sent("GET", "/" + name.removeprefix("nokey_").replace("v1_", "v1/"), {}, None)
    return Sent("POST", _CHAT, _JSON | credentials.get(name, {}), _HELLO)
