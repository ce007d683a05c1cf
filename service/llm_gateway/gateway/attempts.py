# SPDX-License-Identifier: Apache-2.0
"""The attempts of one call: which backend is tried, for how long, and what is tried after it has failed."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

from llm_gateway.errors import BackendError, ModelLoading, NoHealthyBackend

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llm_gateway.deadline import Watchdog
    from llm_gateway.generation import Generation, TokenQuery
    from llm_gateway.observability.call import Call
    from llm_gateway.upstream.budget import RetryBudget
    from llm_gateway.upstream.endpoint import Endpoint
    from llm_gateway.upstream.pool import Lease, Pool
    from llm_gateway.upstream.retry import RetryPolicy

_T = TypeVar("_T")


class Attempts:
    """Tries, until one attempt has an end that stands: a result, or an error after which trying helps nobody.

    What failed is tried elsewhere at once, and again on the same backend after a pause, where the failure allows it;
    within the caller's deadline, the policy's number and the budget. A backend that was silent is not asked again.
    """

    def __init__(
        self, pool: Pool, model: str, call: Call, watchdog: Watchdog, *, retry: RetryPolicy, budget: RetryBudget
    ) -> None:
        self._pool = pool
        self._model = model
        self._watchdog = watchdog
        self._retry = retry
        self._budget = budget
        self._tried: set[Endpoint] = set()
        self._given_up: set[Endpoint] = set()
        self.call = call
        self.lease: Lease
        """That of the attempt that counts: the last one, and of two in a race the one that leads."""
        self.asked: Generation | TokenQuery | None = None
        """What is asked for, where not every backend can do it."""

    async def run(self, attempt: Callable[[Lease], Awaitable[_T]]) -> _T:
        """Make attempts. Raises the error of the last one, or what the pool raises where there is nobody to ask."""
        self._budget.request()
        self.lease = self._choose(())
        while True:
            try:
                result = await attempt(self.lease)
            except BackendError as error:
                self.lease.ended(error)
                pause, avoid = self._next(error)
                if pause:
                    await self._sleep(pause)
                self.lease = self._another(error, avoid)
            except BaseException as error:
                self.lease.ended(error)
                raise
            else:
                self.lease.ended()
                return result

    def hedge(self) -> Lease | None:
        """A second backend for an attempt that is under way; None where there is none, or where it is not allowed."""
        self._tried.add(self.lease.endpoint)
        if len(self.call.attempts) + 1 >= self._retry.max_attempts:
            return None
        if not self._pool.has_other(self.asked, self._tried) or not self._budget.withdraw():
            return None
        lease = self._pool.lease(self.asked, self._model, avoid=self._tried)
        self._tried.add(lease.endpoint)
        return lease

    def _choose(self, avoid: set[Endpoint] | tuple[()]) -> Lease:
        lease = self._pool.lease(self.asked, self._model, avoid=avoid)
        endpoint, call = lease.endpoint, self.call
        call.model, call.backend, call.address = lease.model, endpoint.name, endpoint.address.url
        lease.on_lost = self._watchdog.interrupt
        return lease

    def _next(self, error: BackendError) -> tuple[float, set[Endpoint]]:
        """How long to wait, and whom not to ask. Raises `error` where there is to be no other attempt."""
        self._tried.add(self.lease.endpoint)
        if not error.retryable:
            self._given_up.add(self.lease.endpoint)
        elsewhere = error.elsewhere and self._pool.has_other(self.asked, self._tried)
        pause = self._retry.pause(error, len(self.call.attempts), elsewhere=elsewhere)
        if pause is None or time.monotonic() + pause >= self._watchdog.deadline or not self._budget.withdraw():
            raise error
        return pause, self._tried if elsewhere else self._given_up

    def _another(self, error: BackendError, avoid: set[Endpoint]) -> Lease:
        """Another lease. Where there is nobody left to ask, the last real answer says more than that."""
        try:
            return self._choose(avoid)
        except (NoHealthyBackend, ModelLoading):
            raise error from None

    async def _sleep(self, pause: float) -> None:
        """Wait before asking again; the time is not the gateway's own."""
        self.call.stopwatch.wait()
        try:
            with self._watchdog:
                await asyncio.sleep(pause)
        finally:
            self.call.stopwatch.upstream_done()
