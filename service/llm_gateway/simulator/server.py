# SPDX-License-Identifier: Apache-2.0
"""The simulated server itself: routes, middleware, start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable
from types import MappingProxyType, TracebackType
from typing import Any, Self
from uuid import uuid4

from aiohttp import web

from llm_gateway.simulator.dialects import MANNERS
from llm_gateway.simulator.directives import behaviour_of
from llm_gateway.simulator.engine import Engine
from llm_gateway.simulator.errors import ApiError
from llm_gateway.simulator.fields import check_detokenize_fields, check_tokenize_fields, parse_json
from llm_gateway.simulator.generating import Generator
from llm_gateway.simulator.metrics import CONTENT_TYPE, Metrics
from llm_gateway.simulator.middleware import Middleware, json_response
from llm_gateway.simulator.options import Behaviour, Options, ReceivedRequest, Statistics
from llm_gateway.simulator.prompts import render_chat
from llm_gateway.simulator.statistics import Ledger, Predicate

Json = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_MOST_REMEMBERED = 10_000
_KEEP_ALIVE = 5.0
"""Seconds after which uvicorn closes an idle connection."""
_LONGEST_GOODBYE = 0.01
_LARGEST_BODY = 64 * 1024 * 1024

NOT_SIMULATED: MappingProxyType[str, str] = MappingProxyType(
    {
        "/v1/responses": "another API; the gateway speaks chat and raw completions to vLLM",
        "/v1/messages": "another API; the gateway speaks chat and raw completions to vLLM",
        "/docs": "a page for people",
        "OPTIONS": "CORS is for browsers; answered with a 405",
        "structured_outputs.grammar": "needs a parser of grammars; refused with a 400",
        "structured_outputs.structural_tag": "needs a parser of grammars; refused with a 400",
        "prompt_logprobs": "only those that an echo with logprobs brings",
        "use_beam_search": "accepted, but the choices are those of n",
    }
)
"""What vLLM has and the simulator has not, and why."""


class Simulator:
    """A vLLM server without a model. Use as an async context manager; everything runs in the caller's event loop."""

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()
        self.healthy = True
        """False: `/health` and `/ping` answer 503, as those of a dead engine do."""
        self._requests: deque[ReceivedRequest] = deque(maxlen=_MOST_REMEMBERED)
        self._probes: deque[ReceivedRequest] = deque(maxlen=_MOST_REMEMBERED)
        self._ledger = Ledger()
        self._engine = Engine(self.options)
        self._metrics = Metrics(self.options.models[0], self._engine)
        self._generator = Generator(self.options, self._ledger, self._engine, self._metrics)
        self._middleware = Middleware(self.options)
        self._manner = MANNERS[self.options.dialect]()
        self._runner: web.AppRunner | None = None
        self._port = 0

    async def __aenter__(self) -> Self:
        """Start to listen."""
        runner = web.AppRunner(
            self._application(),
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=_KEEP_ALIVE,
            shutdown_timeout=_LONGEST_GOODBYE,
        )
        await runner.setup()
        self._runner = runner
        self._count_connections(runner)
        await web.TCPSite(runner, self.options.host, self.options.port, backlog=1024).start()
        self._port = int(runner.addresses[0][1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and cut every connection."""
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def port(self) -> int:
        """The port it listens on, once started."""
        return self._port

    @property
    def url(self) -> str:
        """Base URL, without a path."""
        return f"http://{self.options.host}:{self._port}"

    @property
    def loading(self) -> bool:
        """Whether it still reads its model, and answers everything with a 503 that says so; vLLM itself would not
        listen yet.
        """
        return self._middleware.loading

    @loading.setter
    def loading(self, loading: bool) -> None:
        self._middleware.loading = loading

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The last 10,000 POST requests as they came, oldest first; those to `/simulator/…` are left out."""
        return list(self._requests)

    @property
    def probes(self) -> list[ReceivedRequest]:
        """The same for GET: health, models, metrics …"""
        return list(self._probes)

    def script(self, *behaviours: Behaviour) -> None:
        """Queue behaviours for the next generation requests, in order of arrival; in what they say, they beat what
        prompts direct.
        """
        self._generator.script.extend(behaviours)

    def statistics(self) -> Statistics:
        """The counts of this moment."""
        return self._ledger.snapshot()

    async def wait_for(self, predicate: Predicate, timeout: float = 5.0) -> Statistics:  # noqa: ASYNC109 (a test's bound)
        """Return once the statistics fulfil `predicate`; TimeoutError after `timeout` seconds."""
        return await self._ledger.wait_for(predicate, timeout)

    async def drain(self) -> None:
        """Refuse new generation requests, and wait for those under way, at most `shutdown_timeout` seconds.

        Health stays well meanwhile, as vLLM's does.
        """
        self._engine.draining = True
        with contextlib.suppress(TimeoutError):  # who is still there then is cut off
            await self._ledger.wait_for(lambda now: now.running + now.waiting == 0, self.options.shutdown_timeout)

    def _count_connections(self, runner: web.AppRunner) -> None:
        server = runner.server
        if server is None:
            raise RuntimeError("the runner was not set up")
        made, lost = server.connection_made, server.connection_lost

        def count_made(*arguments: Any) -> None:  # noqa: ANN401 (aiohttp's)
            made(*arguments)
            self._ledger.connections += 1
            self._ledger.changed()

        def count_lost(*arguments: Any) -> None:  # noqa: ANN401 (aiohttp's)
            lost(*arguments)
            self._ledger.connections -= 1
            self._ledger.changed()

        server.connection_made = count_made  # type: ignore[assignment,method-assign]
        server.connection_lost = count_lost  # type: ignore[assignment,method-assign]

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=_LARGEST_BODY)
        application.middlewares.append(self._remember)
        self._middleware.install(application)
        for method, path, handler in [*self._routes(), *self._manner.routes()]:
            if path in self._manner.missing:
                continue
            application.router.add_route(method, path, handler)
        return application

    def _routes(self) -> list[tuple[str, str, Handler]]:
        return [
            ("POST", "/v1/chat/completions", self._generator.chat),
            ("POST", "/v1/completions", self._generator.text),
            ("POST", "/tokenize", self._tokenize),
            ("POST", "/detokenize", self._detokenize),
            ("POST", "/invocations", self._generator.chat),
            ("GET", "/v1/models", self._models),
            ("GET", "/health", self._health),
            ("GET", "/ping", self._health),
            ("POST", "/ping", self._health),
            ("GET", "/version", self._version),
            ("GET", "/load", self._show_load),
            ("GET", "/metrics", self._show_metrics),
            ("GET", "/simulator/statistics", self._show_statistics),
            ("POST", "/simulator/script", self._take_script),
        ]

    @web.middleware
    async def _remember(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.startswith("/simulator/"):
            raw = await request.read()
            try:
                body = json.loads(raw)
            except ValueError:
                body = None
            headers = {name.lower(): value for name, value in request.headers.items()}
            seen = self._requests if request.method == "POST" else self._probes
            seen.append(ReceivedRequest(request.path, MappingProxyType(headers), body))
        return await handler(request)

    async def _tokenize(self, request: web.Request) -> web.StreamResponse:
        body = parse_json(await request.read(), request.headers.get("Content-Type", ""))
        body = self._manner.tokenized(body)
        check_tokenize_fields(body)
        tokenizer = self._generator.tokenizer
        text = body["prompt"] if "prompt" in body else render_chat(body, self.options.models[0])
        tokens = tokenizer.encode(text)
        names = [tokenizer.names[token] for token in tokens] if body.get("return_token_strs") else None
        limit = self.options.max_model_len
        return json_response({"count": len(tokens), "max_model_len": limit, "tokens": tokens, "token_strs": names})

    async def _detokenize(self, request: web.Request) -> web.StreamResponse:
        body = parse_json(await request.read(), request.headers.get("Content-Type", ""))
        check_detokenize_fields(body)
        return json_response({"prompt": self._generator.tokenizer.decode(body["tokens"], special=True)})

    async def _models(self, _: web.Request) -> web.StreamResponse:
        return json_response({"object": "list", "data": [self._model(name) for name in self.options.models]})

    def _model(self, name: str) -> Json:
        now = int(time.time())
        permission = {"id": f"modelperm-{uuid4().hex[:16]}", "object": "model_permission", "created": now}
        permission |= dict.fromkeys(("allow_create_engine",), False)
        permission |= dict.fromkeys(("allow_sampling", "allow_logprobs"), True)
        permission |= {"allow_search_indices": False, "allow_view": True, "allow_fine_tuning": False}
        permission |= {"organization": "*", "group": None, "is_blocking": False}
        return {
            "id": name,
            "object": "model",
            "created": now,
            "owned_by": self.options.dialect,
            "root": self.options.models[0],
            "parent": None,
            "max_model_len": self.options.max_model_len,
            "permission": [permission],
        }

    async def _health(self, _: web.Request) -> web.StreamResponse:
        return web.Response(status=200 if self.healthy else 503)

    async def _version(self, _: web.Request) -> web.StreamResponse:
        return json_response({"version": self.options.version})

    async def _show_load(self, _: web.Request) -> web.StreamResponse:
        return json_response({"server_load": self._middleware.load})

    async def _show_metrics(self, _: web.Request) -> web.StreamResponse:
        page = self._metrics.page()
        for vllms, theirs in self._manner.gauges.items():
            page = page.replace(f"{vllms}{{", f"{theirs}{{")
        return web.Response(body=page.encode(), headers={"Content-Type": CONTENT_TYPE})

    async def _show_statistics(self, _: web.Request) -> web.StreamResponse:
        now = self.statistics()
        return json_response(
            {name: getattr(now, name) for name in now.__slots__ if name != "faults"} | {"faults": dict(now.faults)}
        )

    async def _take_script(self, request: web.Request) -> web.StreamResponse:
        try:
            given = json.loads(await request.read())
        except ValueError:
            raise ApiError.bad_request("the script is no JSON") from None
        if not isinstance(given, list):
            raise ApiError.bad_request("the script is a list of behaviours")
        self.script(*[behaviour_of(behaviour) for behaviour in given])
        return json_response({"queued": len(self._generator.script)})


async def run(options: Options) -> None:
    """Serve until cancelled."""
    async with Simulator(options):
        await asyncio.get_running_loop().create_future()
