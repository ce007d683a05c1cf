# SPDX-License-Identifier: Apache-2.0
"""The simulated vLLM as a process of its own: `python -m tests.bench.backend PORT [ENDINGS]`."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from aiohttp import web

from llm_gateway.simulator import Options, Simulator

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

LONGEST_ANSWER = 100_000


def options(port: int) -> Options:
    """An engine that is never the bottleneck."""
    return Options(port=port, models=("sim",), max_model_len=LONGEST_ANSWER, max_num_seqs=100_000)


class Watched(Simulator):
    """Writes down when it was done with a request, whoever ended it: a line with the label and the time."""

    def __init__(self, options: Options, endings: TextIO) -> None:
        super().__init__(options)
        self._endings = endings

    @web.middleware
    async def _remember(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await super()._remember(request, handler)
        finally:
            ended = time.monotonic()
            if request.method == "POST":
                label = (await request.json())["messages"][0]["content"].partition(" ")[0]
                self._endings.write(f"{label} {ended}\n")


async def run(port: int, endings: Path | None) -> None:
    """Serve until cancelled."""
    if endings is None:
        async with Simulator(options(port)):
            await asyncio.get_running_loop().create_future()
        return
    with endings.open("w", buffering=1) as file:
        async with Watched(options(port), file):
            await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None))
