# SPDX-License-Identifier: Apache-2.0
"""A load generator's gRPC client: HTTP/2 frames taken apart by hand.

grpc.aio costs as much to receive a message as the gateway to relay it, and would starve the simulator beside it.
"""

from __future__ import annotations

import asyncio
from typing import cast

from llm_gateway.v1 import llm_service_pb2 as pb
from llm_gateway.v1 import message_pb2
from tests.bench.streams import Ask, Stream

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GO_AWAY, WINDOW_UPDATE = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7, 0x8
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
CANCEL = (0x8).to_bytes(4, "big")
HEAD = 9
PREFIX = 5
INITIAL_WINDOW = (0x4).to_bytes(2, "big")
STREAM_WINDOW = 4 * 1024 * 1024
TOP_UP = 16 * 1024 * 1024
FIRST_PIECE = 2
"""`started` comes first."""
PATH = "/llm_gateway.v1.LLMService/ChatCompletionStream"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


class _Answer:
    """A stream and the bytes of its message that are not whole yet."""

    __slots__ = ("last", "rest", "stream")

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.rest = b""
        self.last = b""

    def feed(self, data: bytes) -> None:
        """Count the messages; keep the last one."""
        if self.rest:
            data = self.rest + data
        position, size, messages = 0, len(data), 0
        while size - position >= PREFIX:
            end = position + PREFIX + int.from_bytes(data[position + 1 : position + PREFIX], "big")
            if end > size:
                break
            messages += 1
            self.last = data[position + PREFIX : end]
            position = end
        self.rest = data[position:] if position < size else b""
        if messages:
            self.stream.counted(messages)

    def end(self) -> None:
        """The trailers came; `completed` as the last message says that the status is OK: a law of the gateway."""
        stream = self.stream
        last = pb.ChatCompletionStreamResponse.FromString(self.last)
        if last.WhichOneof("event") != "completed":
            stream.end(f"not a whole answer after {stream.pieces} messages: see .cache/bench/gateway.log")
            return
        stream.tokens = last.completed.usage.completion_tokens
        stream.merged = last.completed.merged_deltas
        stream.attempts = len(last.completed.attempts)
        stream.end()


class Connection(asyncio.Protocol):
    """One HTTP/2 connection, many answers at a time."""

    def __init__(self, authority: str) -> None:
        self._transport: asyncio.Transport | None = None
        self._answers: dict[int, _Answer] = {}
        self._next = 1
        self._rest = b""
        self._received = 0
        self._first_headers, self._headers = _header_blocks(authority)
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast("asyncio.Transport", transport)
        settings = INITIAL_WINDOW + STREAM_WINDOW.to_bytes(4, "big")
        self._transport.write(PREFACE + frame(SETTINGS, 0, 0, settings) + _window(TOP_UP))

    def connection_lost(self, error: Exception | None) -> None:
        """Gone."""
        self.closed = True
        for answer in self._answers.values():
            answer.stream.end(f"the connection was lost: {error}")
        self._answers.clear()

    def send(self, message: bytes, stream: Stream) -> None:
        """A request."""
        assert self._transport is not None, "connected"
        if self.closed:
            stream.end("the connection was closed")
            return
        number = self._next
        self._next += 2
        self._answers[number] = _Answer(stream)
        block = self._first_headers if number == 1 else self._headers
        body = b"\0" + len(message).to_bytes(4, "big") + message
        self._transport.write(frame(HEADERS, END_HEADERS, number, block) + frame(DATA, END_STREAM, number, body))

    def cancel(self, stream: Stream) -> bool:
        """Tell the server that nobody waits for this answer; False if it is not under way here."""
        number = next((number for number, answer in self._answers.items() if answer.stream is stream), None)
        if number is None or self._transport is None:
            return False
        self._transport.write(frame(RESET, 0, number, CANCEL))
        self._answers.pop(number).stream.end()
        return True

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Take frames apart. The hot loop of the load generator."""
        self._received += len(data)
        if self._rest:
            data = self._rest + data
        position, size = 0, len(data)
        answers = self._answers
        while size - position >= HEAD:
            start = position + HEAD
            end = start + int.from_bytes(data[position : position + 3], "big")
            if end > size:
                break
            kind, number = data[position + 3], int.from_bytes(data[position + 5 : start], "big")
            if kind == DATA and number in answers:
                answers[number].feed(data[start:end])
            else:
                self._other(kind, data[position + 4], number, data[start:end])
            position = end
        self._rest = data[position:]
        if self._received > TOP_UP // 2 and self._transport is not None:
            self._transport.write(_window(self._received))
            self._received = 0

    def _other(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        assert self._transport is not None, "connected"
        if kind == HEADERS and flags & END_STREAM and number in self._answers:
            self._answers.pop(number).end()
        elif kind == RESET and number in self._answers:
            self._answers.pop(number).stream.end(f"the stream was reset, code {int.from_bytes(payload, 'big')}")
        elif kind in (SETTINGS, PING) and not flags & ACK:
            self._transport.write(frame(kind, ACK, 0, payload if kind == PING else b""))
        elif kind == GO_AWAY:
            self.close()


class GrpcClient:
    """The gateway's streaming chat over so many connections, used in turn."""

    def __init__(self, port: int, connections: int = 4) -> None:
        self._port = port
        self._wanted = connections
        self._connections: list[Connection] = []
        self._turn = 0
        self._requests: dict[Ask, bytes] = {}

    async def open(self, ask: Ask) -> Stream:
        """Send a request over the next connection."""
        if len(self._connections) < self._wanted:
            loop = asyncio.get_running_loop()
            authority = f"127.0.0.1:{self._port}"
            _, connection = await loop.create_connection(lambda: Connection(authority), "127.0.0.1", self._port)
            self._connections.append(connection)
        else:
            self._turn = (self._turn + 1) % self._wanted
            connection = self._connections[self._turn]
        stream = Stream(FIRST_PIECE)
        request = self._requests.get(ask)
        if request is None:
            request = self._requests[ask] = request_of(ask).SerializeToString()
        connection.send(request, stream)
        return stream

    def cancel(self, stream: Stream) -> None:
        """Leave an answer, as a caller does who cancels. It ends well for us, with no tokens."""
        if not any(connection.cancel(stream) for connection in self._connections):
            raise ValueError("the stream is not under way")

    async def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.close()
        self._connections.clear()


def request_of(ask: Ask) -> pb.ChatCompletionRequest:
    """The request as a message."""
    request = pb.ChatCompletionRequest(
        model=ask.model, messages=[message_pb2.Message(role=message_pb2.ROLE_USER, content=ask.prompt)]
    )
    request.params.max_tokens = ask.tokens
    request.params.ignore_eos = True
    return request


def _header_blocks(authority: str) -> tuple[bytes, bytes]:
    """The first request's headers, which teach the server five fields, and the later ones', which only name them."""
    indexed = b"\x83\x86"  # :method POST, :scheme http
    fields = [(":path", PATH), (":authority", authority)]
    fields += [("content-type", "application/grpc"), ("te", "trailers"), ("user-agent", "bench")]
    literal = b"".join(b"\x40" + _text(name) + _text(value) for name, value in fields)
    # The static table has 61 fields; the newest one of the dynamic table comes next.
    return indexed + literal, indexed + bytes(0x80 | 62 + i for i in reversed(range(len(fields))))


def _text(text: str) -> bytes:
    return bytes((len(text),)) + text.encode()


def _window(size: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, 0, size.to_bytes(4, "big"))
