# SPDX-License-Identifier: Apache-2.0
"""The servers: their options, their interceptors, their life from start to drain.

gRPC for callers and, on a port of its own, for the operator; HTTP for Prometheus.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from aiohttp import web
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.aiohttp import make_aiohttp_handler

from llm_gateway.admin import SERVICE as ADMIN_SERVICE
from llm_gateway.interceptors.access_log import AccessLog
from llm_gateway.interceptors.errors import Errors, LastResort
from llm_gateway.interceptors.request_context import RequestContext
from llm_gateway.observability.journal import Journal, Phase
from llm_gateway.servicer import SERVICE

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from prometheus_client.registry import Collector

    from llm_gateway.admin import AdminServicer
    from llm_gateway.admission import Admission
    from llm_gateway.health import HealthBoard
    from llm_gateway.interceptors.around import Around
    from llm_gateway.servicer import LLMServicer

LOG = logging.getLogger(__name__)
HEALTH_SERVICE = "grpc.health.v1.Health"
CLEANUP_WAIT = 5.0
"""Seconds that calls have to clean up once they were ended."""
STATUS_WAIT = 0.5
"""Seconds that the last statuses have to leave before connections are closed; an open health Watch lasts as long."""
LAST_WORDS_WAIT = 0.1
"""The same for the operator and for Prometheus, who have had time until then."""


class PortInUseError(Exception):
    """The address cannot be listened on; `setting` is the one that chooses another port."""

    def __init__(self, address: str, setting: str) -> None:
        super().__init__(f"cannot listen on {address}")
        self.setting = setting


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How the server listens and drains. Times are in seconds, sizes in bytes."""

    host: str = "0.0.0.0"  # noqa: S104 - a pod's address is not known in advance
    port: int = 50052
    reflection: bool = True
    max_message_bytes: int = 32 * 1024 * 1024
    max_metadata_bytes: int = 16 * 1024
    max_concurrent_streams: int = 2048
    keepalive_time: float = 30.0
    keepalive_timeout: float = 10.0
    min_ping_interval: float = 10.0
    max_connection_age: float | None = None
    drain_delay: float = 2.0
    drain_grace: float = 600.0


def channel_options(options: ServerOptions) -> list[tuple[str, int]]:
    """gRPC's options. It ignores a misspelt one in silence, so each has a test that sees its effect."""
    settings = [
        # Our own limit answers with a typed error; gRPC's, above it, answers bare.
        ("grpc.max_receive_message_length", 2 * options.max_message_bytes),
        # Equal limits, or metadata between the two is refused at random.
        ("grpc.max_metadata_size", options.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", options.max_metadata_bytes),
        # Above what the admission allows, so that its typed error comes first and callers do not queue in silence.
        ("grpc.max_concurrent_streams", options.max_concurrent_streams),
        # Find out about callers that are gone, and about those that are frozen: keepalive alone does not see them.
        ("grpc.keepalive_time_ms", _ms(options.keepalive_time)),
        ("grpc.keepalive_timeout_ms", _ms(options.keepalive_timeout)),
        ("grpc.http2.ping_timeout_ms", _ms(options.keepalive_timeout)),
        ("grpc.keepalive_permit_without_calls", 1),
        # Callers that ping are welcome, within reason. There is no "recv" in this name.
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(options.min_ping_interval)),
        # Two gateways on one port would share it in silence.
        ("grpc.so_reuseport", 0),
    ]
    if options.max_connection_age is not None:
        # Without a grace, running streams outlive their connection's age.
        settings.append(("grpc.max_connection_age_ms", _ms(options.max_connection_age)))
    return settings


def interceptors(journal: Journal, *, timeout: float) -> Sequence[Around]:
    """What happens around every call, outermost first."""
    return (
        RequestContext(timeout=timeout),  # everything further in works on its record
        LastResort(),  # a bug in one of those below
        AccessLog(journal),  # sees the status that Errors decided on
        Errors(),  # innermost: whatever a handler raises is one of its business
    )


