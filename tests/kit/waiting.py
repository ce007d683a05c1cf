# SPDX-License-Identifier: Apache-2.0
"""Sees that something stands still."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


async def settled(value: Callable[[], int], calm: float = 0.1) -> int:
    """The value once it has not changed for `calm` seconds: how a test sees that something stands still."""
    last, since = value(), time.monotonic()
    while time.monotonic() - since < calm:
        await asyncio.sleep(0.005)
        if value() != last:
            last, since = value(), time.monotonic()
    return last
