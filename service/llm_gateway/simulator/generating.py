# SPDX-License-Identifier: Apache-2.0
"""One generation request from its arrival to its last byte."""

from __future__ import annotations

import asyncio
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING

from aiohttp import web

from llm_gateway.simulator import chat as chat_wire
from llm_gateway.simulator import text as text_wire
from llm_gateway.simulator.asks import Ask, Reader
from llm_gateway.simulator.dialects import MANNERS
from llm_gateway.simulator.engine import PrefixCache
from llm_gateway.simulator.errors import ApiError
from llm_gateway.simulator.fields import parse_json
from llm_gateway.simulator.logprobs import Logprobs
from llm_gateway.simulator.options import Behaviour, Fault, Options
from llm_gateway.simulator.outlet import Outlet, disconnect
from llm_gateway.simulator.replies import Planner
from llm_gateway.simulator.reshaping import RESHAPERS
from llm_gateway.simulator.sampling import check_lazily
from llm_gateway.simulator.statistics import Ledger, Visit
from llm_gateway.simulator.story import Story
from llm_gateway.simulator.streaming import Stream, stall
from llm_gateway.simulator.tokenizer import Tokenizer
from llm_gateway.simulator.wire import DONE, Answer, EventWriter, Server, Timing

if TYPE_CHECKING:
    from llm_gateway.simulator.engine import Engine
    from llm_gateway.simulator.metrics import Metrics

_JSON = {"Content-Type": "application/json"}
_EVENTS = {"Content-Type": "text/event-stream; charset=utf-8"}
_WAYSIDE_PAGE = b"<!DOCTYPE html><html><body><h1>Sign in to this network</h1></body></html>"


