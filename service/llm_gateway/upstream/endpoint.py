# SPDX-License-Identifier: Apache-2.0
"""One replica of a configured backend: its driver, what is outstanding on it, and whether it is trusted with calls."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from llm_gateway.upstream.cooling import Cooling
from llm_gateway.upstream.ejection import Health

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_gateway.backends.base import Backend, Load
    from llm_gateway.upstream.ejection import Ejection
    from llm_gateway.upstream.pool import Lease
    from llm_gateway.upstream.spec import Address, BackendSpec

PROMPT_BYTES = 16 * 1024
"""A prompt of this size is as much work again as a call without one."""
KV_FULL = 0.8
"""From this share of the KV cache on, a vLLM is about to preempt what runs."""
KV_WEIGHT = 50.0
REPORT_TTL = 5.0
"""Seconds for which a backend's word about itself is believed."""


class Endpoint:
    """What calls are sent to. `load` is the balancer's measure: calls, and large prompts for more than one.

    What others send to the same backend counts as far as its own metrics tell of it.
    """

    __slots__ = ("_others", "_reported_at", "_until_idle", "_work", "address", "backend", "context_length",
                 "cooling", "ejection", "in_flight", "name", "report", "spec", "waiting")  # fmt: skip

    def __init__(self, backend: Backend, spec: BackendSpec, address: Address, *, ejection: Ejection) -> None:
        self.backend = backend
        self.spec = spec
        """What is configured now."""
        self.address = address
        self.name = backend.name
        self.ejection = ejection
        self.in_flight = 0
        self.cooling = Cooling()
        self.context_length: int | None = None
        self.report: Load | None = None
        self.waiting: set[Lease] = set()
        """The attempts at it whose first token has not come."""
        self._reported_at = 0.0
        self._work = 0.0
        self._others = 0.0
        self._until_idle: Callable[[], None] | None = None

    @property
    def weight(self) -> int:
        """Its share among the endpoints of its tier."""
        return self.spec.weight

    @property
    def takes_calls(self) -> bool:
        """Whether new calls may be sent to it."""
        return self.spec.weight > 0 and self.ejection.available()

    @property
    def better_than_nobody(self) -> bool:
        """Whether they may where no endpoint takes calls."""
        return self.spec.weight > 0 and self.ejection.better_than_nobody

    @property
    def healthy(self) -> bool:
        """Whether it takes calls, and as many as come."""
        return self.spec.weight > 0 and self.ejection.health is Health.HEALTHY

    @property
    def retiring(self) -> bool:
        """Whether it gets no more calls, and only ends those it has."""
        return self._until_idle is not None

    @property
    def load(self) -> float:
        """What is outstanding on it."""
        if self._others and time.monotonic() - self._reported_at > REPORT_TTL:
            self.reported(None)
        return self._work + self._others

    def begin(self, work: float) -> None:
        """Say that a call is sent to it."""
        self.in_flight += 1
        self._work += work

    def end(self, work: float) -> None:
        """Say that the call has left it."""
        self.in_flight -= 1
        self._work = self._work - work if self.in_flight else 0.0  # no dust of additions stays
        if self._until_idle is not None and not self.in_flight:
            self._until_idle()

    def reported(self, report: Load | None) -> None:
        """Take what the backend says of itself; None: it says nothing any more."""
        self.report = report
        self._others = 0.0
        if report is None:
            return
        self._reported_at = time.monotonic()
        self._others = max(0.0, float(report.running + report.waiting - self.in_flight)) + report.waiting
        if report.kv_usage is not None:
            self._others += KV_WEIGHT * max(0.0, report.kv_usage - KV_FULL)

    def retire(self, idle: Callable[[], None]) -> None:
        """Say that it gets no more calls; `idle` is called once the last has left, which may be now."""
        self._until_idle = idle
        if not self.in_flight:
            idle()

    def __repr__(self) -> str:
        return f"<Endpoint {self.name} at {self.address.url}: {self.in_flight} in flight, {self.ejection.health}>"


def work_of(size: int) -> float:
    """How much work a call is whose request has `size` bytes."""
    return 1.0 + size / PROMPT_BYTES
