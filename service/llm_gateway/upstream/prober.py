# SPDX-License-Identifier: Apache-2.0
"""Asks every endpoint, all the time, whether it can serve and how busy it is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_gateway.backends.base import Readiness
from llm_gateway.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llm_gateway.upstream.endpoint import Endpoint
    from llm_gateway.upstream.pool import Pool

LOG = logging.getLogger(__name__)
JITTER = 0.1
"""Share by which an interval varies, lest fifty endpoints are asked at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeIntervals:
    """How often an endpoint is asked whether it serves, how long it has to answer, and how often how busy it is (None:
    never). In seconds.
    """

    readiness: float = 2.0
    timeout: float = 2.0
    load: float | None = 1.0


class Prober:
    """Watches endpoints, each with tasks of its own: one that hangs delays no other."""

    def __init__(self, intervals: ProbeIntervals) -> None:
        self._intervals = intervals
        self._tasks: dict[Endpoint, list[asyncio.Task[None]]] = {}
        self._readiness: dict[Endpoint, Readiness] = {}
        self._known: set[Endpoint] = set()
        """Those that have listed their model since they came up."""
        self._probed = asyncio.Event()

    def watch(self, pool: Pool, endpoint: Endpoint) -> None:
        """Ask an endpoint from now on, and tell its pool."""
        pause = self._intervals.readiness * endpoint.backend.probe_patience
        tasks = [self._every(pause, lambda: self._probe(pool, endpoint))]
        if self._intervals.load is not None:
            tasks.append(self._every(self._intervals.load, lambda: self._read_load(endpoint)))
        self._tasks[endpoint] = tasks

    def forget(self, endpoint: Endpoint) -> None:
        """Ask it no more."""
        for task in self._tasks.pop(endpoint, ()):
            task.cancel()
        self._readiness.pop(endpoint, None)
        self._known.discard(endpoint)
        self._probed.set()

    async def any_ready(self) -> bool:
        """Whether any endpoint that gets calls answered its last probe; while none did, those that are new are waited
        for.
        """
        while True:
            found = {self._readiness.get(endpoint) for endpoint in self._tasks if _gets_calls(endpoint)}
            if Readiness.READY in found or None not in found:
                return Readiness.READY in found
            self._probed.clear()
            await self._probed.wait()

    async def close(self) -> None:
        """Ask nobody any more."""
        tasks = [task for tasks in self._tasks.values() for task in tasks]
        for endpoint in tuple(self._tasks):
            self.forget(endpoint)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _every(self, interval: float, ask: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        return asyncio.create_task(_repeat(interval, ask), name="probe")

    async def _probe(self, pool: Pool, endpoint: Endpoint) -> None:
        readiness = Readiness.SILENT
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._intervals.timeout):
                readiness = await endpoint.backend.probe()
        pool.probed(endpoint, readiness)
        self._readiness[endpoint] = readiness
        self._probed.set()
        if readiness is not Readiness.READY:
            self._known.discard(endpoint)  # it may come up as another one
        elif endpoint.spec.model is not None and endpoint not in self._known:
            await self._learn(endpoint, endpoint.spec.model)

    async def _learn(self, endpoint: Endpoint, model: str) -> None:
        """Find out the model's context, for those who ask what there is. Until it is listed every probe tries again."""
        with contextlib.suppress(GatewayError, TimeoutError):
            async with asyncio.timeout(self._intervals.timeout):
                for listed in await endpoint.backend.list_models():
                    if listed.name == model:
                        endpoint.context_length = listed.context_length
                        self._known.add(endpoint)

    async def _read_load(self, endpoint: Endpoint) -> None:
        report = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._intervals.timeout):
                report = await endpoint.backend.load()
        endpoint.reported(report)


def _gets_calls(endpoint: Endpoint) -> bool:
    return endpoint.weight > 0 and not endpoint.retiring


async def _repeat(interval: float, ask: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await ask()
        except Exception:  # a bug must not end the probing; the endpoint stays as it was
            LOG.exception("a probe failed on a bug")
        await asyncio.sleep(interval * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311 - spreads load, guards nothing
