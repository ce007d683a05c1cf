# SPDX-License-Identifier: Apache-2.0
"""The worker of the README does what it promises."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tests.cli.program import Program, run
from tests.house.tree import ROOT

if TYPE_CHECKING:
    from llm_gateway.simulator import Simulator
    from tests.kit.gateway import RunningGateway

WORKER = (sys.executable, ROOT / "examples/worker.py")


async def test_a_whole_answer_is_written_and_the_worker_ends_well(gateway: RunningGateway) -> None:
    done = await run('[[sim text="There you are."]]', command=WORKER, LLM_GATEWAY_ADDR=gateway.address)

    assert (done.code, done.out, done.err) == (0, "There you are.", "")


async def test_an_answer_that_breaks_off_is_never_taken_for_a_whole_one(gateway: RunningGateway) -> None:
    done = await run("[[sim fault=cut after=3]]", command=WORKER, LLM_GATEWAY_ADDR=gateway.address)

    assert done.code == 1
    assert done.err.startswith("\nABORTED STREAM_INTERRUPTED: ")


async def test_nobody_at_the_address_is_an_error_like_any_other() -> None:
    done = await run("Hi", command=WORKER, LLM_GATEWAY_ADDR="127.0.0.1:1")

    assert done.code == 1
    assert done.err.startswith("\nUNAVAILABLE NO_GATEWAY: ")


async def test_a_worker_that_is_ended_frees_the_backend(gateway: RunningGateway, simulator: Simulator) -> None:
    env = {"LLM_GATEWAY_ADDR": gateway.address}
    async with Program("[[sim fault=stall after=3]]", command=WORKER, env=env) as worker:
        await worker.until(" one night a")
        worker.interrupt()
        await worker.exit_code()

    assert (await simulator.wait_for(lambda now: now.aborted == 1)).running == 0
