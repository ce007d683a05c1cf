# SPDX-License-Identifier: Apache-2.0
"""`make bench`: what the gateway costs; with PEERS=1, against vllm-router.

BENCH=quick only shows that it works. ROUNDS=n takes more or fewer rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tests.bench import plan, report
from tests.bench.profiling import WORKLOADS, profile
from tests.bench.run import measure

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

WIDTH = 170
INTERRUPTED = 130


def main() -> int:
    """Measure and print. Gives the exit code: 1 if a stream of the thousand failed, else 0."""
    arguments = _arguments()
    try:
        return _run(profile(arguments.profile) if arguments.profile else _bench(arguments.json))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and all samples there, too")
    parser.add_argument(
        "--profile", nargs="?", const="paced", choices=WORKLOADS, help="print a profile of the gateway instead"
    )
    return parser.parse_args()


async def _bench(file: Path | None) -> int:
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    chosen = plan.QUICK if os.environ.get("BENCH") == "quick" else plan.DEFAULT
    if rounds := os.environ.get("ROUNDS"):
        chosen = replace(chosen, rounds=max(1, int(rounds)))
    say = Console(stderr=True, highlight=False).print
    results = await measure(chosen, peers=os.environ.get("PEERS", "0") not in ("", "0"), say=say)
    for table in report.tables(results):
        console.print(table)
    for remark in report.remarks(results):
        console.print(remark)
    if file is not None:
        file.write_text(json.dumps(report.as_json(results), indent=1) + "\n")  # noqa: ASYNC240 - all is measured
    return int(any(wave.errors for wave in results.waves))


def _run(work: Coroutine[Any, Any, int | None]) -> int:
    """In a loop of uvloop's, if there is one; SIGTERM ends it as Ctrl-C does, with every process stopped."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_until_told(work)) or 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415 - absent on some platforms
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


async def _until_told(work: Coroutine[Any, Any, int | None]) -> int | None:
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


if __name__ == "__main__":
    sys.exit(main())
