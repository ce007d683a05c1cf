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
    from llm_gateway.errors import GatewayError
    from llm_gateway.generation import Generation, TokenQuery
    from llm_gateway.observability.call import Call
    from llm_gateway.upstream.endpoint import Endpoint
    from llm_gateway.upstream.pool import Lease, Pool
    from llm_gateway.upstream.retry import RetryPolicy

    Endpoints = tuple[Endpoint, ...]

_T = TypeVar("_T")
SHARE = 0.5
"""The part of the time that is left after which a silent backend may be given up for another one, so that it does not
use up the caller's deadline."""
LEAST_WAIT = 0.02
"""Seconds until that is considered again."""


class Attempts:
    """Tries, until one attempt has an end that stands: a result, or an error after which trying helps nobody.

    What failed is tried elsewhere at once, and again on the same backend after a pause, where the failure allows it;
    within the caller's deadline, the policy's number and the model's budget. A backend that was silent is not asked
    again. `asked` is what a backend must be able to do.
    """

    def __init__(
        self, pool: Pool, model: str, call: Call, watchdog: Watchdog, *, retry: RetryPolicy,
        asked: Generation | TokenQuery | None = None,
    ) -> None:  # fmt: skip
        self._pool = pool
        self._model = model
        self._watchdog = watchdog
        self._retry = retry
        self._asked = asked
        self._tried: Endpoints = ()
        self._given_up: Endpoints = ()
        self._racing: Endpoints = ()
        self._paid = False
        self.call = call
        self.lease: Lease
        """That of the attempt that counts: the last one, and of two in a race the one that leads."""

    async def run(self, attempt: Callable[[Lease], Awaitable[_T]]) -> _T:
        """Make attempts. Raises the error of the last one, or what the pool raises where there is nobody to ask."""
        self._pool.budget.request()
        self._choose(())
        while True:
            try:
                result = await attempt(self.lease)
            except BackendError as error:
                self.lease.ended(error)
                pause, avoid = self._next(error)
                if pause:
                    await self._sleep(pause)
                self._choose_another(error, avoid)
            except BaseException as error:
                self.lease.ended(error)
                raise
            else:
                self.lease.ended()
                return result

    def hedge(self) -> Lease | None:
        """A second backend for an attempt that is under way; None where there is none, or where it is not allowed."""
        if not self._may_go_elsewhere():
            return None
        lease = self._pool.lease(self._asked, self._model, avoid=self._tried)
        self._tried += (lease.endpoint,)
        self._racing += (lease.endpoint,)
        return lease

    def _choose(self, avoid: Endpoints, instead_of: Lease | None = None) -> None:
        self.lease = lease = self._pool.lease(self._asked, self._model, avoid=avoid)
        endpoint, call = lease.endpoint, self.call
        self._racing = (endpoint,)
        self._tried += self._racing
        call.backend, call.address = endpoint.spec.name, endpoint.address.url
        lease.on_lost = self._leave_the_dead
        lease.instead_of = instead_of
        if len(self._pool.endpoints) > 1:
            lease.on_late = self._leave_the_silent
            lease.patience = min(lease.patience, SHARE * (self._watchdog.deadline - lease.began))

    def _leave_the_silent(self) -> GatewayError | None:
        """End the wait for a first token that takes long, if there is another attempt for it, and time enough for what
        a first token usually takes. Else let the backend have all its time.
        """
        lease, now = self.lease, time.monotonic()
        left, whole = self._watchdog.deadline - now, lease.timeouts.first_token
        if lease.patience >= whole:
            return lease.late()
        if not lease.question and left <= self._pool.first_token.usual:
            more = max(SHARE * left, LEAST_WAIT)  # what is usual may have changed by then
        elif self._may_go_elsewhere():
            return self._cut(lease, now)
        else:
            more = whole
        lease.patience = min(now - lease.began + more, whole)
        self._watchdog.extend(lease.began + lease.patience)
        return None

    def _cut(self, lease: Lease, now: float) -> GatewayError:
        """Give an attempt up that is paid for already: another one follows."""
        self._paid = True
        lease.patience = now - lease.began
        lease.cut = self._watchdog.deadline - lease.began if lease.instead_of is None else lease.instead_of.cut
        if not lease.question:
            self._pool.first_token.is_doubted(lease.cut)
        return lease.late()

    def _leave_the_dead(self, error: GatewayError) -> bool:
        """End the wait for a backend that was found dead, if there is another attempt for it; gives whether so."""
        self._paid = self._may_go_elsewhere()
        if self._paid:
            self._watchdog.interrupt(error)
        return self._paid

    def _may_go_elsewhere(self) -> bool:
        return self._is_another_allowed() and self._has_untried() and self._pool.budget.withdraw()

    def _is_another_allowed(self) -> bool:
        """Whether the policy's number leaves room for one beside that which is under way."""
        return len(self.call.attempts) + 1 < self._retry.max_attempts

    def _has_untried(self) -> bool:
        return self._pool.has_other(self._asked, self._tried)

    def _next(self, error: BackendError) -> tuple[float, Endpoints]:
        """How long to wait, and whom not to ask. Raises `error` where there is to be no other attempt."""
        if not error.retryable:
            self._given_up += self._racing
        elsewhere = error.elsewhere and self._has_untried()
        avoid = self._tried if elsewhere else self._given_up
        pause = self._retry.pause(error, len(self.call.attempts), elsewhere=elsewhere)
        if pause is None or time.monotonic() + pause >= self._watchdog.deadline:
            raise error
        paid, self._paid = self._paid, False
        if not self._pool.has_other(self._asked, avoid) or not (paid or self._pool.budget.withdraw()):
            raise error
        return pause, avoid

    def _choose_another(self, error: BackendError, avoid: Endpoints) -> None:
        """Where there is nobody left to ask after all, the last real answer says more than that."""
        try:
            self._choose(avoid, self.lease if self.lease.cut else None)
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
