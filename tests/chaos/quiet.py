# SPDX-License-Identifier: Apache-2.0
"""After the faults: everything serves again soon, nothing is left of any call, and the memory has not grown."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import grpc
from prometheus_client.parser import text_string_to_metric_families

from llm_gateway.v1 import admin_service_pb2, admin_service_pb2_grpc
from tests.chaos.log import RPCS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from llm_gateway.v1.admin_service_pb2 import GatewayStatus
    from tests.chaos.callers import Callers
    from tests.chaos.history import History
    from tests.chaos.log import Log
    from tests.chaos.stage import Stage
    from tests.chaos.wishes import Wisher

RECOVERED_IN = 15.0
"""Seconds after the last fault in which every endpoint serves again, and nothing is left of the calls before."""
POLL = 0.02
SPARE_DESCRIPTORS = 160
"""Connections that a burst has opened are kept for the next call, and the probes take them in turn: six a second, at
seven endpoints, for each of which a connection is kept four seconds. A leak would pass any bound in ten minutes."""
WARM_UP = 0.25
"""Of the samples of a run: caches fill, and the allocator finds its size."""
FEWEST = 8
"""Samples after the warm-up with which a growth can be told from chance: four in each half of what is compared."""
GROWTH = 8 * 1024 * 1024
"""Bytes by which the memory may grow from the first quarter to the last. In ten minutes, more than 10,000 calls lie
between the two: this is less than 1 kB of each, and what is kept by mistake is more. By chance it moves by 2 or 3 MB,
in steps of the allocator's."""
USUAL_HEALTH = {
    admin_service_pb2.BackendStatus.HEALTH_HEALTHY,
    admin_service_pb2.BackendStatus.HEALTH_PROBATION,  # of the fallback: nobody needs it, so nobody tries it
}


class Unquiet(Exception):
    """Something is not as it should be."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The gateway's process in a quiet moment."""

    descriptors: int
    resident: int


class Quiet:
    """Looks at a gateway to which nothing happens."""

    def __init__(self, stage: Stage, callers: Callers, wisher: Wisher, admin: grpc.aio.Channel) -> None:
        self._stage = stage
        self._callers = callers
        self._wisher = wisher
        self._admin = admin_service_pb2_grpc.AdminServiceStub(admin)
        self._asked = 0
        self.histories: list[History] = []
        """The calls that were made to see who serves."""

    async def recovery(self) -> tuple[float, list[str]]:
        """How long it took until every endpoint served, and what is wrong where it took too long."""
        missing = self._stage.endpoints()
        return await _within(RECOVERED_IN, lambda: self._everybody_serves(missing))

    async def left_behind(self, log: Log, most_descriptors: int | None = None) -> list[str]:
        """What is left of calls, at the gateway or at a backend; and calls that were not counted."""

        async def nothing_is_left() -> None:
            confirm_idle(await self._status())
            confirm_counted(await self._metrics(), log.calls)
            for name, simulator in self._stage.simulators.items():
                now = await simulator.statistics()
                if now.get("running", 1) or now.get("waiting", 1):
                    raise Unquiet(f"backend {name} is not idle: {now}")
            if most_descriptors is not None and (found := self.sample().descriptors) > most_descriptors:
                raise Unquiet(f"{found} descriptors are open, and there were {most_descriptors}")

        return (await _within(RECOVERED_IN, nothing_is_left))[1]

    def sample(self) -> Sample:
        """The process now."""
        process = Path(f"/proc/{self._stage.gateway.pid}")
        pages = int((process / "statm").read_text().split()[1])
        return Sample(len(list((process / "fd").iterdir())), pages * os.sysconf("SC_PAGE_SIZE"))

    async def _everybody_serves(self, missing: dict[str, set[str]]) -> None:
        """Make calls until each endpoint of a first tier has served one, and see that no other one is shut out."""
        for model, endpoints in missing.items():
            if endpoints:
                self._asked += 1
                history = await self._callers.call(self._wisher.plain(f"quiet-{self._asked}", model))
                self.histories.append(history)
                if history.ok and history.started is not None:
                    endpoints.discard(history.started.backend)
        if any(missing.values()):
            raise Unquiet(f"there are endpoints that have not served: {missing}")
        for served in (await self._status()).models:
            for backend in served.backends:
                if backend.health not in USUAL_HEALTH:
                    raise Unquiet(f"{backend.name} of {served.name} is {backend.Health.Name(backend.health)}")

    async def _status(self) -> GatewayStatus:
        return (await self._admin.GetStatus(admin_service_pb2.GetStatusRequest(), timeout=5)).status

    async def _metrics(self) -> str:
        async with aiohttp.ClientSession() as session, session.get(f"http://{self._stage.metrics}/metrics") as response:
            return await response.text()


def confirm_idle(status: GatewayStatus) -> None:
    """Raises Unquiet where the gateway says that anything runs or waits."""
    running = [call.request_id for call in status.calls]
    seats = [status.seats, *(model.seats for model in status.models)]
    busy = [backend.name for model in status.models for backend in model.backends if backend.in_flight]
    if running or busy or any(seat.in_flight or seat.queued or seat.queued_bytes for seat in seats):
        raise Unquiet(f"the gateway is not idle: calls {running}, backends {busy}, seats {seats}")


def confirm_counted(page: str, lines: int) -> None:
    """Raises Unquiet where calls began that have not ended, or ended without a line in the log."""
    totals = dict.fromkeys(("llm_gateway_calls_started_total", "llm_gateway_calls_total"), 0.0)
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name in totals and sample.labels["rpc"] in RPCS:
                totals[sample.name] += sample.value
    began, ended = totals.values()
    if not began == ended == lines:
        raise Unquiet(f"{began:.0f} calls began, {ended:.0f} ended, and {lines} are in the log")


def growth(resident: Sequence[int]) -> int | None:
    """By how many bytes the memory grew, from the first quarter after the warm-up to the last; None: who knows."""
    warm = resident[round(len(resident) * WARM_UP) :]
    if len(warm) < FEWEST:
        return None
    quarter = len(warm) // 4
    return int(statistics.median(warm[-quarter:]) - statistics.median(warm[:quarter]))


def grew(resident: Sequence[int]) -> list[str]:
    """The violation, if it is one."""
    found = growth(resident)
    return [] if found is None or found <= GROWTH else [f"memory: it grew by {found / 1024:.0f} kB"]


async def _within(limit: float, confirm: Callable[[], Awaitable[None]]) -> tuple[float, list[str]]:
    """How long it takes until something is so, and what is not so yet at the limit."""
    began = time.monotonic()
    last = "nothing has been found out"
    try:
        async with asyncio.timeout(limit):
            while True:
                try:
                    await confirm()
                    break
                except Unquiet as unquiet:
                    last = str(unquiet)
                except (grpc.aio.AioRpcError, aiohttp.ClientError) as error:
                    last = f"the gateway does not answer its operator: {error}"
                await asyncio.sleep(POLL)
    except TimeoutError:
        return limit, [f"quiet: after {limit:.0f} s, {last}"]
    return time.monotonic() - began, []
