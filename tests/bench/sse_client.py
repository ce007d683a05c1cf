# SPDX-License-Identifier: Apache-2.0
"""A load generator's HTTP client: no more than counts the events of a stream, for it must not starve the measured."""

from __future__ import annotations

import asyncio
import json
import re
from typing import cast

from tests.bench.streams import Ask, Stream

EVENT_END = b"\n\n"
BODY_END = b"0\r\n\r\n"
TAIL = 1024
USAGE = re.compile(rb'"completion_tokens":(\d+)')
FIRST_PIECE = 2
"""The role comes first."""


class Connection(asyncio.Protocol):
    """One connection, one answer at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.stream: Stream | None = None
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Gone."""
        self.transport = None
        if self.stream is not None:
            self.stream.end(f"the connection was lost: {error}")

    def data_received(self, data: bytes) -> None:
        """Count events; look at the bytes themselves only for the end."""
        stream = self.stream
        if stream is None:
            return
        tail = self._tail
        straddling = tail[-1:] == data[:1] == b"\n" and tail[-2:] != EVENT_END
        stream.counted(data.count(EVENT_END) + straddling)
        self._tail = tail = data[-TAIL:] if len(data) >= TAIL else (tail + data)[-TAIL:]
        if tail.endswith(BODY_END):
            self.stream = None
            self._end(stream, tail)

    def send(self, request: bytes, stream: Stream) -> None:
        """The next request."""
        assert self.transport is not None, "connected"
        self.stream = stream
        self._tail = b""
        self.transport.write(request)

    def _end(self, stream: Stream, tail: bytes) -> None:
        usage = USAGE.search(tail)
        if usage is None or b"data: [DONE]" not in tail:
            stream.end(f"not a whole answer: …{tail[-200:]!r}")
            return
        stream.tokens = int(usage[1])
        stream.end()


class SseClient:
    """OpenAI's protocol to the simulator or to a router in front of it; connections are kept."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connections: list[Connection] = []
        self._requests: dict[Ask, bytes] = {}

    async def open(self, ask: Ask) -> Stream:
        """Send a request over a connection that is free, or over a new one."""
        connection = next((c for c in self._connections if c.stream is None and c.transport is not None), None)
        if connection is None:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(Connection, "127.0.0.1", self._port)
            self._connections.append(connection)
        request = self._requests.get(ask)
        if request is None:
            request = self._requests[ask] = self._request(ask)
        stream = Stream(FIRST_PIECE)
        connection.send(request, stream)
        return stream

    async def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            if connection.transport is not None:
                connection.transport.close()
        self._connections.clear()

    def _request(self, ask: Ask) -> bytes:
        body = {
            "model": ask.model,
            "messages": [{"role": "user", "content": ask.prompt}],
            "max_completion_tokens": ask.tokens,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        content = json.dumps(body).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content
