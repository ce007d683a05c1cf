# SPDX-License-Identifier: Apache-2.0
"""Backends that do nothing but what a test tells them, and a clock that a test moves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llm_gateway.backends.base import Readiness
from llm_gateway.errors import BackendLost, UnsupportedParameter
from llm_gateway.upstream.budget import RetryBudget
from llm_gateway.upstream.ejection import Ejection, EjectionPolicy
from llm_gateway.upstream.endpoint import Endpoint
from llm_gateway.upstream.pool import Pool
from llm_gateway.upstream.spec import Address, BackendSpec, ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llm_gateway.backends.base import Load
    from llm_gateway.generation import Generation, Model

POLICY = EjectionPolicy(local_failures=2, answer_failures=3, base=2.0, longest=10.0, jitter=0.0)


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@dataclass(eq=False)
class FakeBackend:
    """The parts of a Backend that the upstream room uses."""

    name: str = "fake"
    dialect: str = "vllm"
    probe_patience: float = 1.0
    readiness: Readiness = Readiness.READY
    says: Load | None = None
    refuses: UnsupportedParameter | None = None
    models: Sequence[Model] | None = ()
    """None: it cannot say."""
    probes: int = field(default=0, init=False)
    closed: bool = field(default=False, init=False)

    def refusal(self, _: Generation) -> UnsupportedParameter | None:
        return self.refuses

    async def probe(self) -> Readiness:
        self.probes += 1
        return self.readiness

    async def load(self) -> Load | None:
        return self.says

    async def list_models(self) -> Sequence[Model]:
        if self.models is None:
            raise BackendLost("Gone.")
        return self.models

    async def close(self) -> None:
        self.closed = True


def backend_spec(name: str, **fields: Any) -> BackendSpec:
    """A configured backend."""
    return BackendSpec(**({"name": name, "urls": (f"http://{name}",), "model": "own-name"} | fields))


def endpoint_of(
    spec: BackendSpec,
    *,
    backend: FakeBackend | None = None,
    clock: Callable[[], float],
    on_change: Callable[[], None] = lambda: None,
) -> Endpoint:
    """An endpoint with a fake backend behind it."""
    ejection = Ejection(POLICY, clock=clock, on_change=on_change)
    driver: Any = backend or FakeBackend(spec.name)
    return Endpoint(driver, spec, Address(spec.urls[0]), ejection=ejection)


def pool_of(*backends: BackendSpec | tuple[BackendSpec, FakeBackend], clock: Clock, **fields: Any) -> Pool:
    """A pool with one endpoint for each backend."""
    pairs = [pair if isinstance(pair, tuple) else (pair, FakeBackend(pair.name)) for pair in backends]
    spec = ModelSpec(**({"name": "llama", "backends": tuple(spec for spec, _ in pairs)} | fields))
    pool = Pool(spec, budget=RetryBudget(), clock=clock)
    pool.update(spec, [endpoint_of(s, backend=b, clock=clock, on_change=pool.changed) for s, b in pairs])
    return pool
