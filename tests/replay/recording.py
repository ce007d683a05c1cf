# SPDX-License-Identifier: Apache-2.0
"""Reads `tests/recordings/`, and says by plain JSON alone what a caller of the gateway must get of each."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.replay import sorting

FOLDER = Path(__file__).parents[1] / "recordings"
EVENT_STREAM = "text/event-stream; charset=utf-8"
IMPOSSIBLE = -9999.0

# The answers without a recorded request: what their README and their bytes say was asked.
_KEYED = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
_UNRECORDED = {"force_usage": _KEYED | {"stream": True}, "sse_keep_alive": _KEYED | {"stream": True, "max_tokens": 400}}


@dataclass(frozen=True)
class Recording:
    """One request to a real vLLM and its answer."""

    folder: str
    name: str

    def __str__(self) -> str:
        return f"{self.folder}/{self.name}"

    @cached_property
    def _parts(self) -> tuple[str, dict[str, str], bytes]:
        raw = (FOLDER / self.folder / f"{self.name}.resp").read_bytes()
        if raw.startswith(b"data:"):  # kept without its head
            return "200 OK", {"content-type": EVENT_STREAM}, raw
        separator = b"\r\n\r\n" if b"\r\n\r\n" in raw else b"\n\n"
        head, _, body = raw.partition(separator)
        first, *lines = head.decode().splitlines()
        return first.partition(" ")[2], dict(line.lower().split(": ", 1) for line in lines), body

    @property
    def status(self) -> str:
        """The code and its phrase."""
        return self._parts[0]

    @property
    def content_type(self) -> str:
        return self._parts[1].get("content-type", "")

    @property
    def streams(self) -> bool:
        return self.content_type == EVENT_STREAM

    @cached_property
    def body(self) -> bytes:
        """The body without its framing."""
        body = self._parts[2]
        return _without_chunks(body) if self.name == "stream_raw" else body

    @cached_property
    def request(self) -> Any:
        """What was sent, decoded; None where it is no JSON."""
        file = FOLDER / self.folder / f"{self.name}.req"
        if not file.exists():
            return _UNRECORDED.get(self.name, _KEYED)
        try:
            return json.loads(file.read_bytes())
        except ValueError:
            return None

    @cached_property
    def chunks(self) -> list[Any]:
        """The events of a stream, or the one document, decoded."""
        if not self.streams:
            return [json.loads(self.body)]
        lines = self.body.decode().split("\n")
        datas = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        assert datas[-1] == "[DONE]"
        return [json.loads(data) for data in datas[:-1]]

    @property
    def has_request(self) -> bool:
        """Whether the request is recorded too."""
        return (FOLDER / self.folder / f"{self.name}.req").exists()

    @property
    def words(self) -> str:
        """What vLLM wrote in a refusal."""
        error = self.chunks[0].get("error", self.chunks[0].get("detail"))
        return str(error["message"] if isinstance(error, dict) else error)

    @property
    def refused(self) -> bool:
        """Whether it is a status other than 200, or an error in the place of an answer."""
        return not self.status.startswith("200") or any("error" in chunk for chunk in self.chunks)


def _without_chunks(body: bytes) -> bytes:
    pieces = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        pieces.append(rest[: int(size, 16)])
        body = rest[int(size, 16) + 2 :]
    return b"".join(pieces)


def recordings(title: str) -> list[Recording]:
    """Every recording that is in the list of this title."""
    return [r for r in every_recording() if sorting.lists_of(r.folder, r.name) == [title]]


def every_recording() -> list[Recording]:
    return [Recording(path.parent.name, path.stem) for path in sorted(FOLDER.glob("*/*.resp"))]


@dataclass(slots=True)
class Told:
    """What a caller is told of one choice."""

    text: str = ""
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    finish: str = ""
    stop: str | int | None = None
    logprobs: list[Any] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Expected:
    """What a caller is told of an answer."""

    choices: dict[int, Told] = field(default_factory=dict)
    model: str = ""
    usage: tuple[int, int, int | None] | None = None
    """Prompt, completion and cached tokens; None where the backend gave no count."""
    seen_tokens: int = 0
    """Pieces with something in them, or tokens where they are told: what an estimate is made of."""
    first_text: str = ""
    """What the first piece with something in it says."""


def expected(recording: Recording) -> Expected:
    """What the gateway must tell, drawn from the recording without any of the gateway's code."""
    result = Expected(model=recording.chunks[0]["model"])
    for chunk in recording.chunks:
        for choice in chunk["choices"]:
            _add(result, choice)
        if (usage := chunk.get("usage")) is not None:
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
            result.usage = usage["prompt_tokens"], usage["completion_tokens"], cached
    for told in result.choices.values():
        told.finish = _finish(told, result, recording.request)
    return result


def _add(result: Expected, choice: Any) -> None:
    told = result.choices.setdefault(choice["index"], Told())
    message = choice.get("delta") or choice.get("message") or {"content": choice.get("text")}
    text = message.get("content") or ""
    logprobs = _logprobs(choice.get("logprobs") or {})
    told.text += text
    for call in message.get("tool_calls") or []:
        _add_call(told, call)
    told.logprobs += logprobs
    token_ids = choice.get("token_ids") or []
    told.token_ids += token_ids
    if choice["finish_reason"] is not None:
        told.finish, told.stop = choice["finish_reason"], choice["stop_reason"]
    result.seen_tokens += len(token_ids or logprobs) or bool(text or message.get("tool_calls"))
    result.first_text = result.first_text or text


def _add_call(told: Told, call: Any) -> None:
    function = call["function"]
    if "id" in call:
        told.calls.append((call["id"], function["name"], function.get("arguments", "")))
    else:
        id_, name, arguments = told.calls[-1]
        told.calls[-1] = id_, name, arguments + function["arguments"]


def _logprobs(logprobs: Any) -> list[Any]:
    """Each token with its log-probability, its bytes and its rivals; a completion's have the text's bytes."""
    if "content" in logprobs:
        return [
            (t["token"], t["logprob"], bytes(t["bytes"]), [(r["token"], r["logprob"]) for r in t["top_logprobs"]])
            for t in logprobs["content"]
        ]
    columns = (logprobs.get(name, []) for name in ("tokens", "token_logprobs", "top_logprobs"))
    return [
        (token, IMPOSSIBLE if logprob is None else logprob, token.encode(), list((rivals or {}).items()))
        for token, logprob, rivals in zip(*columns, strict=True)
    ]


def _finish(told: Told, result: Expected, request: Any) -> str:
    """The rules of the design: a named tool's `stop` is TOOL_CALLS, a `length` short of max_tokens is the context's."""
    if told.finish == "stop" and told.calls:
        return "TOOL_CALLS"
    if told.finish != "length":
        return told.finish.upper()
    limit = request.get("max_completion_tokens") or request.get("max_tokens")
    if limit is None:
        return "CONTEXT_LENGTH"
    if result.usage is None:
        return "LENGTH"
    return "CONTEXT_LENGTH" if result.usage[1] // len(result.choices) < limit else "LENGTH"
