# SPDX-License-Identifier: Apache-2.0
"""Fixtures that every test may use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from llm_gateway.simulator import Simulator
from tests.kit.gateway import RunningGateway, start_gateway
from tests.kit.quiescence import Baseline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


# The fixtures that every test has do not change between examples; and a busy machine is no failure.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
settings.load_profile("house")


@pytest.fixture(autouse=True)
async def nothing_is_left_behind() -> AsyncIterator[None]:
    """After every test: no task, no connection, no listener that was not there before."""
    baseline = Baseline()
    yield
    await baseline.regained()


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """A simulated vLLM that answers as fast as it can."""
    async with Simulator() as running:
        yield running


@pytest.fixture
async def gateway(simulator: Simulator) -> AsyncIterator[RunningGateway]:
    """A gateway in front of the simulator."""
    async with start_gateway(simulator.url) as running:
        yield running
