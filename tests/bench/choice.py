# SPDX-License-Identifier: Apache-2.0
"""What the choice of a backend costs each attempt, in this process and without a network."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llm_gateway.backends.base import Load, Readiness
from llm_gateway.backends.openai import OpenAIBackend
from llm_gateway.generation import Generation, Message
from llm_gateway.upstream.budget import RetryBudget
from llm_gateway.upstream.ejection import Ejection, EjectionPolicy
from llm_gateway.upstream.endpoint import Endpoint
from llm_gateway.upstream.pool import Pool
from llm_gateway.upstream.spec import Address, BackendSpec, Balancing, ModelSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_gateway.upstream.pool import Lease

MODEL = "m"
SESSIONS = 200
SYSTEM_PROMPTS = 20
PROMPT_BYTES = 4096
REPORT = Load(running=4, waiting=1, kv_usage=0.5)
POLICY = EjectionPolicy(longest=3600.0)


@dataclass(frozen=True, slots=True)
class Case:
    """Among how many endpoints, how, and whether all is well."""

    endpoints: int
    balancing: Balancing
    ejected: int = 0
    """So many are not available."""
    again: bool = False
    """It is the second attempt: the endpoint of the first has failed."""

    @property
    def name(self) -> str:
        """For the report."""
        trouble = f", {self.ejected} ejected" if self.ejected else ""
        trouble += ", second attempt" if self.again else ""
        return f"{self.endpoints} endpoints, {self.balancing}{trouble}"


CASES: Final = (
    *(Case(endpoints, balancing) for endpoints in (2, 50) for balancing in Balancing),
    *(Case(50, balancing, ejected=1) for balancing in Balancing),
    *(Case(50, balancing, again=True) for balancing in Balancing),
)
"""An outage is when many choices are made: it is held to the same bound."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Microseconds of CPU for each choice, repeat by repeat."""

    name: str
    micros: list[float]


async def choices(*, count: int, repeats: int) -> list[Choice]:
    """Every case: so many choices a repeat, all in flight at its end, after a first repeat that is not counted."""
    generations = [_generation(number) for number in range(count)]
    return [await _choice(case, generations, repeats) for case in CASES]


async def _choice(case: Case, generations: Sequence[Generation], repeats: int) -> Choice:
    pool = pool_of(case)
    try:
        micros = [_repeat(pool, generations, again=case.again) for _ in range(repeats + 1)]
    finally:
        for endpoint in pool.endpoints:
            await endpoint.backend.close()
    return Choice(case.name, micros[1:])


def pool_of(case: Case) -> Pool:
    """The endpoints of a case. Its first ones are ejected."""
    pool = Pool(ModelSpec(name=MODEL, backends=(), balancing=case.balancing), budget=RetryBudget())
    pool.update(pool.spec, [_endpoint(number, pool) for number in range(case.endpoints)])
    for endpoint in pool.endpoints[: case.ejected]:
        for _ in range(POLICY.probe_failures):
            pool.probed(endpoint, Readiness.DOWN)
    return pool


def _repeat(pool: Pool, generations: Sequence[Generation], *, again: bool) -> float:
    for endpoint in pool.endpoints:
        endpoint.reported(REPORT)
    failed: list[tuple[Endpoint, ...]] = [()] * len(generations)
    if again:
        first = [pool.lease(generation, MODEL) for generation in generations]
        failed = [(lease.endpoint,) for lease in first]
        _end(first)
    cpu = time.thread_time()
    leases = [pool.lease(generation, MODEL, avoid=avoid) for generation, avoid in zip(generations, failed, strict=True)]
    cpu = time.thread_time() - cpu
    _end(leases)
    return cpu / len(generations) * 1e6


def _end(leases: Sequence[Lease]) -> None:
    for lease in leases:
        lease.ended()


def _endpoint(number: int, pool: Pool) -> Endpoint:
    """With a real driver, which is never asked to connect."""
    url = f"http://127.0.0.1:{number + 1}"
    spec = BackendSpec(name=f"backend-{number}", urls=(url,))
    return Endpoint(
        OpenAIBackend(spec.name, url), spec, Address(url), ejection=Ejection(POLICY, on_change=pool.changed)
    )


def _generation(number: int) -> Generation:
    """A chat: of one of many sessions, with one of a few long system prompts in front."""
    system = f"{number % SYSTEM_PROMPTS} ".ljust(PROMPT_BYTES, "x")
    messages = (Message(role="system", content=system), Message(role="user", content=f"Question {number}?"))
    session = f"session-{number % SESSIONS}"
    return Generation(model=MODEL, messages=messages, session_id=session, size=PROMPT_BYTES)