class Generator:
    """Serves `/v1/chat/completions` and `/v1/completions`."""

    def __init__(self, options: Options, ledger: Ledger, engine: Engine, metrics: Metrics) -> None:
        self._options = options
        self._manner = MANNERS[options.dialect]()
        self._ledger = ledger
        self._engine = engine
        self._metrics = metrics
        self.tokenizer = Tokenizer()
        self.reader = Reader(options, self.tokenizer)
        self._planner = Planner(self.tokenizer, Story(self.tokenizer), options.default_tokens)
        self._prefixes = PrefixCache()
        self.script: deque[Behaviour] = deque()
        self._server = Server(
            version=options.version,
            fingerprint=f"vllm-{options.version}-51a0517e",
            prompt_tokens_details=options.prompt_tokens_details,
            per_request_metrics=options.per_request_metrics,
            reasoning_parser=options.reasoning_parser,
        )

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/chat/completions"""
        return await self._visit(request, chat=True)

    async def text(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/completions"""
        return await self._visit(request, chat=False)

    async def _visit(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        visit = Visit(self._ledger)
        scripted = self.script.popleft() if self.script else None
        try:
            response = await self._answer(request, chat, scripted, visit)
        except ConnectionError:
            visit.left()
            return web.Response()  # nobody reads it
        except asyncio.CancelledError:
            visit.left()
            raise
        except BaseException:
            visit.ended()
            raise
        visit.ended()
        return response

    async def _answer(
        self, request: web.Request, chat: bool, scripted: Behaviour | None, visit: Visit
    ) -> web.StreamResponse:
        body = parse_json(await request.read(), request.headers.get("Content-Type", ""))
        body = self._manner.read(body, chat=chat)
        ask = self.reader.read(chat, body, request.headers, scripted)
        if (response := await self._instead(request, ask.behaviour)) is not None:
            return response
        self._admit(ask)
        if ask.stream and ask.behaviour.fault is not Fault.NOT_STREAMED:
            return await self._streamed(request, ask, visit)
        return await self._whole(request, ask, visit)

    def _admit(self, ask: Ask) -> None:
        try:
            self._engine.check_admission(ask.n * len(ask.prompts))
        except ApiError:
            self._metrics.reject()
            raise

    async def _instead(self, request: web.Request, behaviour: Behaviour) -> web.StreamResponse | None:
        """Faults that leave nothing of the answer."""
        fault = behaviour.fault
        headers = dict(behaviour.headers or {})
        if fault in (Fault.REFUSE, Fault.SLOW_HEADER, Fault.HTTP, Fault.EMPTY, Fault.HTML):
            self._ledger.struck(fault)
        if fault is Fault.REFUSE:
            disconnect(request, reset=True)
            return web.Response()
        if fault is Fault.SLOW_HEADER:
            await stall(behaviour.seconds)
        if fault is Fault.HTTP:
            status = behaviour.status or ApiError.busy().status
            body = ApiError.busy().body() if behaviour.body is None else behaviour.body
            return web.Response(status=status, body=body, headers=_JSON | headers)
        if fault is Fault.EMPTY:
            return web.Response(headers=_EVENTS | headers)
        if fault is Fault.HTML:
            return web.Response(body=_WAYSIDE_PAGE, headers={"Content-Type": "text/html"} | headers)
        return None

    def _plan(self, ask: Ask) -> Answer:
        """Decide the whole answer; raises what vLLM's engine finds too late for a status code."""
        check_lazily(ask.body, ask.logprobs, len(self.tokenizer))
        script = ask.script(self._options.reasoning_parser)
        replies = [
            self._planner.plan(i, script, ask.limits(prompt, self._options.max_model_len), ask.behaviour)
            for i, prompt in enumerate(prompt for prompt in ask.prompts for _ in range(ask.n))
        ]
        logprobs = None
        if ask.logprobs is not None:
            logprobs = Logprobs(self.tokenizer, ask.logprobs, ask.flag("return_tokens_as_token_ids"))
        cached, created = (0, 0)
        if self._options.prompt_tokens_details:
            cached, created = self._prefixes.visit(ask.prompts[0].tokens)
        return Answer(ask, replies, logprobs, self._server, cached, created)

    async def _whole(self, request: web.Request, ask: Ask, visit: Visit) -> web.StreamResponse:
        answer = self._plan(ask)
        began = perf_counter()
        async with self._engine.seats(len(answer.replies)):
            visit.seated()
            queued = perf_counter()
            await asyncio.sleep(self._first(ask))
            first = perf_counter()
            longest = max(len(reply.steps) for reply in answer.replies)
            if (pace := self._pace(ask)) > 0:
                await asyncio.sleep(pace * max(longest - 1, 0))
            timing = Timing(queued - began, first - queued, perf_counter() - first)
        self._metrics.count(answer)
        body = (chat_wire if ask.chat else text_wire).unary(answer, timing)
        return await self._whole_with_fault(request, ask.behaviour, body)

    async def _whole_with_fault(self, request: web.Request, behaviour: Behaviour, body: bytes) -> web.StreamResponse:
        fault = behaviour.fault
        headers = _JSON | dict(behaviour.headers or {})
        if fault is not None and fault is not Fault.SLOW_HEADER:
            self._ledger.struck(fault)
        if fault in (Fault.STALL, Fault.KEEP_ALIVES):
            await stall(behaviour.seconds)
        if fault is Fault.RESET:
            disconnect(request, reset=True)
        if fault in (Fault.CUT, Fault.EOF):
            return await self._half(request, headers, body)
        if fault is Fault.ERROR_EVENT:
            raise ApiError.died(self._options.version)
        if fault is Fault.GARBAGE:
            body = behaviour.body or b"{not json"
        return web.Response(body=body, headers=headers)

    @staticmethod
    async def _half(request: web.Request, headers: dict[str, str], body: bytes) -> web.StreamResponse:
        """Half of the bytes that were announced."""
        response = web.StreamResponse(headers=headers | {"Content-Length": str(len(body))})
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        disconnect(request, reset=False)
        return response

    async def _streamed(self, request: web.Request, ask: Ask, visit: Visit) -> web.StreamResponse:
        """Headers come at once, before any token, as vLLM's do."""
        if self._manner.refuses_before_the_stream:
            self._plan(ask)
        response = web.StreamResponse(headers=_EVENTS | dict(ask.behaviour.headers or {}))
        await response.prepare(request)
        reshaper = RESHAPERS.get(self._options.dialect) if ask.chat else None
        reshape = None if reshaper is None else reshaper(await request.json())
        outlet = Outlet(response, ask.behaviour.fault, self._options.sse_keep_alive, reshape)
        try:
            answer = self._plan(ask)
        except ApiError as error:
            await outlet.write(error.event(self._options.version))
            await outlet.write(DONE)
            await outlet.close()
            return response
        began = perf_counter()
        seats = self._engine.seats(len(answer.replies))
        await outlet.silence(seats.__aenter__())
        try:
            visit.seated()
            await self._generate(request, answer, outlet, began)
        finally:
            await seats.__aexit__(None, None, None)
        return response

    async def _generate(self, request: web.Request, answer: Answer, outlet: Outlet, began: float) -> None:
        ask = answer.ask
        queued = perf_counter()
        if (first := self._first(ask)) > 0:
            await outlet.silence(asyncio.sleep(first))
        first_token = perf_counter()
        events: EventWriter = chat_wire.ChatEvents(answer) if ask.chat else text_wire.TextEvents(answer)
        stream = Stream(request, answer, events, outlet, self._ledger)
        if await stream.play(self._engine, self._pace(ask)):
            now = perf_counter()
            await stream.finish(Timing(queued - began, first_token - queued, now - first_token))
            self._metrics.count(answer)

    def _first(self, ask: Ask) -> float:
        given = ask.behaviour.time_to_first_token
        return self._options.time_to_first_token if given is None else given

    def _pace(self, ask: Ask) -> float:
        given = ask.behaviour.pace
        return self._options.pace if given is None else given
