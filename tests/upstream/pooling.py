# SPDX-License-Identifier: Apache-2.0
"""What may befall a pool of endpoints, in a word each."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from llm_gateway import errors as e
from llm_gateway.backends.base import Readiness
from llm_gateway.generation import Generation, Message
from tests.upstream.fakes import backend_spec

if TYPE_CHECKING:
    from llm_gateway.upstream.endpoint import Endpoint
    from llm_gateway.upstream.pool import Pool

A, B, C = backend_spec("a"), backend_spec("b"), backend_spec("c")
FALLBACK = backend_spec("fallback", tier=1)
GENERATION = Generation(messages=(Message(role="user", content="hello"),), size=100)


def endpoint(pool: Pool, name: str) -> Endpoint:
    return next(endpoint for endpoint in pool.endpoints if endpoint.name == name)


def chosen(pool: Pool, calls: int = 60) -> Counter[str]:
    """How often each endpoint is chosen for calls that end at once."""
    names: Counter[str] = Counter()
    for _ in range(calls):
        lease = pool.lease(GENERATION, "llama")
        names[lease.endpoint.name] += 1
        lease.ended()
    return names


def fail(pool: Pool, name: str, *errors: e.GatewayError) -> None:
    """Attempts at an endpoint that end with these."""
    others = [other for other in pool.endpoints if other.name != name]
    for error in errors:
        pool.lease(GENERATION, "llama", avoid=others).ended(error)


def unreachable(times: int = 2) -> list[e.GatewayError]:
    return [e.NoHealthyBackend("Refused.")] * times


def kill(pool: Pool, name: str) -> None:
    for _ in range(3):
        pool.probed(endpoint(pool, name), Readiness.DOWN)
