# SPDX-License-Identifier: Apache-2.0
"""The addresses behind a name: a headless Service has one for each of its pods."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llm_gateway.backends.lookup import look_up
from llm_gateway.observability.logging import places_of
from llm_gateway.upstream.spec import Address

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

LOG = logging.getLogger(__name__)
DEFAULT_PORTS = {"http": 80, "https": 443}


async def resolve(url: str) -> Sequence[Address]:
    """Every address behind a URL's host, in order. Raises OSError where the name cannot be resolved.

    They are all of one family, and of one that this machine has: a pod with an IPv4 and an IPv6 address is one replica.
    Where the name has both, it is the family that the system's resolver puts first.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]
    found = await look_up(host)
    addresses = sorted({ip for family, ip in found if family == found[0][0]})
    return [
        Address(f"{parts.scheme}://{_in_brackets(ip)}:{port}{parts.path}", None if ip == host else host)
        for ip in addresses
    ]


class Refresher:
    """Calls `refresh` every `interval` seconds, from `start` to `stop`; every `soon` while it says that something is
    missing, as the pods of a backend are that starts together with the gateway.
    """

    def __init__(self, refresh: Callable[[], Awaitable[bool]], *, interval: float, soon: float = 1.0) -> None:
        self._refresh = refresh
        self._interval = interval
        self._soon = min(soon, interval)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="resolve-backends")

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        complete = False
        while True:
            await asyncio.sleep(self._interval if complete else self._soon)
            try:
                complete = await self._refresh()
            except Exception as bug:  # it must not end the looking-up; the addresses stay as they were
                where = {"traceback": places_of(bug)}
                LOG.error("looking up the backends failed on a bug", extra=where)  # noqa: TRY400 - not by its words


def _in_brackets(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip
