# SPDX-License-Identifier: Apache-2.0
"""The endpoints of one model: which of them a call goes to, and what is learnt from how it went."""

from __future__ import annotations

import logging
import math
import time
from operator import attrgetter
from typing import TYPE_CHECKING

from llm_gateway.errors import (
    BackendAborted,
    BackendGaveUp,
    BackendLost,
    BackendOverloaded,
    BackendProtocolError,
    BackendRateLimited,
    BackendRefused,
    FirstTokenTimeout,
    ModelLoading,
    ModelNotFound,
    NoHealthyBackend,
    StreamCorrupted,
    StreamInterrupted,
    StreamStalled,
)
from llm_gateway.generation import Generation
from llm_gateway.upstream.balancer import BoundedHash, LeastLoad, prefix_key
from llm_gateway.upstream.ejection import FailureKind, Health
from llm_gateway.upstream.endpoint import work_of
from llm_gateway.upstream.spec import Balancing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from llm_gateway.backends.base import Readiness
    from llm_gateway.errors import GatewayError
    from llm_gateway.generation import TokenQuery
    from llm_gateway.upstream.balancer import Balancer
    from llm_gateway.upstream.budget import RetryBudget
    from llm_gateway.upstream.endpoint import Endpoint
    from llm_gateway.upstream.spec import ModelSpec

    Asked = Generation | TokenQuery

LOG = logging.getLogger(__name__)
LONGEST_COOLING = 60.0
"""Seconds: no backend is left alone for longer, whatever it asked for."""

BLAME: dict[type[GatewayError], FailureKind] = {
    NoHealthyBackend: FailureKind.LOCAL,
    BackendLost: FailureKind.ANSWER,
    BackendGaveUp: FailureKind.ANSWER,
    BackendProtocolError: FailureKind.ANSWER,
    BackendRefused: FailureKind.ANSWER,
    ModelNotFound: FailureKind.ANSWER,
    StreamInterrupted: FailureKind.ANSWER,
    StreamCorrupted: FailureKind.ANSWER,
    BackendAborted: FailureKind.ANSWER,
    FirstTokenTimeout: FailureKind.SLOW,
    StreamStalled: FailureKind.SLOW,
}
"""What a failure says about the endpoint. One that refuses our key, or does not have the model that it is configured to
have, is the quickest of all, and would draw every call to itself. The others blame nobody: a caller's mistake, a deadline, a backend that is
full or that loads its model."""


class Lease:
    """One attempt's hold on an endpoint, from the choice to the end. `ended` is said once; again it means nothing."""

    __slots__ = ("_over", "_pool", "_term", "_work", "answers", "endpoint", "model", "on_lost",
                 "patience")  # fmt: skip

    def __init__(self, pool: Pool, endpoint: Endpoint, model: str, work: float) -> None:
        self._pool = pool
        self._work = work
        self._over = False
        endpoint.begin(work)
        self._term = endpoint.ejection.began()
        self.answers = False
        self.endpoint = endpoint
        self.model = model
        self.patience = endpoint.timeouts.first_token
        """Seconds that the first token may take."""
        self.on_lost: Callable[[GatewayError], bool] | None = None
        """Told that the endpoint was found dead while the first token was waited for, and that there is another one;
        gives whether the call goes there."""
        endpoint.waiting.add(self)

    def answered(self) -> None:
        """Say that the first token came: the endpoint works."""
        self.answers = True
        self.endpoint.waiting.discard(self)
        self.endpoint.ejection.succeeded(self._term)

    def ended(self, error: BaseException | None = None) -> None:
        """Say how the attempt ended; None: well."""
        if self._over:
            return
        self._over = True
        self.endpoint.waiting.discard(self)
        self.endpoint.end(self._work)
        if error is not None:
            self._pool.failed(self.endpoint, error, self._term)
        elif not self.answers:
            self.endpoint.ejection.succeeded(self._term)


