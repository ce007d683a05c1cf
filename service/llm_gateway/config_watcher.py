# SPDX-License-Identifier: Apache-2.0
"""Sees that the configuration file has changed, and puts what is right in it into force; what is wrong changes nothing.

It looks at the content again and again, since nobody would tell of it: a ConfigMap is mounted as a directory of links
that are swapped at once, and a file system on the network notifies of nothing.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING

from llm_gateway.config_file import ConfigFileError, digests
from llm_gateway.observability.journal import ConfigStatistics
from llm_gateway.observability.logging import places_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from llm_gateway.config_file import Config

LOG = logging.getLogger(__name__)
WRONG = "the configuration file is wrong; what was in force before stays so"
BUG = "the configuration was not put into force, on a bug; what was in force before stays so"


class ConfigWatcher:
    """Looks at the file and at its keys every `interval` seconds.

    What has changed is read once it has stood still between two looks: before, it may be half written. `load` reads it
    in a thread; `apply` puts it into force, at once or not at all.
    """

    def __init__(
        self,
        path: Path,
        current: Config,
        *,
        load: Callable[[], Config],
        apply: Callable[[Config], Awaitable[None] | None],
        interval: float,
    ) -> None:
        self._path = path
        self._current = current
        self._load = load
        self._apply = apply
        self._interval = interval
        self._known = current.digests
        self._last_look = current.digests
        self._last_reload_ok = True
        self._reloads_ok = 0
        self._reloads_failed = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._watch(), name="config-watcher")

    async def stop(self) -> None:
        """Look no more; what is in force stays so."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None

    def statistics(self) -> ConfigStatistics:
        """What is in force, and how the reloads went."""
        return ConfigStatistics(self._current.version, self._last_reload_ok, self._reloads_ok, self._reloads_failed)

    async def look(self) -> None:
        """Look once; what `start` does again and again. Raises nothing, whatever the file holds."""
        try:
            await self._look()
        except Exception as bug:
            # A gateway that no longer heeds its file would be found out by the next outage.
            self._know(self._last_look)
            self._fail(BUG, traceback=places_of(bug))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self.look()

    async def _look(self) -> None:
        """Read what has changed, once it stands still."""
        before, self._last_look = self._last_look, await asyncio.to_thread(digests, self._known)
        if self._last_look == self._known or self._last_look != before:
            return
        try:
            config = await asyncio.to_thread(self._load)
        except ConfigFileError as error:
            self._know(error.digests)
            self._fail(WRONG, faults=list(error.lines))
        else:
            self._know(config.digests)
            await self._take(config)

    def _know(self, content: Mapping[Path, bytes | None]) -> None:
        """This content is dealt with, be it right or wrong."""
        self._known = self._last_look = content

    async def _take(self, config: Config) -> None:
        """Put a configuration into force, unless it is there already."""
        old = self._current.version
        if config.version != old:
            applying = self._apply(config)
            if inspect.isawaitable(applying):
                await applying
            self._current = config
            self._reloads_ok += 1
            LOG.info("the configuration has changed", extra=self._where(old_version=old))
        elif not self._last_reload_ok:
            LOG.info("the configuration file is again what is in force", extra=self._where())
        self._last_reload_ok = True

    def _fail(self, message: str, **fields: object) -> None:
        self._last_reload_ok = False
        self._reloads_failed += 1
        LOG.error(message, extra=self._where(**fields))

    def _where(self, **fields: object) -> dict[str, object]:
        return {"config_file": str(self._path), "version": self._current.version, **fields}
