# SPDX-License-Identifier: Apache-2.0
"""Reads files and remembers what was in them, so that a change of any of them is seen."""

from __future__ import annotations

import hashlib
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

MAX_BYTES = 1024 * 1024


class Reader:
    """`digests` has what every file that was read, or looked for, held; None where it could not be read."""

    def __init__(self) -> None:
        self.digests: dict[Path, bytes | None] = {}

    def read(self, path: Path) -> bytes:
        """What is in a file. Raises ValueError that says why it cannot be read."""
        self.digests[path] = None
        try:
            data = _read(path)
        except FileNotFoundError:
            raise ValueError("there is no such file") from None
        except OSError as error:
            raise ValueError(f"cannot be read: {error.strerror}") from None
        self.digests[path] = hashlib.sha256(data).digest()
        return data


def digests(paths: Iterable[Path]) -> Mapping[Path, bytes | None]:
    """What files hold now, as a Reader would remember it."""
    reader = Reader()
    for path in paths:
        try:
            reader.read(path)
        except ValueError:
            continue  # that it cannot be read is what the reader remembers
    return reader.digests


def _read(path: Path) -> bytes:
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("is no file")  # a pipe would be waited for, a device has no end
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"has more than {MAX_BYTES:,} bytes")
    return data