class Pool:
    """The endpoints that serve one model, in tiers.

    A call goes to the lowest tier that has an endpoint available; within it the balancer chooses. The list of those is
    kept until an endpoint's health changes, so that a choice costs the same for two and for fifty.
    """

    def __init__(self, spec: ModelSpec, *, budget: RetryBudget, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.budget = budget
        """How many more attempts than calls the model may have."""
        self._least_load = LeastLoad()
        self._by_hash = BoundedHash()
        self._endpoints: tuple[Endpoint, ...] = ()
        self._available: tuple[Endpoint, ...] = ()
        self._recheck_at = -math.inf
        self.spec = spec

    @property
    def name(self) -> str:
        """The model's name."""
        return self.spec.name

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        """All of them, by tier and name."""
        return self._endpoints

    def update(self, spec: ModelSpec, endpoints: Collection[Endpoint]) -> None:
        """Take another configuration, or other addresses. What runs stays where it is."""
        self.spec = spec
        self._endpoints = tuple(sorted(endpoints, key=lambda endpoint: (endpoint.spec.tier, endpoint.name)))
        self.changed()

    def changed(self) -> None:
        """Say that an endpoint's health has changed, so that the next call looks who is available."""
        self._recheck_at = -math.inf

    def lease(self, asked: Asked | None, model: str, *, avoid: Collection[Endpoint] = ()) -> Lease:
        """Choose an endpoint for an attempt; `model` is the one asked for, where the backend has no name of its own.

        Raises NoHealthyBackend, ModelLoading, or UnsupportedParameter where no dialect could honour the request.
        """
        now = self._clock()
        if now >= self._recheck_at:
            self._refresh(now)
        key = self._key(asked)
        endpoint = self._balancer(key).pick(self._available, key) if self._available else None
        if endpoint is None or endpoint in avoid or (asked and endpoint.backend.refusal(asked) is not None):
            others = self._others(asked, avoid, now)
            # Whose home has failed is at home nowhere: to make a ring of the others would cost more than it is worth.
            endpoint = (self._least_load if avoid else self._balancer(key)).pick(others, key)
        work = work_of(asked.size) if isinstance(asked, Generation) else 1.0
        return Lease(self, endpoint, endpoint.spec.model or model, work)

    def has_other(self, asked: Asked | None, avoid: Collection[Endpoint]) -> bool:
        """Whether there is an endpoint beside those to avoid."""
        return any(self._fits(endpoint, asked, avoid) for endpoint in self._endpoints)

    def failed(self, endpoint: Endpoint, error: BaseException, term: int) -> None:
        """An attempt ended badly: count it against the endpoint if it is to blame."""
        kind = BLAME.get(type(error))  # type: ignore[arg-type]  # what is no GatewayError is not in it
        if isinstance(error, ModelNotFound) and endpoint.spec.model is None:
            kind = None  # it was asked for whatever the caller said
        if isinstance(error, BackendRateLimited | BackendOverloaded | ModelLoading) and error.asked_wait is not None:
            endpoint.cools_until = self._clock() + min(error.asked_wait, LONGEST_COOLING)
            self.changed()
        if kind is None:
            endpoint.ejection.abandoned(term)
        elif endpoint.ejection.failed(kind, spared=self._is_last(endpoint), term=term):
            extra = {"model": self.name, "backend": endpoint.name, "reason": getattr(error, "reason", None)}
            LOG.warning("ejected a backend", extra=extra)

    def probed(self, endpoint: Endpoint, readiness: Readiness) -> None:
        """Take what an active probe found."""
        before = endpoint.ejection.health
        endpoint.ejection.probed(readiness)
        after = endpoint.ejection.health
        if before is not after:
            extra = {"model": self.name, "backend": endpoint.name, "health": after.value, "was": before.value}
            LOG.warning("a backend's health has changed", extra=extra)
        if endpoint.ejection.dead:  # and calls that failed may have ejected it before the probes did
            self._send_elsewhere(endpoint)

    def unavailable(self) -> GatewayError:
        """Why nobody can be asked now."""
        healths = [endpoint.ejection.health for endpoint in self._endpoints]
        if Health.LOADING in healths:
            return ModelLoading("The backend is loading its model.")
        waits = [left for endpoint in self._endpoints if (left := endpoint.ejection.ejected_for()) is not None]
        wait = min(waits, default=None)
        return NoHealthyBackend("No backend of the model is available.", retry_after=wait and max(wait, 0.1))

    def _send_elsewhere(self, endpoint: Endpoint) -> None:
        """Spare those who wait for the first token of a dead endpoint the rest of their wait, if there is another."""
        if not any(other.ejection.available() for other in self._endpoints if other is not endpoint):
            return
        for lease in tuple(endpoint.waiting):
            if lease.on_lost is not None:
                lease.on_lost(BackendLost("The backend does not answer any more."))

    def _balancer(self, key: bytes | None) -> Balancer:
        return self._least_load if key is None else self._by_hash

    def _key(self, asked: Asked | None) -> bytes | None:
        balancing = self.spec.balancing
        if balancing is Balancing.LEAST_LOAD or not isinstance(asked, Generation):
            return None
        if balancing is Balancing.PREFIX:
            return prefix_key(asked)
        return asked.session_id.encode() if asked.session_id else None

    def _refresh(self, now: float) -> None:
        """Find out anew who is available, and until when that is so."""
        usable = [endpoint for endpoint in self._endpoints if endpoint.weight and endpoint.ejection.available()]
        rested = [endpoint for endpoint in usable if endpoint.cools_until <= now] or usable
        lowest = min((endpoint.spec.tier for endpoint in rested), default=0)
        available = tuple(endpoint for endpoint in rested if endpoint.spec.tier == lowest)
        if available != self._available:
            self._available = available  # the balancers keep what they know by the tuple: only another one is new
        changes = [endpoint.ejection.changes_at for endpoint in self._endpoints]
        changes += [endpoint.cools_until for endpoint in usable if endpoint.cools_until > now]
        self._recheck_at = min(changes, default=math.inf)

    def _others(self, asked: Asked | None, avoid: Collection[Endpoint], now: float) -> tuple[Endpoint, ...]:
        """The best candidates but for those to avoid and those that cannot honour the request."""
        fit = [endpoint for endpoint in self._endpoints if self._fits(endpoint, asked, avoid)]
        if not fit:
            raise self._why_none(asked)
        rested = [endpoint for endpoint in fit if endpoint.cools_until <= now] or fit
        lowest = min(map(attrgetter("spec.tier"), rested))
        return tuple(endpoint for endpoint in rested if endpoint.spec.tier == lowest)

    def _fits(self, endpoint: Endpoint, asked: Asked | None, avoid: Collection[Endpoint]) -> bool:
        return (
            endpoint not in avoid
            and endpoint.weight > 0
            and endpoint.ejection.available()
            and (asked is None or endpoint.backend.refusal(asked) is None)
        )

    def _why_none(self, asked: Asked | None) -> GatewayError:
        """A request that no backend of the model could ever honour is refused; else it is a matter of time."""
        refusals = [endpoint.backend.refusal(asked) for endpoint in self._endpoints] if asked else []
        if refusals and all(refusals):
            assert refusals[0] is not None, "all are refusals"  # noqa: S101 - narrows the type
            return refusals[0]
        return self.unavailable()

    def _is_last(self, endpoint: Endpoint) -> bool:
        """Whether nobody else could take the calls of an endpoint that is ejected."""
        return not any(
            other is not endpoint and other.weight and other.ejection.available() for other in self._endpoints
        )
