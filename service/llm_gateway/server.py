# SPDX-License-Identifier: Apache-2.0
"""The gRPC server: its options, its interceptors, its life from start to drain."""

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
from grpc_reflection.v1alpha import reflection

from llm_gateway.interceptors.access_log import AccessLog
from llm_gateway.interceptors.errors import Errors
from llm_gateway.interceptors.request_context import RequestContext
from llm_gateway.servicer import SERVICE

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

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


class PortInUseError(Exception):
    """The address cannot be listened on."""


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


def interceptors(*, timeout: float) -> Sequence[Around]:
    """What happens around every call, outermost first."""
    return (
        RequestContext(timeout=timeout),  # everything further in works on its record
        AccessLog(),  # sees the status that Errors decided on
        Errors(),  # innermost: whatever a handler raises is one of its business
    )


class Server:
    """Serves until it is told to end, then drains. `exit_code` says whether calls had to be cut off."""

    def __init__(
        self,
        servicer: LLMServicer,
        *,
        admission: Admission,
        health: HealthBoard,
        options: ServerOptions,
        timeout: float,
    ) -> None:
        self._admission = admission
        self._health = health
        self._options = options
        self._grpc = grpc.aio.server(interceptors=interceptors(timeout=timeout), options=channel_options(options))
        servicer.add_to(self._grpc)
        health.add_to(self._grpc)
        if options.reflection:
            reflection.enable_server_reflection((SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME), self._grpc)
        self._ending = asyncio.Event()
        self._hurry = asyncio.Event()
        self._delay = options.drain_delay
        self.port = 0

    @property
    def in_flight(self) -> int:
        """How many calls run."""
        return self._admission.statistics().in_flight

    async def start(self) -> None:
        """Listen. Raises PortInUseError."""
        host = _in_brackets(self._options.host)
        address = f"{host}:{self._options.port}"
        try:
            self.port = self._grpc.add_insecure_port(address)
        except RuntimeError as error:
            raise PortInUseError(f"cannot listen on {address}") from error
        await self._health.start()  # first: no probe is to meet a gateway that knows no name yet
        await self._grpc.start()
        _do_not_preempt_the_loop()
        LOG.info("listening", extra={"address": f"{host}:{self.port}"})

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
        LOG.info("draining", extra={"in_flight": self.in_flight})
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
