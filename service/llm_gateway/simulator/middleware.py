# SPDX-License-Identifier: Apache-2.0
"""What vLLM does to every request and answer: the key, the headers, the load count, and errors of the router."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec
from aiohttp import web

from llm_gateway.simulator.dialects import MANNERS, loading
from llm_gateway.simulator.errors import ApiError
from llm_gateway.simulator.fields import UnreadableBodyError

if TYPE_CHECKING:
    from llm_gateway.simulator.options import Options

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_GUARDED = ("/v1", "/v2", "/inference", "/cohere")
_JSON = {"Content-Type": "application/json"}
_UNAUTHORIZED = 401


class Middleware:
    """One for each server: it counts the requests under way."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._manner = MANNERS[options.dialect]()
        self.loading = False
        """Whether the model is still being read: every question is a 503."""
        self.load = 0
        """Generation requests under way, if `--enable-server-load-tracking`."""

    def install(self, application: web.Application) -> None:
        """Wrap every handler of an application."""
        application.middlewares.append(self._around)
        application.on_response_prepare.append(self._sign)

    @web.middleware
    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not self._admitted(request):
            return web.Response(status=_UNAUTHORIZED, body=b'{"error":"Unauthorized"}', headers=_JSON)
        tracked = self._options.load_tracking and request.method == "POST" and request.path.startswith("/v1")
        self.load += tracked
        try:
            if self.loading and not request.path.startswith("/simulator/"):
                raise loading()
            return await handler(request)
        except ApiError as error:
            return web.Response(status=error.status, body=self._manner.error(error), headers=_JSON)
        except UnreadableBodyError:
            return _detail(400, "There was an error parsing the body")
        except web.HTTPNotFound:
            return _redirected(request) or _detail(404, "Not Found")
        except web.HTTPMethodNotAllowed as error:
            return _detail(405, "Method Not Allowed", {"Allow": ", ".join(sorted(error.allowed_methods))})
        finally:
            self.load -= tracked

    def _admitted(self, request: web.Request) -> bool:
        key = self._options.api_key
        if key is None or request.method == "OPTIONS" or not request.path.startswith(_GUARDED):
            return True
        return request.headers.get("Authorization") == f"Bearer {key}"

    async def _sign(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Server"] = "uvicorn"
        if response.status != _UNAUTHORIZED:  # the key is asked for outside of the CORS middleware
            response.headers["Vary"] = "Origin"
        if self._options.request_id_headers:
            response.headers["X-Request-Id"] = request.headers.get("X-Request-Id") or uuid4().hex


def _detail(status: int, detail: str, headers: dict[str, str] | None = None) -> web.Response:
    return json_response({"detail": detail}, status, headers)


def _redirected(request: web.Request) -> web.Response | None:
    """FastAPI sends a path with a slash too many to the one without."""
    bare = request.path.rstrip("/")
    known = {resource.canonical for resource in request.app.router.resources()}
    if bare == request.path or bare not in known:
        return None
    return web.Response(status=307, headers={"Location": str(request.url.with_path(bare))})


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:  # noqa: ANN401
    """An answer as FastAPI writes it: no charset, no spaces."""
    return web.Response(status=status, body=msgspec.json.encode(content), headers=_JSON | (headers or {}))
