# SPDX-License-Identifier: Apache-2.0
"""Waits for what has no event of its own."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 10.0


async def eventually(holds: Callable[[], object], what: str = "it") -> None:
    """Return as soon as `holds()`; fail if that takes longer than any busy machine needs."""
    give_up = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < give_up, f"{what} did not come true"
        await asyncio.sleep(0.001)


async def settled(value: Callable[[], int], calm: float = 0.1) -> int:
    """The value once it has not changed for `calm` seconds: how a test sees that something stands still."""
    last, since = value(), time.monotonic()
    while time.monotonic() - since < calm:
        await asyncio.sleep(0.005)
        if value() != last:
            last, since = value(), time.monotonic()
    return last
