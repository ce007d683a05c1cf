# SPDX-License-Identifier: Apache-2.0
"""The way of events to the client's socket: one HTTP chunk each as vLLM sends them, or framed strangely on purpose."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING

from llm_gateway.simulator.options import Fault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

_KEEP_ALIVE = b": keep-alive\n\n"
_ROLE = b'"delta":{"role":"assistant"'


def disconnect(request: web.Request, reset: bool) -> None:
    """End the connection: with RST, or with FIN once what was written is out."""
    transport = request.transport
    if transport is None:
        return
    if reset:
        # Linger 0 makes the kernel send RST where it would send FIN.
        raw: socket.socket = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()


class Outlet:
    """Writes events. `write` is aiohttp's own where nothing is strange, for it is called for every token."""

    def __init__(
        self,
        response: web.StreamResponse,
        fault: Fault | None,
        keep_alive: float | None,
        reshape: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self._response = response
        self._keep_alive = keep_alive
        self._held = bytearray()
        frame = _FRAMES.get(fault) if fault else None
        self.write: Callable[[bytes], Awaitable[None]] = response.write
        if fault is Fault.BURST:
            self.write = self._hold
        elif fault is Fault.DRIBBLE:
            self.write = self._dribble
        elif frame is not None:
            self.write = lambda data: response.write(frame(data))
        if reshape is not None:
            self._as_vllm, self._reshape = self.write, reshape
            self.write = self._reshaped

    async def _reshaped(self, data: bytes) -> None:
        """An event as another dialect has it, if it has one."""
        if shaped := self._reshape(data):
            await self._as_vllm(shaped)

    async def _hold(self, data: bytes) -> None:
        self._held += data

    async def _dribble(self, data: bytes) -> None:
        for i in range(len(data)):
            await self._response.write(data[i : i + 1])

    async def comment(self) -> None:
        """`: keep-alive`"""
        await self.write(_KEEP_ALIVE)

    async def silence(self, awaited: Awaitable[None]) -> None:
        """Wait, with comments in between if the server sends them."""
        if self._keep_alive is None:
            await awaited
            return
        task = asyncio.ensure_future(awaited)
        try:
            while not (await asyncio.wait({task}, timeout=self._keep_alive))[0]:
                await self.comment()
            await task
        finally:
            task.cancel()

    async def close(self) -> None:
        """Write what was held, and the proper end."""
        if self._held:
            await self._response.write(bytes(self._held))
        await self._response.write_eof()


def _multi_line(data: bytes) -> bytes:
    """An event in two data lines, which SSE joins with a newline: harmless between two JSON tokens."""
    return data.replace(b",", b",\ndata: ", 1) if data.startswith(b"data: {") else data


def _repeated_role(data: bytes) -> bytes:
    return data if _ROLE in data else data.replace(b'"delta":{"', _ROLE + b',"', 1)


_FRAMES: dict[Fault, Callable[[bytes], bytes]] = {
    Fault.CRLF: lambda data: data.replace(b"\n", b"\r\n"),
    Fault.NO_SPACE: lambda data: data.replace(b"data: ", b"data:", 1),
    Fault.MULTI_LINE: _multi_line,
    Fault.REPEATED_ROLE: _repeated_role,
}
