# SPDX-License-Identifier: Apache-2.0
"""The gateway's life as callers see it: from the first that may come to the last that is let go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_gateway.observability.journal import Journal, Phase
from llm_gateway.server.listening import grpc_server, in_brackets, interceptors, listen
from llm_gateway.servicer import SERVICE

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from llm_gateway.admission import Admission
    from llm_gateway.health import HealthBoard
    from llm_gateway.server.beside import AdminServer, MetricsServer
    from llm_gateway.server.listening import ServerOptions
    from llm_gateway.servicer import LLMServicer

LOG = logging.getLogger(__name__)
CLEANUP_WAIT = 5.0
"""Seconds that calls have to clean up once they were ended."""
STATUS_WAIT = 0.5
"""Seconds that the last statuses have to leave before connections are closed; an open health Watch lasts as long."""


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
        self._grpc = grpc_server(SERVICE, servicer, health, options, interceptors(self._journal, timeout=timeout))
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
        self.port = listen(self._grpc, self._options, "PORT")  # last: gRPC lets go only of a port that it serves
        await self._health.start()  # first: no probe is to meet a gateway that knows no name yet
        await self._grpc.start()
        _do_not_preempt_the_loop()
        self._journal.phase = Phase.SERVING
        LOG.info("listening", extra={"address": f"{in_brackets(self._options.host)}:{self.port}"})

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
