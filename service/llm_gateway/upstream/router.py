# SPDX-License-Identifier: Apache-2.0
"""From the model that a caller names, or does not name, to the endpoints that serve it; and their coming and going."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llm_gateway.errors import InvalidRequest, ModelNotFound
from llm_gateway.generation import Model
from llm_gateway.upstream.endpoint import Endpoint
from llm_gateway.upstream.pool import Pool
from llm_gateway.upstream.spec import ANY_MODEL, Address

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from llm_gateway.backends.base import Load
    from llm_gateway.upstream.budget import RetryBudget, RetryStatistics
    from llm_gateway.upstream.ejection import Health
    from llm_gateway.upstream.prober import Prober
    from llm_gateway.upstream.spec import BackendSpec, ModelSpec

LOG = logging.getLogger(__name__)
LOOKUP_TIMEOUT = 5.0
Resolve = Callable[[str], Awaitable["Sequence[Address]"]]
"""Gives the addresses behind a URL's host; raises OSError where it cannot tell."""
MakeEndpoint = Callable[["BackendSpec", Address, Callable[[], None]], Endpoint]
"""Makes the endpoint of a backend at an address; the last argument is called when its health changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointStatistics:
    """One endpoint as it is now; `ejected_for` is in seconds, None where it is not ejected."""

    name: str
    address: str
    dialect: str
    tier: int
    weight: int
    health: Health
    in_flight: int
    consecutive_failures: int
    ejections: int
    ejected_for: float | None
    report: Load | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatistics:
    """One model and its endpoints; the name is "" where every model that a backend serves is meant."""

    name: str
    aliases: tuple[str, ...]
    seats: int | None
    retries: RetryStatistics
    endpoints: tuple[EndpointStatistics, ...]


class Router:
    """All models. `apply` swaps what is configured in one step; an endpoint whose entry still means the same server and
    the same driver stays, with its connections and what is known of it, and one that goes is probed until its last call
    has ended, and then closed. Each model has a budget of retries, so that the outage of one takes none from another.
    """

    def __init__(
        self, make_endpoint: MakeEndpoint, *, make_budget: Callable[[], RetryBudget], resolve: Resolve, prober: Prober
    ) -> None:
        self._make_endpoint = make_endpoint
        self._make_budget = make_budget
        self._resolve = resolve
        self._prober = prober
        self._pools: dict[str, Pool] = {}
        self._by_name: dict[str, Pool] = {}
        self._default: str | None = None
        self._endpoints: dict[tuple[str, BackendSpec, Address], Endpoint] = {}
        """By model, the identity of the backend, and address."""
        self._addresses: dict[str, Sequence[Address]] = {}
        """What is behind each name, by the URL that has it: whatever else of a backend changes, this stays known."""
        self._closing: set[asyncio.Task[None]] = set()

    async def apply(self, specs: Sequence[ModelSpec], default_model: str | None) -> None:
        """Serve these models from now on."""
        self._addresses = await self._look_up(
            {backend.urls[0] for spec in specs for backend in spec.backends if backend.resolve}
        )
        self._default = default_model
        old, self._pools = self._pools, {}
        for spec in specs:
            self._pools[spec.name] = old.get(spec.name) or Pool(spec, budget=self._make_budget())
        self._by_name = {name: self._pools[spec.name] for spec in specs for name in (spec.name, *spec.aliases)}
        for name in old.keys() - self._pools.keys():
            old[name].update(old[name].spec, ())
        self._reconcile({spec.name: spec for spec in specs})

    async def refresh(self) -> bool:
        """Look the names up again, and take the addresses that are behind them now. Gives whether each has any."""
        addresses = await self._look_up(self._addresses)
        if self._addresses.keys() == addresses.keys() and self._addresses != addresses:
            self._addresses = addresses
            self._reconcile({pool.name: pool.spec for pool in self._pools.values()})
        return all(self._addresses.values())

    def pool(self, model: str | None) -> tuple[Pool, str]:
        """The pool for a model, and the model's name: "" where only the backend can tell which it would be.

        Raises ModelNotFound, or InvalidRequest where none is named and several could be meant.
        """
        asked = model or self._default
        if asked is None:
            if len(self._pools) > 1:
                raise InvalidRequest.of("model", "is needed: there are several models and no default")
            asked = next(iter(self._pools))
        pool = self._by_name.get(asked) or self._pools.get(ANY_MODEL)
        if pool is None:
            raise ModelNotFound("There is no such model.")
        return pool, pool.name or asked

    def models(self) -> Sequence[Model] | None:
        """The configured models, by name, the default marked; None where the backend is the one who knows."""
        if ANY_MODEL in self._pools:
            return None
        default, _ = (None, "") if self._default is None and len(self._pools) > 1 else self.pool(None)
        return [_model(pool, is_default=pool is default) for _, pool in sorted(self._pools.items())]

    def mark_default(self, models: Sequence[Model]) -> Sequence[Model]:
        """The models that a backend lists, by name, the default marked."""
        default = self._default or only_one(models)
        return sorted((replace(m, is_default=m.name == default) for m in models), key=lambda model: model.name)

    async def answers(self) -> bool:
        """Whether any backend answers, as far as the probes know."""
        return await self._prober.any_ready()

    def statistics(self) -> tuple[ModelStatistics, ...]:
        """What is so now, by model."""
        return tuple(
            ModelStatistics(
                name=pool.name,
                aliases=pool.spec.aliases,
                seats=pool.spec.seats,
                retries=pool.budget.statistics(),
                endpoints=tuple(_statistics(endpoint) for endpoint in pool.endpoints),
            )
            for _, pool in sorted(self._pools.items())
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._prober.close()
        for endpoint in self._endpoints.values():
            self._close(endpoint)
        self._endpoints.clear()
        while self._closing:
            await asyncio.gather(*self._closing, return_exceptions=True)

    def _reconcile(self, specs: dict[str, ModelSpec]) -> None:
        """Make the endpoints that are wanted and are not there, give each pool its own, let the others go."""
        wanted = {
            (name, backend.identity, address): backend
            for name, spec in specs.items()
            for backend in spec.backends
            for address in self._addresses_of(backend)
        }
        gone = self._endpoints.keys() - wanted.keys()
        retired = [self._endpoints.pop(key) for key in gone]
        for key, backend in wanted.items():
            if key in self._endpoints:
                self._endpoints[key].spec = backend
            else:
                model, _, address = key
                self._endpoints[key] = endpoint = self._make_endpoint(backend, address, self._pools[model].changed)
                self._prober.watch(self._pools[model], endpoint)
        for name, spec in specs.items():
            own = [endpoint for (model, _, _), endpoint in self._endpoints.items() if model == name]
            self._pools[name].update(spec, own)
        for endpoint in retired:
            endpoint.retire(lambda endpoint=endpoint: self._let_go(endpoint))  # type: ignore[misc]  # a default binds it

    def _addresses_of(self, backend: BackendSpec) -> Sequence[Address]:
        urls = backend.urls
        return self._addresses[urls[0]] if backend.resolve else [Address(url) for url in urls]

    async def _look_up(self, urls: Collection[str]) -> dict[str, Sequence[Address]]:
        found = await asyncio.gather(*map(self._addresses_behind, urls))
        return dict(zip(urls, found, strict=True))

    async def _addresses_behind(self, url: str) -> Sequence[Address]:
        """The addresses behind a name; those of before where nobody can tell, or there are none at all."""
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT):
                found = await self._resolve(url)
        except OSError:  # a TimeoutError is one
            found = ()
        if not found:
            LOG.warning("a backend's name has no address", extra={"address": url})
            return self._addresses.get(url, ())
        return found

    def _let_go(self, endpoint: Endpoint) -> None:
        """Close what nobody waits for any more; until then its probes tell those who wait whether it lives."""
        self._prober.forget(endpoint)
        self._close(endpoint)

    def _close(self, endpoint: Endpoint) -> None:
        closing = asyncio.get_running_loop().create_task(endpoint.backend.close(), name="close-backend")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


def only_one(models: Sequence[Model]) -> str | None:
    """The name of the only model; adapters of it do not count, for it can be meant without them."""
    names = [model.name for model in models if model.parent is None]
    return names[0] if len(names) == 1 else None


def _model(pool: Pool, *, is_default: bool) -> Model:
    lengths = [endpoint.context_length for endpoint in pool.endpoints if endpoint.context_length]
    return Model(
        name=pool.name,
        aliases=pool.spec.aliases,
        context_length=min(lengths, default=None),
        is_default=is_default,
    )


def _statistics(endpoint: Endpoint) -> EndpointStatistics:
    return EndpointStatistics(
        name=endpoint.name,
        address=endpoint.address.url,
        dialect=endpoint.backend.dialect,
        tier=endpoint.spec.tier,
        weight=endpoint.spec.weight,
        health=endpoint.ejection.health,
        in_flight=endpoint.in_flight,
        consecutive_failures=endpoint.ejection.consecutive_failures,
        ejections=endpoint.ejection.ejections,
        ejected_for=endpoint.ejection.ejected_for(),
        report=endpoint.report,
    )
