# SPDX-License-Identifier: Apache-2.0
"""What the gateway does with a call: admit → resolve → attempt → relay, and another attempt where that is safe."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

from llm_gateway.deadline import NEVER, TimeLimitReached, Watchdog
from llm_gateway.errors import BackendError, DeadlineExceeded, FirstTokenTimeout, GatewayError, Interrupted
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
            relay = Relay(generation, call, watchdog, write)
            route = self._router.route(generation.model)
            try:
                if not route.model:
                    route = await self._repeated(lambda: self._router.resolve(generation.model), watchdog, call)
                _note(call, route)
                await self._attempts(relay, route, call)
            except TimeLimitReached:
                await relay.end_early(route)

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
            route = await self._router.resolve(query.model)
            _note(call, route)
            return await route.backend.count_tokens(query, route.model, call.request_id)

        watchdog = Watchdog(call.deadline)
        with self._admission.admit(watchdog):
            call.admitted = True
            return await self._repeated(count, watchdog, call)

    async def _repeated(self, ask: Callable[[], Awaitable[_T]], watchdog: Watchdog, call: Call) -> _T:
        """The answer to a question that changes nothing, asked as often as an answer's first token would be."""
        while True:
            began = time.monotonic()
            try:
                with watchdog:
                    watchdog.expect(began + self._router.timeouts.first_token, _no_answer)
                    return await _upstream(call, ask())
            except BackendError as error:
                self._record(call, began, error)
                pause = self._pause(error, call, watchdog)
            except (DeadlineExceeded, Interrupted, asyncio.CancelledError):
                self._record(call, began, None)
                raise
            with watchdog:
                await _upstream(call, asyncio.sleep(pause))

    def _record(self, call: Call, began: float, error: BackendError | None) -> None:
        """Keep how a question ended that was not answered: it failed, or it was given up."""
        call.backend = self._router.backend_name
        outcome = AttemptOutcome.CANCELLED if error is None else AttemptOutcome.FAILED
        reason = None if error is None else error.reason
        call.attempts.append(Attempt(call.backend, outcome, reason, time.monotonic() - began))

    async def _attempts(self, relay: Relay, route: Route, call: Call) -> None:
        while True:
            try:
                return await relay.attempt(route)
            except GatewayError as error:
                if relay.committed:
                    raise
                pause = self._pause(error, call, relay.watchdog)
            with relay.watchdog:
                await _upstream(call, asyncio.sleep(pause))

    def _pause(self, error: GatewayError, call: Call, watchdog: Watchdog) -> float:
        """Seconds to wait before another attempt. Raises `error` where there is to be none."""
        pause = self._retry.pause(error, len(call.attempts))
        if pause is None or time.monotonic() + pause >= watchdog.deadline:
            raise error
        return pause


def _note(call: Call, route: Route) -> None:
    call.model, call.backend, call.address = route.model, route.backend.name, route.address


async def _upstream(call: Call, waiting: Awaitable[_T]) -> _T:
    """Wait for something of a backend, or before asking it again; the time is not the gateway's own."""
    call.stopwatch.wait()
    try:
        return await waiting
    finally:
        call.stopwatch.upstream_done()


def _no_answer() -> GatewayError:
    return FirstTokenTimeout("The backend did not answer in time.")
