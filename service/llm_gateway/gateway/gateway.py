# SPDX-License-Identifier: Apache-2.0
"""What the gateway does with a call: admit → resolve → attempt → relay, and another attempt where that is safe."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from llm_gateway.admission import Ticket
from llm_gateway.deadline import NEVER, TimeLimitReached, Watchdog
from llm_gateway.errors import (
    BackendError,
    DeadlineExceeded,
    FirstTokenTimeout,
    GatewayError,
    Interrupted,
    InvalidRequest,
)
from llm_gateway.gateway.answer import Collector
from llm_gateway.gateway.attempts import Attempts
from llm_gateway.gateway.defaults import with_defaults
from llm_gateway.gateway.relay import Relay
from llm_gateway.generation import Attempt, AttemptOutcome, Priority
from llm_gateway.upstream.router import only_one

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from llm_gateway.admission import Admission
    from llm_gateway.gateway.relay import Write
    from llm_gateway.generation import Answer, Generation, Model, TokenCount, TokenQuery
    from llm_gateway.observability.call import Call
    from llm_gateway.upstream.budget import RetryBudget
    from llm_gateway.upstream.pool import Lease, Pool
    from llm_gateway.upstream.retry import RetryPolicy
    from llm_gateway.upstream.router import Router

_T = TypeVar("_T")


class Gateway:
    """Serves calls. Every method ends in a result or in a GatewayError; a cancelled task closes what it had open.

    `max_stall` is how long a caller may take for one piece of a stream, in seconds.
    """

    def __init__(
        self, *, router: Router, admission: Admission, retry: RetryPolicy, budget: RetryBudget, max_stall: float
    ) -> None:
        self._router = router
        self._admission = admission
        self._retry = retry
        self._budget = budget
        self._max_stall = max_stall

    async def stream(self, generation: Generation, call: Call, write: Write) -> None:
        """Write the answer's events as they come: Started, pieces, Completed.

        Nothing is written before there is something to deliver; until then an error is the whole answer, and what may
        be tried again is.
        """
        pool, model = self._router.pool(generation.model)
        call.model = model or None
        spec = pool.spec
        generation = with_defaults(generation, spec.defaults)
        soft = NEVER if generation.time_limit is None else call.stopwatch.started + generation.time_limit
        watchdog = Watchdog(call.deadline, soft)
        relay = Relay(generation, call, watchdog, write, max_stall=self._max_stall)
        ticket = Ticket(
            call, watchdog, model=pool.name, seats=spec.seats, priority=generation.priority, size=generation.size
        )
        try:
            async with self._admission.admit(ticket):
                call.admitted = True
                call.stopwatch.seated()
                await self._serve(relay, pool, model, generation)
        except TimeLimitReached:  # while it was queued
            await relay.end_early()
        finally:
            watchdog.close()

    async def complete(self, generation: Generation, call: Call) -> Answer:
        """The whole answer at once, by the same rules as a stream."""
        collector = Collector()
        await self.stream(generation, call, collector.write)
        return collector.answer()

    async def list_models(self, call: Call) -> Sequence[Model]:
        """The models that a caller may name."""
        models = self._router.models()
        if models is not None:
            return models
        pool, _ = self._router.pool("")
        listed = await self._asked(pool, "", call, _list_models)
        return self._router.mark_default(listed)

    async def count_tokens(self, query: TokenQuery, call: Call) -> TokenCount:
        """How many tokens a prompt has."""
        pool, model = self._router.pool(query.model)

        async def count(lease: Lease) -> TokenCount:
            backend = lease.endpoint.backend
            own_name = lease.model or _the_only_one(await backend.list_models())
            return replace(await backend.count_tokens(query, own_name, call.request_id), model=model or own_name)

        return await self._asked(pool, model, call, count, query)

    async def _serve(self, relay: Relay, pool: Pool, model: str, generation: Generation) -> None:
        """Relay an answer, over as many attempts as it takes."""
        call, watchdog = relay.call, relay.watchdog
        try:
            if not model:
                question = self._attempts(pool, model, call, watchdog)
                model = _the_only_one(await question.run(self._question(call, watchdog, _list_models)))
            attempts = self._attempts(pool, model, call, watchdog, generation)
            if pool.spec.hedge_after is not None:
                relay.hedge(attempts, after=pool.spec.hedge_after)
            await attempts.run(relay.attempt)
        except TimeLimitReached:
            await relay.end_early()

    async def _asked(
        self, pool: Pool, model: str, call: Call, ask: Callable[[Lease], Awaitable[_T]], query: TokenQuery | None = None
    ) -> _T:
        """The answer to a question that changes nothing, asked as often as an answer's first token would be."""
        watchdog = Watchdog(call.deadline)
        ticket = Ticket(call, watchdog, model="", seats=None, priority=Priority.INTERACTIVE, size=0)
        try:
            async with self._admission.admit(ticket):
                call.admitted = True
                call.stopwatch.seated()
                attempts = self._attempts(pool, model, call, watchdog, query)
                return await attempts.run(self._question(call, watchdog, ask))
        finally:
            watchdog.close()

    def _attempts(
        self, pool: Pool, model: str, call: Call, watchdog: Watchdog, asked: Generation | TokenQuery | None = None
    ) -> Attempts:
        attempts = Attempts(pool, model, call, watchdog, retry=self._retry, budget=self._budget)
        attempts.asked = asked
        return attempts

    def _question(
        self, call: Call, watchdog: Watchdog, ask: Callable[[Lease], Awaitable[_T]]
    ) -> Callable[[Lease], Awaitable[_T]]:
        """An attempt that asks something; how it ended is kept where it was not answered."""

        async def attempt(lease: Lease) -> _T:
            began = time.monotonic()
            try:
                with watchdog:
                    watchdog.expect(began + lease.endpoint.timeouts.first_token, _no_answer)
                    call.stopwatch.wait()
                    try:
                        return await ask(lease)
                    finally:
                        call.stopwatch.upstream_done()
            except BackendError as error:
                call.attempts.append(_ended(lease, began, AttemptOutcome.FAILED, error.reason))
                raise
            except (DeadlineExceeded, Interrupted, asyncio.CancelledError):
                call.attempts.append(_ended(lease, began, AttemptOutcome.CANCELLED))
                raise

        return attempt


def _ended(lease: Lease, began: float, outcome: AttemptOutcome, reason: str | None = None) -> Attempt:
    return Attempt(lease.endpoint.name, outcome, reason, time.monotonic() - began)


def _list_models(lease: Lease) -> Awaitable[Sequence[Model]]:
    return lease.endpoint.backend.list_models()


def _the_only_one(models: Sequence[Model]) -> str:
    """The name of the only model that a backend lists. Raises InvalidRequest where several could be meant."""
    only = only_one(models)
    if only is None:
        raise InvalidRequest.of("model", "is needed: there are several models and no default")
    return only


def _no_answer() -> GatewayError:
    return FirstTokenTimeout("The backend did not answer in time.")
