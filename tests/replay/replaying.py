# SPDX-License-Identifier: Apache-2.0
"""A backend that answers whatever it is asked with a recording, cut into reads of any size."""

from __future__ import annotations

import asyncio
import json
import random
from typing import TYPE_CHECKING, Any, Self

from tests.replay import sorting
from tests.replay.recording import Recording

if TYPE_CHECKING:
    from collections.abc import Iterator

MODELS = Recording("default", "models")
HEALTH = Recording("default", "health")
LISTS_OF_MODELS = sorting.MODELS | set(sorting.MODELS_REFUSALS)
LARGEST_CUT = 40


class ReplayBackend:
    """Answers every POST with the recording that `play` sets, GET /v1/models with a recorded list; keeps the requests.

    Without a seed, the bytes come as vLLM sends them: a stream chunked by events, a document with its length. With one,
    they come chunked, in small random pieces that respect nothing: not events, not lines, not characters.
    """

    def __init__(self) -> None:
        self._recording = MODELS
        self._seed: int | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.requests: list[tuple[str, dict[str, str], Any]] = []

    def play(self, recording: Recording, seed: int | None = None) -> None:
        """Answer with this recording from now on."""
        self._recording, self._seed = recording, seed
        self.requests.clear()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the gateway has left
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *fields = head.rstrip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path, _ = line.split(" ")
        if method == "POST":
            self.requests.append((path, headers, json.loads(body)))
        for piece in self._pieces(self._answer_to(method, path)):
            writer.write(piece)
            await writer.drain()
            if self._seed is not None:
                await asyncio.sleep(0)  # the gateway runs in this very loop: let it read what there is

    def _answer_to(self, method: str, path: str) -> Recording:
        if method == "GET" and self._recording.name not in LISTS_OF_MODELS:
            return HEALTH if path == "/health" else MODELS
        return self._recording

    def _pieces(self, recording: Recording) -> Iterator[bytes]:
        """The response, re-framed: the recordings keep bodies as they came after chunked decoding."""
        head = f"HTTP/1.1 {recording.status}\r\nconnection: close\r\ncontent-type: {recording.content_type}\r\n"
        if self._seed is None and not recording.streams:
            yield f"{head}content-length: {len(recording.body)}\r\n\r\n".encode() + recording.body
            return
        framed = [f"{len(cut):x}\r\n".encode() + cut + b"\r\n" for cut in self._cuts(recording)]
        whole = [f"{head}transfer-encoding: chunked\r\n\r\n".encode(), *framed, b"0\r\n\r\n"]
        if self._seed is None:
            yield from whole
        else:
            yield from _random_cuts(b"".join(whole), random.Random(self._seed))

    def _cuts(self, recording: Recording) -> list[bytes]:
        """The body as HTTP chunks."""
        if self._seed is not None:
            return list(_random_cuts(recording.body, random.Random(-self._seed)))
        return [event + b"\n\n" for event in recording.body.removesuffix(b"\n\n").split(b"\n\n")]


def _random_cuts(data: bytes, chance: random.Random) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        end = start + chance.randint(1, LARGEST_CUT)
        yield data[start:end]
        start = end
