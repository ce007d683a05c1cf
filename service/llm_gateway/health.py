# SPDX-License-Identifier: Apache-2.0
"""What `grpc.health.v1` says, and when: the names that probes and callers ask for.

`liveness` is about the process and nothing else. `readiness` is about this gateway: configured, and not draining.
"" and the service's name say in addition that a backend answers. Kubernetes asks for `readiness`, so that callers of a
gateway whose backends are all down get typed errors and not a Service without endpoints.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from grpc_health.v1 import health, health_pb2, health_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import grpc

LOG = logging.getLogger(__name__)
LIVENESS = "liveness"
READINESS = "readiness"
OVERALL = ""

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class HealthBoard:
    """Keeps the names true. `backend_answers` is asked every `interval` seconds, from `start` to `stop`."""

    def __init__(self, service: str, backend_answers: Callable[[], Awaitable[bool]], *, interval: float) -> None:
        self._servicer = health.aio.HealthServicer()
        self._needs_backend = (OVERALL, service)
        self._backend_answers = backend_answers
        self._interval = interval
        self._probing: asyncio.Task[None] | None = None
        self._draining = False

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register the health service."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def start(self) -> None:
        """Say that the gateway lives, and is ready; what needs a backend follows from the first probe."""
        for name in self._needs_backend:  # a new servicer says SERVING for "" before anybody has looked
            await self._servicer.set(name, NOT_SERVING)
        await self._servicer.set(LIVENESS, SERVING)
        await self._servicer.set(READINESS, SERVING)
        self._probing = asyncio.create_task(self._probe(), name="health-probe")

    async def drain(self) -> None:
        """Say that nobody new should come; the process lives on."""
        self._draining = True
        for name in (READINESS, *self._needs_backend):
            await self._servicer.set(name, NOT_SERVING)

    async def stop(self) -> None:
        """Ask the backends no more."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)

    async def _probe(self) -> None:
        while True:
            answers = await self._answers()
            if self._draining:
                return
            for name in self._needs_backend:
                await self._servicer.set(name, SERVING if answers else NOT_SERVING)
            await asyncio.sleep(self._interval)

    async def _answers(self) -> bool:
        """Whether a backend answers; a bug on the way there counts as none, and must not end the probing."""
        try:
            return await self._backend_answers()
        except Exception:
            LOG.exception("a health probe failed on a bug")
            return False
