# SPDX-License-Identifier: Apache-2.0
"""`make bench`: what the gateway costs; with PEERS=1, against vllm-router; with BEFORE=revision, against its past.

BENCH=quick only shows that it works. ROUNDS=n takes more or fewer rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tests.bench import comparison, plan, report, revision
from tests.bench.before_after import AFTER, BEFORE, compare
from tests.bench.profiling import WORKLOADS, profile
from tests.bench.run import measure

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from rich.console import RenderableType

WIDTH = 170
WRONG_SETTINGS = 2
SHORT = 10
INTERRUPTED = 130


def main() -> int:
    """Measure and print. Gives the exit code: 1 if a stream of the thousand failed, else 0."""
    arguments = _arguments()
    logging.getLogger("llm_gateway").addHandler(
        logging.NullHandler()
    )  # what runs in this process is ejected on purpose
    before = os.environ.get("BEFORE")
    try:
        if arguments.profile:
            return _run(profile(arguments.profile))
        return _run(_compare(before, arguments.json) if before else _bench(arguments.json))
    except revision.RevisionError as error:
        print(f"BEFORE={before}: {error}", file=sys.stderr)  # noqa: T201 - its output
        return WRONG_SETTINGS
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
    results = await measure(_plan(plan.DEFAULT), peers=os.environ.get("PEERS", "0") not in ("", "0"), say=_say)
    _show([*report.tables(results), *report.remarks(results)])
    _write(file, report.as_json(results))
    return int(any(wave.errors for wave in results.waves))


async def _compare(name: str, file: Path | None) -> int:
    commit = revision.resolved(name)
    before = revision.exported(commit)
    with revision.present() as after:
        samples = await compare(_plan(plan.COMPARED), {BEFORE: before, AFTER: after}, say=_say)
    _show([comparison.table(samples, before=commit[:SHORT]), *comparison.remarks(samples)])
    _write(file, comparison.as_json(samples, before=commit))
    return int(any(wave.errors for wave in samples.waves))


def _plan(usual: plan.Plan) -> plan.Plan:
    """As the environment wishes."""
    chosen = plan.QUICK if os.environ.get("BENCH") == "quick" else usual
    rounds = os.environ.get("ROUNDS")
    return replace(chosen, rounds=max(1, int(rounds))) if rounds else chosen


def _say(line: str) -> None:
    """What it is at."""
    Console(stderr=True, highlight=False).print(line)


def _show(found: Iterable[RenderableType]) -> None:
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    for table_or_line in found:
        console.print(table_or_line)


def _write(file: Path | None, figures: dict[str, Any]) -> None:
    if file is not None:
        file.write_text(json.dumps(figures, indent=1) + "\n")


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
