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

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from llm_gateway.observability.logging import places_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Context = grpc.aio.ServicerContext[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]

LOG = logging.getLogger(__name__)
LIVENESS = "liveness"
READINESS = "readiness"
OVERALL = ""

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Statuses(health_pb2_grpc.HealthServicer):
    """The status of each name: set here, asked for with Check, followed with Watch.

    Not grpc's own servicer, which holds a name's lock while it writes to a watcher: one that does not read would keep
    that name's status as it is, and whoever sets it waiting, for good. Here nobody waits for a watcher.
    """

    def __init__(self) -> None:
        self._statuses: dict[str, int] = {}
        self._changed = asyncio.Event()  # another one after each change

    def set(self, name: str, status: int) -> None:
        """Say it from now on."""
        if self._statuses.get(name) != status:
            self._statuses[name] = status
            self._changed.set()
            self._changed = asyncio.Event()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        """Give the status of a name; NOT_FOUND where there is none."""
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:
        """Send the status of a name, and each other one that follows; a slow watcher misses those in between."""
        sent = None
        while True:
            changed = self._changed
            status = self._statuses.get(request.service, UNKNOWN)
            if status != sent:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                sent = status
            else:
                await changed.wait()


class HealthBoard:
    """Keeps the names true. `backend_answers` is asked every `interval` seconds, from `start` to `stop`."""

    def __init__(self, service: str, backend_answers: Callable[[], Awaitable[bool]], *, interval: float) -> None:
        self._statuses = Statuses()
        self._needs_backend = (OVERALL, service)
        self._backend_answers = backend_answers
        self._interval = interval
        self._probing: asyncio.Task[None] | None = None
        self._draining = False

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register the health service."""
        health_pb2_grpc.add_HealthServicer_to_server(self._statuses, server)

    async def start(self) -> None:
        """Say that the gateway lives, and is ready; what needs a backend follows from the first probe."""
        for name in self._needs_backend:
            self._statuses.set(name, NOT_SERVING)
        self._statuses.set(LIVENESS, SERVING)
        self._statuses.set(READINESS, SERVING)
        self._probing = asyncio.create_task(self._probe(), name="health-probe")

    def drain(self) -> None:
        """Say that nobody new should come; the process lives on."""
        self._draining = True
        for name in (READINESS, *self._needs_backend):
            self._statuses.set(name, NOT_SERVING)

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
                self._statuses.set(name, SERVING if answers else NOT_SERVING)
            await asyncio.sleep(self._interval)

    async def _answers(self) -> bool:
        """Whether a backend answers; a bug on the way there counts as none, and must not end the probing."""
        try:
            return await self._backend_answers()
        except Exception as bug:
            where = {"traceback": places_of(bug)}
            LOG.error("a health probe failed on a bug", extra=where)  # noqa: TRY400 - what it says may be anybody's
            return False