class Server:
    """Serves until it is told to end, then drains.

    `admin` and `metrics` are served beside it where they are set: started before it and stopped after it, so that they
    tell of a drain too.
    """

    def __init__(
        self,
        servicer: LLMServicer,
        *,
        admission: Admission,
        health: HealthBoard,
        options: ServerOptions,
        timeout: float,
        journal: Journal | None = None,
    ) -> None:
        self._admission = admission
        self._health = health
        self._options = options
        self._journal = journal or Journal()
        self._grpc = _grpc_server(SERVICE, servicer, health, options, interceptors(self._journal, timeout=timeout))
        self._ending = asyncio.Event()
        self._hurry = asyncio.Event()
        self._delay = options.drain_delay
        self.port = 0
        self.admin: AdminServer | None = None
        self.metrics: MetricsServer | None = None

    @property
    def in_flight(self) -> int:
        """How many calls run."""
        return self._admission.statistics().in_flight

    @property
    def queued(self) -> int:
        """How many calls wait for a seat."""
        return self._admission.statistics().queued

    async def start(self) -> None:
        """Listen. Raises PortInUseError."""
        for beside in self._beside():
            await beside.start()
        self.port = _listen(self._grpc, self._options, "PORT")  # last: gRPC lets go only of a port that it serves
        await self._health.start()  # first: no probe is to meet a gateway that knows no name yet
        await self._grpc.start()
        _do_not_preempt_the_loop()
        self._journal.phase = Phase.SERVING
        LOG.info("listening", extra={"address": f"{_in_brackets(self._options.host)}:{self.port}"})

    def heed_signals(self) -> None:
        """Drain at SIGTERM and SIGINT, once `run` is reached. Said before `start`, lest one that is early kills."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.end)
        loop.add_signal_handler(signal.SIGINT, self._interrupted)

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT, then drain. Gives the exit code: 0, or 1 if calls were cut off."""
        self.heed_signals()
        try:
            await self._ending.wait()
            return await self.drain()
        finally:
            loop = asyncio.get_running_loop()
            loop.remove_signal_handler(signal.SIGTERM)
            loop.remove_signal_handler(signal.SIGINT)

    def end(self) -> None:
        """Begin to drain; said twice, end at once."""
        if self._ending.is_set():
            self._hurry.set()
        self._ending.set()

    async def drain(self) -> int:
        """End in order: say so, admit for a while, then nobody new, wait for the running calls, close."""
        LOG.info("draining", extra={"in_flight": self.in_flight, "queued": self.queued})
        self._journal.phase = Phase.DRAINING
        self._health.drain()
        await self._unless_hurried(asyncio.sleep(self._delay))
        self._admission.drain()
        await self._unless_hurried(self._admission.drained(), self._options.drain_grace)
        cut_off = self.in_flight
        self._admission.expire()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._admission.drained(), CLEANUP_WAIT)
        await self.stop()
        LOG.info("stopped", extra={"cut_off": cut_off})
        return 1 if cut_off else 0

    async def stop(self) -> None:
        """Close the connections, and what still runs on them."""
        await self._health.stop()
        await self._grpc.stop(STATUS_WAIT)
        for beside in self._beside():
            await beside.stop()

    def _beside(self) -> Sequence[AdminServer | MetricsServer]:
        return [beside for beside in (self.admin, self.metrics) if beside is not None]

    async def _unless_hurried(self, waiting: Coroutine[Any, Any, None], limit: float | None = None) -> None:
        """Wait for something, until it is over, `limit` seconds have passed, or somebody hurries us."""
        tasks = (asyncio.create_task(waiting), asyncio.create_task(self._hurry.wait()))
        try:
            await asyncio.wait(tasks, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        finally:  # also where the drain itself is cancelled: `wait` leaves alone what it waits for
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _interrupted(self) -> None:
        """Ctrl-C: nobody looks for us through a Service, so there is nothing to wait for before the drain."""
        self._delay = 0.0
        self.end()


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
        self._grpc = _grpc_server(ADMIN_SERVICE, servicer, health, options, interceptors(journal, timeout=timeout))
        self.port = 0

    async def start(self) -> None:
        """Listen. Raises PortInUseError."""
        self.port = _listen(self._grpc, self._options, "ADMIN__PORT")
        await self._grpc.start()
        LOG.info("listening for the operator", extra={"address": f"{_in_brackets(self._options.host)}:{self.port}"})

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
        address = f"{_in_brackets(self._host)}:{self._asked_port}"
        try:
            await web.TCPSite(self._runner, self._host, self._asked_port).start()
        except OSError as error:
            raise PortInUseError(address, "METRICS__PORT") from error
        self.port = int(self._runner.addresses[0][1])
        LOG.info("listening for Prometheus", extra={"address": f"{_in_brackets(self._host)}:{self.port}"})

    async def stop(self) -> None:
        """Close the connections."""
        await self._runner.cleanup()


def _grpc_server(
    service: str,
    servicer: LLMServicer | AdminServicer,
    health: HealthBoard,
    options: ServerOptions,
    around: Sequence[Around],
) -> grpc.aio.Server:
    """A server of one of our services, and of what belongs to each: health, and reflection where it is wanted."""
    server = grpc.aio.server(interceptors=around, options=channel_options(options))
    servicer.add_to(server)
    health.add_to(server)
    if options.reflection:
        reflection.enable_server_reflection((service, HEALTH_SERVICE, reflection.SERVICE_NAME), server)
    return server


def _listen(server: grpc.aio.Server, options: ServerOptions, setting: str) -> int:
    """Bind to the address of the options; gives the port. Raises PortInUseError."""
    address = f"{_in_brackets(options.host)}:{options.port}"
    try:
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise PortInUseError(address, setting) from error


def _do_not_preempt_the_loop() -> None:
    """Let gRPC's threads wait for the event loop's turn to end, where they share its core.

    A thread of gRPC wakes for every operation that completes, only to tell the loop of it; as a batch task it does not
    push the loop off its core for that, and tells of several at once. Measured on one core: a fifth of the CPU for each
    token. On an idle core it runs at once all the same.
    """
    if not hasattr(os, "SCHED_BATCH"):
        return  # not Linux
    loop_thread = threading.get_native_id()
    for entry in Path("/proc/self/task").iterdir():
        if int(entry.name) != loop_thread:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.sched_setscheduler(int(entry.name), os.SCHED_BATCH, os.sched_param(0))


def _in_brackets(host: str) -> str:
    """A host as it goes before a port: the colons of an IPv6 address must not be taken for the port's."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
