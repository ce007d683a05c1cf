# SPDX-License-Identifier: Apache-2.0
"""What a row of the table of edge cases is made of."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.kit.scripted import DONE, STREAM_HEAD, Close, chunk, json_response, usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.kit.scripted import Step

CHUNKED = STREAM_HEAD[:-2] + b"transfer-encoding: chunked\r\n\r\n"
STOP = chunk(finish="stop")
END = (STOP, usage(3, 2), DONE)
HELLO = (chunk("Hel"), chunk("lo"), *END)


@dataclass(frozen=True, slots=True)
class Whole:
    """A good ending, by choice: the texts and the finish reasons; the rest where a row is about it."""

    texts: Sequence[str] = ("Hello",)
    finishes: Sequence[str] = ("STOP",)
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fault:
    """A bad ending: the code, the reason, and the text that a stream delivered before it."""

    code: str
    reason: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Bytes in, an ending out. `params` are the caller's GenerationParams."""

    script: Sequence[Step]
    ending: Whole | Fault
    params: Mapping[str, Any] = field(default_factory=dict)


LOST = Fault("UNAVAILABLE", "BACKEND_LOST")
NOT_THE_PROTOCOL = Fault("INTERNAL", "BACKEND_PROTOCOL_ERROR")


def interrupted(text: str) -> Fault:
    """The backend was lost after this text."""
    return Fault("ABORTED", "STREAM_INTERRUPTED", text)


def corrupted(text: str) -> Fault:
    """The backend spoke nonsense after this text."""
    return Fault("ABORTED", "STREAM_CORRUPTED", text)


def streamed(*steps: Step) -> list[Step]:
    """A stream that ends with its connection."""
    return [STREAM_HEAD, *steps]


def whole(*steps: Step, **more: Any) -> Row:
    """A stream that says "Hello" and stops."""
    return Row(streamed(*steps), Whole(more=more))


def says(text: str, *steps: Step, finish: str = "STOP", **more: Any) -> Row:
    """A stream that says something."""
    return Row(streamed(*steps), Whole((text,), (finish,), more))


def fails(fault: Fault, *steps: Step) -> Row:
    """A stream that fails."""
    return Row(streamed(*steps), fault)


def line(text: str) -> bytes:
    """The JSON of a chunk, without its event."""
    return chunk(text)[len(b"data: ") : -2]


def choice(**fields: Any) -> bytes:
    """A chunk with one choice, as it is given."""
    return raw_chunk(choices=[{"index": 0} | fields])


def raw_chunk(**fields: Any) -> bytes:
    """A chunk, as it is given."""
    return b"data: " + json.dumps({"id": "chatcmpl-1", "model": "tiny"} | fields).encode() + b"\n\n"


def calling(*calls: Mapping[str, Any], finish: str | None = None) -> bytes:
    """A chunk with pieces of function calls."""
    return choice(delta={"tool_calls": list(calls)}, finish_reason=finish)


def answered(head: str, body: bytes = b"") -> list[Step]:
    """A whole HTTP response, its head as it is given."""
    return [f"HTTP/1.1 {head}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body]


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> list[Step]:
    """A stream in HTTP chunks."""
    return [CHUNKED, *(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces), end, Close]


def completion(**fields: Any) -> list[Step]:
    """A whole answer as JSON, although a stream was asked for."""
    message = {"role": "assistant", "content": "Hello"}
    ended = {"index": 0, "message": message, "finish_reason": "stop"}
    counts = {"prompt_tokens": 3, "completion_tokens": 2}
    return [json_response("200 OK", {"model": "tiny", "choices": [ended], "usage": counts} | fields)]
