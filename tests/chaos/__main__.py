# SPDX-License-Identifier: Apache-2.0
"""`make chaos`: SECONDS=n of trouble (600), as SEED=n has it (another one each time). Exit code 1: a violation."""

from __future__ import annotations

import asyncio
import os
import random
import time

from tests.chaos import report
from tests.chaos.run import run

SECONDS = 600.0
INTERRUPTED = 130


def main() -> int:
    """Run, and print what came of it. Gives the exit code."""
    seconds = float(os.environ.get("SECONDS") or SECONDS)
    seed = int(os.environ.get("SEED") or random.randrange(1_000_000))
    _print(f"seed {seed}")
    began = time.monotonic()
    try:
        result = asyncio.run(run(seconds, seed, lambda line: _print(f"{time.monotonic() - began:5.0f} s: {line}")))
    except KeyboardInterrupt:
        return INTERRUPTED
    for line in report.lines(result, seconds):
        _print(line)
    return int(bool(result.broken))


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - its output


if __name__ == "__main__":
    raise SystemExit(main())
