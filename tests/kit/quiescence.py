# SPDX-License-Identifier: Apache-2.0
"""Nothing is left behind: the tasks and the TCP connections of a test are gone when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path

PATIENCE = 5.0
LISTEN = "0A"
ESTABLISHED = "01"


def tcp_sockets() -> int:
    """How many TCP sockets of this process listen or are connected."""
    ours = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            ours.add(str(link.readlink()))
    count = 0
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        for row in Path(table).read_text().splitlines()[1:]:
            fields = row.split()
            count += fields[3] in {LISTEN, ESTABLISHED} and f"socket:[{fields[9]}]" in ours
    return count


class Baseline:
    """What there was before a test; `regained` waits until there is no more than that."""

    def __init__(self) -> None:
        self._tasks = asyncio.all_tasks()
        self._sockets = tcp_sockets() if os.path.exists("/proc/self/net/tcp") else None
        self._current = asyncio.current_task()

    def left_behind(self) -> list[str]:
        """What is there now and was not before."""
        left = [f"task {task.get_name()}" for task in asyncio.all_tasks() - self._tasks - {asyncio.current_task()}]
        if self._sockets is not None and (extra := tcp_sockets() - self._sockets) > 0:
            left.append(f"{extra} TCP sockets")
        return left

    async def regained(self) -> None:
        """Wait until nothing is left behind; fail with what is, if that does not happen soon."""
        give_up = time.monotonic() + PATIENCE
        while (left := self.left_behind()) and time.monotonic() < give_up:  # noqa: ASYNC110 - nobody tells of sockets
            await asyncio.sleep(0.001)
        assert not left, f"left behind: {', '.join(left)}"
