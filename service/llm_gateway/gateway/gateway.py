# SPDX-License-Identifier: Apache-2.0
"""What the gateway does with a call: admit → resolve → attempt → relay, and another attempt where that is safe."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

from llm_gateway.deadline import NEVER, TimeLimitReached, Watchdog
from llm_gateway.errors import BackendError, GatewayError
from llm_gateway.gateway.answer import Collector
from llm_gateway.gateway.relay import Relay
from llm_gateway.generation import Attempt, AttemptOutcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from llm_gateway.admission import Admission
    from llm_gateway.gateway.relay import Write
    from llm_gateway.generation import Answer, Generation, Model, TokenCount, TokenQuery
    from llm_gateway.observability.call import Call
    from llm_gateway.upstream.retry import RetryPolicy
    from llm_gateway.upstream.router import Route, Router

_T = TypeVar("_T")


class Gateway:
    """Serves calls. Every method ends in a result or in a GatewayError; a cancelled task closes what it had open."""

    def __init__(self, *, router: Router, admission: Admission, retry: RetryPolicy) -> None:
        self._router = router
        self._admission = admission
        self._retry = retry

    async def stream(self, generation: Generation, call: Call, write: Write) -> None:
        """Write the answer's events as they come: Started, pieces, Completed.

        Nothing is written before there is something to deliver; until then an error is the whole answer, and what may
        be tried again is.
        """
        soft = NEVER if generation.time_limit is None else call.stopwatch.started + generation.time_limit
        watchdog = Watchdog(call.deadline, soft)
        with self._admission.admit(watchdog):
            call.admitted = True
            call.stopwatch.seated()
            route = await self._repeated(lambda: self._resolve(generation.model, call), watchdog, call)
            await self._attempts(Relay(generation, call, watchdog, write), route, call)

    async def complete(self, generation: Generation, call: Call) -> Answer:
        """The whole answer at once, by the same rules as a stream."""
        collector = Collector()
        await self.stream(generation, call, collector.write)
        return collector.answer()

    async def list_models(self, call: Call) -> Sequence[Model]:
        """The models that a caller may name."""
        watchdog = Watchdog(call.deadline)
        with self._admission.admit(watchdog):
            call.admitted = True
            return await self._repeated(self._router.list_models, watchdog, call)

    async def count_tokens(self, query: TokenQuery, call: Call) -> TokenCount:
        """How many tokens a prompt has."""

        async def count() -> TokenCount:
            route = await self._resolve(query.model, call)
            return await route.backend.count_tokens(query, route.model, call.request_id)

        watchdog = Watchdog(call.deadline)
        with self._admission.admit(watchdog):
            call.admitted = True
            return await self._repeated(count, watchdog, call)

    async def _resolve(self, model: str | None, call: Call) -> Route:
        call.model = model
        route = await self._router.resolve(model)
        call.model, call.backend, call.address = route.model, route.backend.name, route.address
        return route

    async def _repeated(self, ask: Callable[[], Awaitable[_T]], watchdog: Watchdog, call: Call) -> _T:
        """The answer to a question that changes nothing, asked as often as an answer's first token would be."""
        while True:
            began = time.monotonic()
            try:
                with watchdog:
                    watchdog.hold()  # without it there is nobody to answer, not even in part
                    return await ask()
            except BackendError as error:
                call.backend = self._router.backend_name
                duration = time.monotonic() - began
                call.attempts.append(Attempt(call.backend, AttemptOutcome.FAILED, error.reason, duration))
                pause = self._pause(error, call, watchdog)
            with watchdog:
                watchdog.hold()
                await asyncio.sleep(pause)

    async def _attempts(self, relay: Relay, route: Route, call: Call) -> None:
        try:
            while True:
                try:
                    return await relay.attempt(route)
                except GatewayError as error:
                    if relay.committed:
                        raise
                    pause = self._pause(error, call, relay.watchdog)
                with relay.watchdog:
                    await asyncio.sleep(pause)
        except TimeLimitReached:
            await relay.end_early(route)

    def _pause(self, error: GatewayError, call: Call, watchdog: Watchdog) -> float:
        """Seconds to wait before another attempt. Raises `error` where there is to be none."""
        pause = self._retry.pause(error, len(call.attempts))
        if pause is None or time.monotonic() + pause >= watchdog.deadline:
            raise error
        return pause
