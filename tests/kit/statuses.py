# SPDX-License-Identifier: Apache-2.0
"""A server that gives one status to whatever it is asked."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping


class StatusServer:
    """Answers every path with `status` (None: never), but those in `others`; `body` is JSON, or bytes that
    come in two pieces, but of those in `bodies`.
    """

    def __init__(
        self,
        status: int | None,
        body: Any = None,
        *,
        others: Mapping[str, int | None] | None = None,
        bodies: Mapping[str, Any] | None = None,
    ) -> None:
        self._status = status
        self._body = body
        self._others = others or {}
        self._bodies = bodies or {}
        self._runner: web.AppRunner | None = None
        self.asked: list[str] = []
        self._peers: set[Any] = set()

    @property
    def url(self) -> str:
        assert self._runner is not None
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    @property
    def connections(self) -> int:
        """How many connections it was asked over."""
        return len(self._peers)

    async def __aenter__(self) -> Self:
        self._runner = web.AppRunner(web.Application(), access_log=None, handler_cancellation=True, shutdown_timeout=0)
        self._runner.app.router.add_route("*", "/{path:.*}", self._answer)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        assert request.transport is not None
        self._peers.add(request.transport.get_extra_info("peername"))
        status = self._others.get(request.path, self._status)
        if status is None:
            await asyncio.get_running_loop().create_future()
            raise AssertionError
        body = self._bodies.get(request.path, self._body)
        if isinstance(body, bytes):
            return await self._in_two(request, status, body)
        return web.json_response(body, status=status)

    async def _in_two(self, request: web.Request, status: int, body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        await response.write(body[:1])
        await asyncio.sleep(0.002)  # so that who reads only the head is not given the rest with it
        with contextlib.suppress(ConnectionError):
            await response.write(body[1:])
        return response
