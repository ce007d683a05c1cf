# SPDX-License-Identifier: Apache-2.0
"""The endpoints of one model: which of them a call goes to, and what is learnt from how it went."""

from __future__ import annotations

import logging
import math
import time
from operator import attrgetter
from typing import TYPE_CHECKING

from llm_gateway.backends.base import Readiness
from llm_gateway.errors import (
    BackendAborted,
    BackendError,
    BackendGaveUp,
    BackendLost,
    BackendOverloaded,
    BackendProtocolError,
    BackendRateLimited,
    BackendRefused,
    DeadlineExceeded,
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
from llm_gateway.upstream.first_token import FirstTokenTime
from llm_gateway.upstream.spec import Balancing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from llm_gateway.errors import GatewayError
    from llm_gateway.generation import TokenQuery
    from llm_gateway.upstream.balancer import Balancer
    from llm_gateway.upstream.budget import RetryBudget
    from llm_gateway.upstream.endpoint import Endpoint
    from llm_gateway.upstream.spec import ModelSpec

    Asked = Generation | TokenQuery

LOG = logging.getLogger(__name__)

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
have, is the quickest of all, and would draw every call to itself. The others blame nobody: a caller's mistake, a
deadline, a backend that is full or that loads its model."""


class Lease:
    """One attempt's hold on an endpoint, from the choice to the end. `ended` is said once; again it means nothing.

    That a `question` (a count of tokens, a list of models) is answered says nothing about generations: it is no trial
    and forgives nothing. Only that the endpoint cannot be reached is the same for both.
    """

    __slots__ = ("_over", "_pool", "_work", "answers", "began", "cooling_term", "cut", "endpoint", "instead_of",
                 "model", "on_late", "on_lost", "patience", "question", "term", "timeouts")  # fmt: skip

    def __init__(self, pool: Pool, endpoint: Endpoint, model: str, asked: Asked | None) -> None:
        self._pool = pool
        self._over = False
        self.began = time.monotonic()
        self.question = not isinstance(asked, Generation)
        self._work = work_of(asked.size) if isinstance(asked, Generation) else 1.0
        endpoint.begin(self._work)
        self.term = endpoint.ejection.term if self.question else endpoint.ejection.began()
        """The endpoint's, of when it was asked."""
        self.cooling_term = endpoint.cooling.term
        self.answers = False
        """Whether the first token has come."""
        self.endpoint = endpoint
        self.model = model
        self.timeouts = endpoint.spec.timeouts
        """Those of now, whatever is configured while the attempt is under way."""
        self.patience = self.timeouts.first_token
        """Seconds that the first token may take, until `on_late`."""
        self.on_late: Callable[[], GatewayError | None] | None = None
        """Asked when it has taken so long; gives the error that ends the wait, or None where that goes on."""
        self.on_lost: Callable[[GatewayError], bool] | None = None
        """Told that the endpoint was found dead while the first token was waited for, and that there is another one;
        gives whether the call goes there."""
        self.cut = 0.0
        """Where the attempt is given up before the endpoint's own time is over: the seconds that its call had."""
        self.instead_of: Lease | None = None
        """That of the attempt which was cut for this one."""
        endpoint.waiting.add(self)

    def late(self) -> GatewayError:
        """What it is that the first token has not come in time."""
        what = "did not answer" if self.question else "gave no first token"
        return FirstTokenTimeout(f"The backend {what} in time.")

    def answered(self, after: float) -> None:
        """Say that the first token came, after so many seconds: the endpoint works."""
        self.answers = True
        self.endpoint.waiting.discard(self)
        self._pool.first_token.took(after)
        self._pool.answered(self)
        if self.instead_of is not None and after < self.instead_of.patience:
            self._pool.outrun(self.instead_of)

    def ended(self, error: BaseException | None = None) -> None:
        """Say how the attempt ended; None: well."""
        if self._over:
            return
        self._over = True
        self.on_lost = self.on_late = None  # who holds this lease is held by them: no cycle is left to be collected
        self.endpoint.waiting.discard(self)
        self.endpoint.end(self._work)
        if error is not None:
            self._pool.failed(self, error)
            return
        if not self.answers:
            self._pool.answered(self)
        if not self.question:
            self.endpoint.ejection.completed(self.term)

    def blames(self, error: BaseException) -> FailureKind | None:
        """What an error says about the endpoint; None: nothing."""
        kind = BLAME.get(type(error))  # type: ignore[arg-type]  # what is no GatewayError is not in it
        if self.question and kind is not FailureKind.LOCAL:
            return None
        endpoint = self.endpoint
        if isinstance(error, ModelNotFound) and endpoint.spec.model is None:
            return None  # it was asked for whatever the caller said
        if isinstance(error, FirstTokenTimeout) and self.cut:
            return None  # it might yet have answered in time
        return kind


class Pool:
    """The endpoints that serve one model, in tiers.

    A call goes to the lowest tier that has an endpoint available; within it the balancer chooses. The list of those is
    kept until an endpoint's health changes, so that a choice costs the same for two and for fifty. An endpoint of
    weight 0 is nobody: it ends the calls it has.
    """

    def __init__(self, spec: ModelSpec, *, budget: RetryBudget, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.budget = budget
        """How many more attempts than calls the model may have."""
        self.first_token = FirstTokenTime()
        self._least_load = LeastLoad()
        self._by_hash = BoundedHash()
        self._endpoints: tuple[Endpoint, ...] = ()
        self._usable: tuple[Endpoint, ...] = ()
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
        self._available = ()  # the same endpoints may have other weights, and a balancer learns them of another tuple
        self.changed()

    def changed(self) -> None:
        """Say that an endpoint's health has changed, so that the next call looks who is available."""
        self._recheck_at = -math.inf

    def lease(self, asked: Asked | None, model: str, *, avoid: Collection[Endpoint] = ()) -> Lease:
        """Choose an endpoint for an attempt; `model` is the one asked for, where the backend has no name of its own.

        Raises NoHealthyBackend, ModelLoading, or UnsupportedParameter where no dialect could honour the request.
        """
        self._look()
        key = self._key(asked)
        endpoint = self._balancer(key).pick(self._available, key) if self._available else None
        if endpoint is None or endpoint in avoid or (asked and endpoint.backend.refusal(asked) is not None):
            others = self._others(asked, avoid)
            # Whose home has failed is at home nowhere: to make a ring of the others would cost more than it is worth.
            endpoint = (self._least_load if avoid else self._balancer(key)).pick(others, key)
        return Lease(self, endpoint, endpoint.spec.model or model, asked)

    def has_other(self, asked: Asked | None, avoid: Collection[Endpoint]) -> bool:
        """Whether there is an endpoint beside those to avoid."""
        self._look()
        return any(_fits(endpoint, asked, avoid) for endpoint in self._usable)

    def answered(self, lease: Lease) -> None:
        """A first token came: the endpoint works."""
        if lease.question:
            return
        if lease.endpoint.ejection.succeeded(lease.term):
            self._say_it_is_back(lease.endpoint)
        if lease.endpoint.cooling.answered(lease.cooling_term):
            self.changed()

    def failed(self, lease: Lease, error: BaseException) -> None:
        """An attempt ended badly: count it against the endpoint if it is to blame."""
        endpoint = lease.endpoint
        if isinstance(error, BackendRateLimited | BackendOverloaded | ModelLoading):
            endpoint.cooling.refused(error, lease.cooling_term, self._clock())
            self.changed()
        if lease.instead_of is not None:
            self._learn_of_cuts(lease, lease.instead_of, error)
        kind = lease.blames(error)
        if kind is not None:
            self._blame(lease, kind, error)
        elif not lease.question:
            endpoint.ejection.abandoned(lease.term)

    def outrun(self, cut: Lease) -> None:
        """Another endpoint has given its first token in less time than the one that was cut for it had had."""
        self._blame(cut, FailureKind.SLOW, cut.late())

    def probed(self, endpoint: Endpoint, readiness: Readiness) -> None:
        """Take what an active probe found."""
        before = endpoint.ejection.health
        spared = self._is_last(endpoint)
        endpoint.ejection.probed(readiness, spared=spared)
        after = endpoint.ejection.health
        if before is not after:
            extra = {"model": self.name, "backend": endpoint.name, "health": after.value, "was": before.value}
            LOG.warning("a backend's health has changed", extra=extra)
        # Calls that failed may have ejected it before the probes did. And a silent one that is spared may yet answer.
        if endpoint.ejection.dead and not (spared and readiness is Readiness.SILENT):
            self._send_elsewhere(endpoint)

    def unavailable(self) -> GatewayError:
        """Why nobody can be asked now."""
        ejections = [endpoint.ejection for endpoint in self._endpoints if endpoint.weight]
        if any(ejection.health is Health.LOADING for ejection in ejections):
            return ModelLoading("The backend is loading its model.")
        waits = [left for ejection in ejections if (left := ejection.ejected_for()) is not None]
        wait = min(waits, default=None)
        return NoHealthyBackend("No backend of the model is available.", retry_after=wait and max(wait, 0.1))

    def _learn_of_cuts(self, lease: Lease, cut: Lease, error: BaseException) -> None:
        """An attempt has failed for which another one was cut: that one should perhaps have been left to wait."""
        in_vain = isinstance(error, BackendError | DeadlineExceeded) and not (lease.answers or lease.cut)
        if in_vain and not lease.question:
            self.first_token.is_longer(cut.cut)

    def _blame(self, lease: Lease, kind: FailureKind, error: BaseException) -> None:
        endpoint, ejection = lease.endpoint, lease.endpoint.ejection
        before = ejection.health
        ejected = ejection.failed(kind, spared=self._is_last(endpoint), term=lease.term, broken=lease.answers)
        if ejected:
            extra = {"model": self.name, "backend": endpoint.name, "reason": getattr(error, "reason", None)}
            LOG.warning("ejected a backend", extra=extra)
        elif before is not Health.HEALTHY and ejection.health is Health.HEALTHY:
            self._say_it_is_back(endpoint)

    def _say_it_is_back(self, endpoint: Endpoint) -> None:
        LOG.info("an ejected backend is back", extra={"model": self.name, "backend": endpoint.name})

    def _send_elsewhere(self, endpoint: Endpoint) -> None:
        """Spare those who wait for the first token of a dead endpoint the rest of their wait, if there is another."""
        if not any(other.takes_calls for other in self._endpoints if other is not endpoint):
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

    def _look(self) -> None:
        """See who is available now. While all is well nothing changes by itself, and no clock is read."""
        if self._recheck_at < math.inf and (now := self._clock()) >= self._recheck_at:
            self._refresh(now)

    def _refresh(self, now: float) -> None:
        """Find out anew who is available, and until when that is so."""
        usable = [endpoint for endpoint in self._endpoints if endpoint.takes_calls]
        usable = usable or [endpoint for endpoint in self._endpoints if endpoint.better_than_nobody]
        rested = [endpoint for endpoint in usable if endpoint.cooling.until <= now] or usable
        lowest = min((endpoint.spec.tier for endpoint in rested), default=0)
        available = tuple(endpoint for endpoint in rested if endpoint.spec.tier == lowest)
        if available != self._available:
            self._available = available  # the balancers keep what they know by the tuple: only another one is new
        self._usable = tuple(usable)
        changes = [endpoint.ejection.changes_at for endpoint in self._endpoints]
        changes += [endpoint.cooling.until for endpoint in usable if endpoint.cooling.until > now]
        self._recheck_at = min(changes, default=math.inf)

    def _others(self, asked: Asked | None, avoid: Collection[Endpoint]) -> tuple[Endpoint, ...]:
        """The best candidates but for those to avoid and those that cannot honour the request."""
        fit = [endpoint for endpoint in self._usable if _fits(endpoint, asked, avoid)]
        if not fit:
            raise self._why_none(asked)
        now = self._clock()
        rested = [endpoint for endpoint in fit if endpoint.cooling.until <= now] or fit
        lowest = min(map(attrgetter("spec.tier"), rested))
        return tuple(endpoint for endpoint in rested if endpoint.spec.tier == lowest)

    def _why_none(self, asked: Asked | None) -> GatewayError:
        """A request that no backend of the model could ever honour is refused; else it is a matter of time."""
        refusals = [endpoint.backend.refusal(asked) for endpoint in self._endpoints if endpoint.weight] if asked else []
        if refusals and all(refusals):
            assert refusals[0] is not None, "all are refusals"  # noqa: S101 - narrows the type
            return refusals[0]
        return self.unavailable()

    def _is_last(self, endpoint: Endpoint) -> bool:
        """Whether nobody else could take the calls of an endpoint that is ejected: a trial is only one."""
        return not any(other.healthy for other in self._endpoints if other is not endpoint)


def _fits(endpoint: Endpoint, asked: Asked | None, avoid: Collection[Endpoint]) -> bool:
    return endpoint not in avoid and (asked is None or endpoint.backend.refusal(asked) is None)
