# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy between a gateway and a backend: the network between the two, and all that can go wrong in it."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import ssl

PIECE = 64 * 1024
NOW = struct.pack("ii", 1, 0)
"""SO_LINGER for which a close sends RST."""


class Cut(StrEnum):
    """How a connection ends before its time."""

    RESET = "reset"  # a RST to both sides
    CLOSE = "close"  # a FIN to both sides
    HALF = "half"  # a FIN to the gateway, whose own bytes still pass
    SILENCE = "silence"  # nothing passes any more, neither way


@dataclass(frozen=True, slots=True)
class Line:
    """What one connection is like. Times in seconds, of what the backend sends; None: never, or without a limit."""

    delay: float = 0.0
    """Every piece is late by this."""
    bytes_per_second: float | None = None
    cut: Cut | None = None
    after: int = 0
    """The cut comes once so many bytes of the backend have passed; 0: before the backend is even connected to."""


GOOD = Line()
BLACKHOLE = Line(cut=Cut.SILENCE)
"""It takes connections and answers nothing. A listener that takes none: `sockets.deaf_listener`."""
RESET = Line(cut=Cut.RESET)


@dataclass(slots=True)
class Counts:
    """What went through a proxy."""

    connections: int = 0
    open: int = 0
    cuts: int = 0
    to_backend: int = 0
    from_backend: int = 0


class Proxy:
    """A loopback listener that passes bytes to and from `url`. Use as an async context manager.

    `line` is what connections are like from now on, `script` what the next ones are like, in their order. `refuse`,
    `accept`, `cut_all`, `hold` and `let_go` change what is there at once. With `tls`, it ends TLS for the backend.
    """

    def __init__(self, url: str, *, tls: ssl.SSLContext | None = None) -> None:
        self._target = (str(urlsplit(url).hostname), urlsplit(url).port or 80)
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._place = _bound(0)  # keeps the port while nobody listens
        self._script: deque[Line] = deque()
        self._passing: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.line = GOOD
        self.counts = Counts()

    @property
    def port(self) -> int:
        return int(self._place.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    @property
    def listens(self) -> bool:
        """Whether new connections are taken."""
        return self._server is not None

    def script(self, *lines: Line) -> None:
        """What the next connections are like; those after them are like `line`."""
        self._script.extend(lines)

    async def accept(self) -> None:
        """Listen, again."""
        self._server = await asyncio.start_server(self._connected, sock=_bound(self.port), ssl=self._tls)

    def refuse(self) -> None:
        """Refuse new connections; those that there are go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def stop(self) -> None:
        """Be gone, as a backend whose process has ended: no connection is left, and none is accepted."""
        self.refuse()
        self.cut_all(Cut.CLOSE)
        while self._passing:
            await asyncio.wait(self._passing)

    def cut_all(self, cut: Cut = Cut.RESET) -> None:
        """End every connection that there is, with RST or FIN."""
        for task, writers in self._passing.items():
            self.counts.cuts += 1
            for writer in writers:
                _end(writer, cut)
            task.cancel()

    def hold(self) -> None:
        """Let nothing pass either way, as if every packet were lost; what was read waits."""
        self._flowing.clear()

    def let_go(self) -> None:
        """Let it pass again."""
        self._flowing.set()

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.refuse()
        for task in tuple(self._passing):
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)
        self._place.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.counts.connections += 1
        self.counts.open += 1
        self._passing[task] = writers = [writer]
        line = self._script.popleft() if self._script else self.line
        try:
            if line.cut is not None and line.after == 0:
                await self._cut(line.cut, writers, asking=asyncio.ensure_future(reader.read()))
            else:
                with suppress(ConnectionError):  # either side may end it as it likes
                    await self._pass(line, reader, writers)
        except asyncio.CancelledError:
            pass  # cut or closed from here; a server's callback has nobody to tell
        finally:
            self.counts.open -= 1
            del self._passing[task]
            for each in writers:
                each.close()

    async def _pass(self, line: Line, reader: asyncio.StreamReader, writers: list[asyncio.StreamWriter]) -> None:
        """Pass bytes both ways until both sides have ended, or the line cuts them off."""
        answers, backend = await asyncio.open_connection(*self._target)
        gateway = writers[0]
        writers.append(backend)
        asking = asyncio.create_task(self._ask(reader, backend))
        try:
            if await self._answer(line, answers, gateway):
                await self._cut(line.cut, writers, asking=asking)
            elif not asking.done():
                with suppress(OSError):
                    gateway.write_eof()
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _ask(self, reader: asyncio.StreamReader, backend: asyncio.StreamWriter) -> None:
        """Pass what the gateway sends, and that it has left: then the other direction ends with it."""
        with suppress(ConnectionError):
            while data := await reader.read(PIECE):
                await self._flowing.wait()
                self.counts.to_backend += len(data)
                backend.write(data)
                await backend.drain()
        await self._flowing.wait()
        backend.close()

    async def _answer(self, line: Line, answers: asyncio.StreamReader, gateway: asyncio.StreamWriter) -> bool:
        """Pass what the backend sends; True where the line is to be cut now."""
        passed = 0
        while data := await answers.read(PIECE if line.bytes_per_second is None else 256):
            if line.delay:
                await asyncio.sleep(line.delay)
            if line.bytes_per_second is not None:
                await asyncio.sleep(len(data) / line.bytes_per_second)
            await self._flowing.wait()
            if line.cut is not None:
                data = data[: line.after - passed]
            gateway.write(data)
            await gateway.drain()
            passed += len(data)
            self.counts.from_backend += len(data)
            if line.cut is not None and passed >= line.after:
                return True
        return False

    async def _cut(self, cut: Cut | None, writers: list[asyncio.StreamWriter], *, asking: asyncio.Future[Any]) -> None:
        """End a connection; where bytes may still pass one way, wait until `asking` passes no more."""
        self.counts.cuts += 1
        if cut is Cut.HALF:
            with suppress(OSError):  # the other side has ended it
                writers[0].write_eof()
            await asking
        elif cut is Cut.SILENCE:
            asking.cancel()
            await asyncio.get_running_loop().create_future()  # until the proxy ends
        else:
            for writer in writers:
                _end(writer, cut)


def _end(writer: asyncio.StreamWriter, cut: Cut | None) -> None:
    if cut is Cut.RESET:
        with suppress(OSError):  # the other side has ended it, and its socket is closed already
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NOW)
        writer.transport.abort()
    else:
        writer.close()


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock
