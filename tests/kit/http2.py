# SPDX-License-Identifier: Apache-2.0
"""A bare HTTP/2 client: it sends what no gRPC library would, and sees the frames that one hides."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from google.protobuf.message import Message

STREAM = "/llm_gateway.v1.LLMService/ChatCompletionStream"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_HEADER_LIST_SIZE = 0x3, 0x4, 0x6
USUAL = MappingProxyType({"content-type": b"application/grpc", "te": b"trailers"})
ENHANCE_YOUR_CALM, NO_ERROR = 0xB, 0x0
PATIENCE = 10.0


class Kind(IntEnum):
    """The types of frames that matter here (RFC 9113, section 6)."""

    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def error_code(self) -> int:
        """Of a GOAWAY."""
        return int.from_bytes(self.payload[4:8], "big")

    @property
    def grpc_status(self) -> int | None:
        """Of trailers that are the first of their connection: after them, the names are in HPACK's table."""
        _, name, rest = self.payload.partition(b"grpc-status")
        return int(rest[1 : 1 + rest[0]]) if name else None

    @property
    def settings(self) -> dict[int, int]:
        """Of a SETTINGS."""
        pairs = [self.payload[i : i + 6] for i in range(0, len(self.payload), 6)]
        return {int.from_bytes(pair[:2], "big"): int.from_bytes(pair[2:], "big") for pair in pairs}


class Http2Client:
    """One connection. It reads only when asked to, and answers no ping: to the other side, it is frozen."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._stream = -1

    def send(self, kind: Kind, payload: bytes = b"", *, flags: int = 0, stream: int = 0, times: int = 1) -> None:
        """Send one frame, or several alike in one write."""
        head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
        self._writer.write((head + payload) * times)

    def accept_no_data(self) -> None:
        """Take what comes without flow control, as headers do, and nothing of any message."""
        self.send(Kind.SETTINGS, INITIAL_WINDOW_SIZE.to_bytes(2, "big") + bytes(4))

    def begin(
        self, path: str, metadata: Sequence[tuple[str, bytes]] = (), *, fields: Mapping[str, bytes] = USUAL
    ) -> int:
        """Send the headers of a call, and no message yet; gives the number of its stream."""
        self._stream += 2
        head = [(":method", b"POST"), (":scheme", b"http"), (":path", path.encode()), (":authority", b"gateway")]
        block = b"".join(_literal(*field) for field in [*head, *fields.items(), *metadata])
        self.send(Kind.HEADERS, block, flags=END_HEADERS, stream=self._stream)
        return self._stream

    def call(self, path: str, request: Message, metadata: Sequence[tuple[str, bytes]] = ()) -> int:
        """Send a whole gRPC call; gives the number of its stream."""
        number = self.begin(path, metadata)
        self.send(Kind.DATA, framed(request.SerializeToString()), flags=END_STREAM, stream=number)
        return number

    async def receive(self) -> Frame:
        """The next frame. Raises IncompleteReadError or ConnectionError when the other side has closed."""
        async with asyncio.timeout(PATIENCE):
            head = await self._reader.readexactly(9)
            payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
        return Frame(head[3], head[4], int.from_bytes(head[5:], "big"), payload)

    async def receive_until(self, kind: Kind, *, flags: int = 0, stream: int | None = None) -> Frame:
        """The next frame of a kind that has these flags; those before it are passed over."""
        while True:
            frame = await self.receive()
            if frame.kind == kind and frame.flags & flags == flags and stream in (None, frame.stream):
                return frame

    async def receive_end(self, stream: int) -> Frame:
        """Read up to the trailers of a call."""
        return await self.receive_until(Kind.HEADERS, flags=END_STREAM, stream=stream)

    async def flush(self) -> None:
        """Wait until the kernel has taken what was sent."""
        async with asyncio.timeout(PATIENCE):
            await self._writer.drain()

    async def closed(self) -> None:
        """Read until the other side closes the connection."""
        try:
            while True:
                await self.receive()
        except (asyncio.IncompleteReadError, ConnectionError):
            return


@asynccontextmanager
async def http2_client(port: int) -> AsyncIterator[Http2Client]:
    """A connection to a gRPC server on loopback, past the preface but before any frame was read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = Http2Client(reader, writer)
    writer.write(PREFACE)
    client.send(Kind.SETTINGS)
    client.send(Kind.SETTINGS, flags=ACK)
    try:
        yield client
    finally:
        writer.transport.abort()


def framed(message: bytes, *, compressed: bool = False) -> bytes:
    """A message as gRPC puts it into DATA."""
    return bytes((compressed,)) + len(message).to_bytes(4, "big") + message


def _literal(name: str, value: bytes) -> bytes:
    """A header field without indexing and without Huffman's code (RFC 7541, section 6.2.2)."""
    return b"\0" + _length(len(name)) + name.encode() + _length(len(value)) + value


def _length(number: int) -> bytes:
    """An integer with a prefix of 7 bits (RFC 7541, section 5.1)."""
    if number < 127:
        return bytes((number,))
    encoded, number = b"\x7f", number - 127
    while number >= 128:
        encoded, number = encoded + bytes((number % 128 + 128,)), number // 128
    return encoded + bytes((number,))
