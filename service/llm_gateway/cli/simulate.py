# SPDX-License-Identifier: Apache-2.0
"""`llm-gateway simulate`."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from llm_gateway.cli.screen import complain, say
from llm_gateway.simulator import Simulator

if TYPE_CHECKING:
    from llm_gateway.simulator import Options


def simulate(options: Options) -> int:
    """Run a simulator until SIGTERM or Ctrl-C. Gives the exit code."""
    try:
        asyncio.run(_simulate(options))
    except OSError as error:
        complain(f"cannot listen on {options.host}:{options.port}: {error.strerror or error}")
        return 1
    return 0


async def _simulate(options: Options) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    async with Simulator(options) as simulator:
        server = f"vLLM {options.version}" if options.dialect == "vllm" else options.dialect
        say(f"simulated {server} listens on {simulator.url}, models: {', '.join(options.models)}")
        await ended.wait()
        say(f"draining: {simulator.statistics().running} requests run")
        await simulator.drain()
