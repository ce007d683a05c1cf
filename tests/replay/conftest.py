# SPDX-License-Identifier: Apache-2.0
"""The gateway that replays go through."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.kit.gateway import start_gateway
from tests.kit.quiescence import Baseline
from tests.replay.calls import Replay
from tests.replay.replaying import ReplayBackend
from tests.replay.translating import EXTENSIONS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NEVER_MS = 86_400_000


@pytest.fixture(scope="module", autouse=True)
async def nothing_is_left_behind() -> AsyncIterator[None]:
    """After a module: no task, no connection, no listener. (gRPC's server has a new task after each call.)"""
    baseline = Baseline()
    yield
    await baseline.regained()


@asynccontextmanager
async def _replay() -> AsyncIterator[Replay]:
    """A gateway before a backend that replays: it tries once, and lets through what recorded requests need."""
    async with (
        ReplayBackend() as backend,
        start_gateway(
            backend.url,
            retry={"max_attempts": 1},
            backend={"extensions": EXTENSIONS},
            health={"probe_interval_ms": NEVER_MS, "load_interval_ms": 0},  # whose load is read is asked for its models
        ) as gateway,
    ):
        await gateway.channel.channel_ready()
        yield Replay(gateway, backend)


@pytest.fixture(scope="module")
async def replay(nothing_is_left_behind: None) -> AsyncIterator[Replay]:
    """One gateway for all replays of a module: it keeps nothing from one call to the next but the list of models."""
    async with _replay() as running:
        yield running


@pytest.fixture
async def fresh_replay() -> AsyncIterator[Replay]:
    """A gateway that has not yet seen a list of models."""
    async with _replay() as running:
        yield running
