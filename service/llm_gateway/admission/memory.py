# SPDX-License-Identifier: Apache-2.0
"""How much of the memory that we may use is used: by the control group (v2 or v1), else by the process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_LIMIT = 1 << 60
"""What v1 says where there is no limit is as much as fits its counter."""


@dataclass(frozen=True, slots=True)
class _Hierarchy:
    """Where one version of control groups keeps its figures; `reclaimable` is a line of memory.stat."""

    root: str
    usage: str
    limit: str
    reclaimable: str


V2 = _Hierarchy("", "memory.current", "memory.max", "inactive_file")
V1 = _Hierarchy("memory", "memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file")


class Memory:
    """The share of memory in use. The group that is nearest to its limit counts, ours or one around it.

    Cached files that can be dropped at any time do not count, as for the kubelet: a log file that was written is not a
    shortage. `limit`, in bytes, is for where no group has one. The directories are given in tests only.
    """

    def __init__(
        self, limit: int | None = None, *, cgroup: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc/self")
    ) -> None:
        self._limit = limit
        self._proc = proc
        self._groups = tuple(_groups(cgroup, proc))

    def share(self) -> float | None:
        """What is used now, of what may be; None where there is no limit."""
        shares = [share for directory, kind in self._groups if (share := _share(directory, kind)) is not None]
        if shares:
            return max(shares)
        return None if self._limit is None else self._resident() / self._limit

    def _resident(self) -> int:
        pages = int((self._proc / "statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


def _groups(cgroup: Path, proc: Path) -> Iterator[tuple[Path, _Hierarchy]]:
    """Our group and those around it, as far as they can be seen: in a container, its own is the root."""
    try:
        lines = (proc / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        kind = V1 if controllers else V2
        root = cgroup / kind.root
        own = root / path.lstrip("/")
        for directory in (own, *own.parents):
            if directory.is_relative_to(root):
                yield directory, kind


def _share(directory: Path, kind: _Hierarchy) -> float | None:
    try:
        limit = (directory / kind.limit).read_text().strip()
        if limit == "max" or int(limit) >= NO_LIMIT:
            return None
        usage = int((directory / kind.usage).read_text())
        stat = (directory / "memory.stat").read_text()
    except OSError:
        return None  # no such group, or none that can be read here
    reclaimable = next((line for line in stat.splitlines() if line.startswith(f"{kind.reclaimable} ")), "0 0")
    return max(0, usage - int(reclaimable.split()[1])) / max(1, int(limit))
