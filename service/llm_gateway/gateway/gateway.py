# SPDX-License-Identifier: Apache-2.0
"""What the gateway does with a call: admit → resolve → attempt → relay, and another attempt where that is safe."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from llm_gateway.admission import Ticket
from llm_gateway.deadline import NEVER, TimeLimitReached, Watchdog
from llm_gateway.errors import (
    DeadlineExceeded,
    GatewayError,
    Interrupted,
    InvalidRequest,
)
from llm_gateway.gateway.answer import Collector
from llm_gateway.gateway.attempts import Attempts
from llm_gateway.gateway.defaults import with_defaults
from llm_gateway.gateway.relay import Relay
from llm_gateway.generation import Attempt, AttemptOutcome
from llm_gateway.upstream.router import only_one

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from llm_gateway.admission import Admission
    from llm_gateway.gateway.relay import Writer
    from llm_gateway.generation import Answer, Generation, Model, TokenCount, TokenQuery
    from llm_gateway.observability.call import Call
    from llm_gateway.upstream.pool import Lease, Pool
    from llm_gateway.upstream.retry import RetryPolicy
    from llm_gateway.upstream.router import Router

_T = TypeVar("_T")
QUESTIONS = "(questions)"
"""Whose seats questions take: how long one holds its seat says nothing about an answer. No model has this name."""


class Gateway:
    """Serves calls. Every method ends in a result or in a GatewayError; a cancelled task closes what it had open.

    `max_stall` is how long a caller may take for one piece of a stream, in seconds.
    """

    def __init__(self, *, router: Router, admission: Admission, retry: RetryPolicy, max_stall: float) -> None:
        self._router = router
        self._admission = admission
        self._retry = retry
        self._max_stall = max_stall

    async def stream(self, generation: Generation, call: Call, writer: Writer) -> None:
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
        relay = Relay(generation, call, watchdog, writer, max_stall=self._max_stall)
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
        await self.stream(generation, call, collector)
        return collector.answer()

    async def list_models(self, call: Call) -> Sequence[Model]:
        """The models that a caller may name."""
        async with self._seat(call) as watchdog:
            models = self._router.models()
            if models is not None:
                return models
            pool, _ = self._router.pool("")
            listed = await self._attempts(pool, "", call, watchdog).run(_question(call, watchdog, _list_models))
            return self._router.mark_default(listed)

    async def count_tokens(self, query: TokenQuery, call: Call) -> TokenCount:
        """How many tokens a prompt has."""
        pool, model = self._router.pool(query.model)

        async def count(lease: Lease) -> TokenCount:
            backend = lease.endpoint.backend
            own_name = lease.model or _the_only_one(await backend.list_models())
            counted = await backend.count_tokens(query, own_name, call.request_id)
            return replace(counted, model=model or own_name, backend=lease.endpoint.spec.name)

        async with self._seat(call) as watchdog:
            return await self._attempts(pool, model, call, watchdog, query).run(_question(call, watchdog, count))

    async def _serve(self, relay: Relay, pool: Pool, model: str, generation: Generation) -> None:
        """Relay an answer, over as many attempts as it takes."""
        call, watchdog = relay.call, relay.watchdog
        try:
            if not model:
                question = self._attempts(pool, model, call, watchdog)
                model = call.model = _the_only_one(await question.run(_question(call, watchdog, _list_models)))
            attempts = self._attempts(pool, model, call, watchdog, generation)
            if pool.spec.hedge_after is not None:
                relay.hedge(attempts, after=pool.spec.hedge_after)
            await attempts.run(relay.attempt)
        except TimeLimitReached:
            await relay.end_early()

    @asynccontextmanager
    async def _seat(self, call: Call) -> AsyncIterator[Watchdog]:
        """A seat for a question, and what guards the wait for its answer."""
        watchdog = Watchdog(call.deadline)
        try:
            async with self._admission.admit(Ticket(call, watchdog, model=QUESTIONS)):
                call.admitted = True
                call.stopwatch.seated()
                yield watchdog
        finally:
            watchdog.close()

    def _attempts(
        self, pool: Pool, model: str, call: Call, watchdog: Watchdog, asked: Generation | TokenQuery | None = None
    ) -> Attempts:
        return Attempts(pool, model, call, watchdog, retry=self._retry, asked=asked)


def _question(
    call: Call, watchdog: Watchdog, ask: Callable[[Lease], Awaitable[_T]]
) -> Callable[[Lease], Awaitable[_T]]:
    """An attempt that asks something which changes nothing; how it ended is kept where it was not answered."""

    async def attempt(lease: Lease) -> _T:
        call.stopwatch.wait()
        try:
            watchdog.expect(lease.began + lease.patience, lease.on_late or lease.late)
            with watchdog:
                return await ask(lease)
        except (DeadlineExceeded, Interrupted, asyncio.CancelledError):
            call.attempts.append(_ended(lease, AttemptOutcome.CANCELLED))
            raise
        except GatewayError as error:
            call.attempts.append(_ended(lease, AttemptOutcome.FAILED, error.reason))
            raise
        finally:
            call.stopwatch.upstream_done()

    return attempt


def _ended(lease: Lease, outcome: AttemptOutcome, reason: str | None = None) -> Attempt:
    return Attempt(lease.endpoint.spec.name, outcome, reason, time.monotonic() - lease.began)


def _list_models(lease: Lease) -> Awaitable[Sequence[Model]]:
    return lease.endpoint.backend.list_models()


def _the_only_one(models: Sequence[Model]) -> str:
    """The name of the only model that a backend lists. Raises InvalidRequest where several could be meant."""
    only = only_one(models)
    if only is None:
        raise InvalidRequest.of("model", "is needed: there are several models and no default")
    return only
