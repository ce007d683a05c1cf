# SPDX-License-Identifier: Apache-2.0
"""What is served beside the callers: AdminService for the operator, and the metrics for Prometheus."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.aiohttp import make_aiohttp_handler

from llm_gateway.admin import SERVICE
from llm_gateway.server.listening import PortInUseError, grpc_server, in_brackets, interceptors, listen

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from llm_gateway.admin import AdminServicer
    from llm_gateway.health import HealthBoard
    from llm_gateway.observability.journal import Journal
    from llm_gateway.server.listening import ServerOptions

LOG = logging.getLogger(__name__)
LAST_WORDS_WAIT = 0.1
"""Seconds that the last answers have to leave; whom they are for has had time until then."""


class AdminServer:
    """AdminService on a port of its own, with reflection and health like the main one."""

    def __init__(
        self,
        servicer: AdminServicer,
        *,
        health: HealthBoard,
        options: ServerOptions,
        timeout: float,
        journal: Journal,
    ) -> None:
        self._servicer = servicer
        self._options = options
        self._grpc = grpc_server(SERVICE, servicer, health, options, interceptors(journal, timeout=timeout))
        self.port = 0

    async def start(self) -> None:
        """Listen. Raises PortInUseError."""
        self.port = listen(self._grpc, self._options, "ADMIN__PORT")
        await self._grpc.start()
        LOG.info("listening for the operator", extra={"address": f"{in_brackets(self._options.host)}:{self.port}"})

    async def stop(self) -> None:
        """Let those who watch go, and whoever does not read at once."""
        self._servicer.close()
        await self._grpc.stop(LAST_WORDS_WAIT)


class MetricsServer:
    """`/metrics` for Prometheus: what a collector gives, and what the kernel knows of the process."""

    def __init__(self, collector: Collector, *, host: str, port: int) -> None:
        self._host = host
        self._asked_port = port
        registry = CollectorRegistry()
        registry.register(collector)
        ProcessCollector(registry=registry)
        application = web.Application()
        application.router.add_get("/metrics", make_aiohttp_handler(registry))
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=LAST_WORDS_WAIT)
        self.port = 0

    async def start(self) -> None:
        """Listen. Raises PortInUseError."""
        await self._runner.setup()
        address = f"{in_brackets(self._host)}:{self._asked_port}"
        try:
            await web.TCPSite(self._runner, self._host, self._asked_port).start()
        except OSError as error:
            raise PortInUseError(address, "METRICS__PORT") from error
        self.port = int(self._runner.addresses[0][1])
        LOG.info("listening for Prometheus", extra={"address": f"{in_brackets(self._host)}:{self.port}"})

    async def stop(self) -> None:
        """Close the connections."""
        await self._runner.cleanup()
