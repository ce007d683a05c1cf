# SPDX-License-Identifier: Apache-2.0
"""A backend of raw bytes: it plays a script for each connection, and notices when its client leaves.

The simulator behaves like vLLM; this one does whatever a test writes down, byte by byte.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence

STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nconnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so many seconds, or until the client has left."""

    seconds: float = 3600.0


@dataclass(frozen=True, slots=True)
class Hold:
    """Wait until the test lets it go on."""

    gate: asyncio.Event


class Reset:
    """End the connection with a RST."""


class Close:
    """End the connection with a FIN."""


Step = bytes | Pause | Hold | type[Reset] | type[Close]


def event(payload: Any) -> bytes:
    """A server-sent event as vLLM writes it."""
    return b"data: " + json.dumps(payload, ensure_ascii=False).encode() + b"\n\n"


def chunk(text: str | None = None, *, index: int = 0, finish: str | None = None, **delta: Any) -> bytes:
    """A chat chunk of one choice."""
    if text is not None:
        delta["content"] = text
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "tiny", "choices": [choice]})


def usage(prompt: int, completion: int) -> bytes:
    """The final usage chunk."""
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "tiny", "choices": [],
                  "usage": counts})  # fmt: skip


DONE = b"data: [DONE]\n\n"


def json_response(status: str, payload: Any, headers: Sequence[str] = ()) -> bytes:
    """A whole HTTP response with a JSON body."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    head = [f"HTTP/1.1 {status}", "content-type: application/json", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


MODELS = json_response("200 OK", {"object": "list", "data": [{"id": "tiny", "owned_by": "vllm", "max_model_len": 99}]})
HEALTHY = json_response("200 OK", b"")
ASIDE: Mapping[str, Sequence[Step]] = {
    "/health": [HEALTHY],
    "/v1/models": [MODELS],
    "/metrics": [json_response("404 Not Found", b"")],
}


class ScriptedBackend:
    """Plays one script for each generation request, in order; the last one again and again.

    What probes ask for is answered `aside`, by a script for each path. `left` is set when a client leaves before its
    script is over.
    """

    def __init__(self, *scripts: Sequence[Step], tls: ssl.SSLContext | None = None) -> None:
        self._scripts = list(scripts)
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._playing: set[asyncio.Task[None]] = set()
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.aside = dict(ASIDE)
        self.left = asyncio.Event()
        self.open = 0
        self.sent = 0
        """Bytes of scripts that were written, as far as the client lets them pass."""

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._playing):
            task.cancel()
        await asyncio.gather(*self._playing, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._playing.add(task)
        self.open += 1
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # between two requests, or in a script: that has noticed
        finally:
            self.open -= 1
            self._playing.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; gives whether the connection may have another."""
        head = await reader.readuntil(b"\r\n\r\n")
        line, *fields = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (f.partition(":") for f in fields if f)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        path = line.split(" ")[1]
        if path in self.aside:
            return await self._play(self.aside[path], reader, writer, aside=True)
        self.requests.append((path, headers, json.loads(body) if body else None))
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        try:
            return await self._play(script, reader, writer)
        except ConnectionError:
            self.left.set()
            raise

    async def _play(
        self, script: Sequence[Step], reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, aside: bool = False
    ) -> bool:
        for step in script:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
                self.sent += 0 if aside else len(step)
            elif isinstance(step, Pause | Hold):
                if not await self._waited(step, reader):
                    if not aside:
                        self.left.set()
                    return False
            elif step is Reset:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
                return False
            else:
                return False
        return not any(isinstance(step, bytes) and step.startswith(STREAM_HEAD) for step in script)

    async def _waited(self, step: Pause | Hold, reader: asyncio.StreamReader) -> bool:
        """Wait as the step says; False if the client left meanwhile."""
        wait = asyncio.sleep(step.seconds) if isinstance(step, Pause) else step.gate.wait()
        waiting = asyncio.ensure_future(wait)
        leaving = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            left = leaving.done()
        finally:  # also where the test is over and nobody waits for the script any more
            for task in (waiting, leaving):
                task.cancel()
            await asyncio.gather(waiting, leaving, return_exceptions=True)
        return not left
