# SPDX-License-Identifier: Apache-2.0
"""Rows 15 and 26: a backend's process is killed, or frozen and thawed."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

from tests.faults.invariants import PATIENCE, SAID, asking, scene, tried
from tests.faults.matrix import Expected, attempts_of, ending_of, row
from tests.kit.processes import simulator_process

if TYPE_CHECKING:
    from llm_gateway.simulator import Simulator
    from tests.faults.invariants import Witness

PACED = asking(pace_ms=20)
RUNNING, MEANWHILE, AFTERWARDS = "running stream", "meanwhile, another replica", "afterwards"


@row(15)
async def test_row_15_what_a_killed_backend_had_said_is_delivered_and_no_more(expected: Expected) -> None:
    async with simulator_process() as backend, scene(backend.url) as witness:
        call = witness.begin(PACED)
        await call.deltas(5)
        backend.send(signal.SIGKILL)
        outcome = await call.end()
        line = await witness.line(call)

    assert ending_of(outcome) in expected
    assert await backend.exit_code() == -signal.SIGKILL
    assert len(outcome.deltas) >= 5
    assert outcome.text() != SAID
    assert attempts_of(outcome) == [("a", "BACKEND_LOST")]
    assert line["completion_tokens"] >= len(outcome.deltas) > 0


@row(26, RUNNING, MEANWHILE, AFTERWARDS, together=True)
async def test_row_26_a_frozen_backend_is_ejected_and_comes_back(simulator: Simulator, expected: Expected) -> None:
    settings: dict[str, Any] = {
        "timeouts": {"idle_ms": 300, "first_token_ms": 300, "connect_ms": 300},
        "health": {"probe_interval_ms": 100, "probe_timeout_ms": 200},
        "ejection": {"base_ms": 200, "longest_ms": 1_000},
    }
    async with (
        simulator_process() as backend,
        scene(backend.url, simulator.url, **settings) as witness,
    ):
        call = witness.begin(PACED)
        await call.deltas(3)
        while call.events[0].started.backend != "a":  # the balancer chooses by lot
            call.leave()
            call = witness.begin(PACED)
            await call.deltas(3)
        backend.send(signal.SIGSTOP)
        stalled = await call.end()
        assert ending_of(stalled) in expected.of(RUNNING)
        assert attempts_of(stalled) == [("a", "STREAM_STALLED")]

        async with asyncio.timeout(PATIENCE):
            while not is_ejected(witness):
                assert ending_of(await witness.stream()) in expected.of(MEANWHILE)
        outcome = await witness.stream()
        assert ending_of(outcome) in expected.of(MEANWHILE)
        assert attempts_of(outcome)[-1] == ("b", "")

        backend.send(signal.SIGCONT)
        await tried(witness, ("a", ""), expected.of(AFTERWARDS))
        await backend.wait_for(running=0, waiting=0)


def is_ejected(witness: Witness) -> bool:
    """Whether the log tells that the first replica was ejected."""
    told = [line for line in witness.logs.lines if line.get("backend") == "a" and line["level"] == "WARNING"]
    return any(line["message"] == "ejected a backend" or line.get("health") == "ejected" for line in told)
