# SPDX-License-Identifier: Apache-2.0
"""A gateway in front of the simulator, and one whose simulator stands still."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_gateway.simulator import Behaviour, Fault
from tests.kit.operating import operate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llm_gateway.simulator import Simulator
    from tests.kit.operating import Operated


@pytest.fixture
async def operated(simulator: Simulator) -> AsyncIterator[Operated]:
    """A gateway in front of the simulator."""
    async with operate(simulator.url) as operated:
        yield operated


@pytest.fixture
def stalled(simulator: Simulator) -> Simulator:
    """The simulator; its answers stand still after three tokens."""
    simulator.script(*[Behaviour(fault=Fault.STALL, after=3)] * 5)
    return simulator
