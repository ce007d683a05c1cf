# SPDX-License-Identifier: Apache-2.0
"""The simulated vLLM as a process of its own: `python -m tests.bench.backend PORT`."""

from __future__ import annotations

import asyncio
import sys

from llm_gateway.simulator import Options, run

LONGEST_ANSWER = 100_000


def options(port: int) -> Options:
    """An engine that is never the bottleneck."""
    return Options(port=port, models=("sim",), max_model_len=LONGEST_ANSWER, max_num_seqs=100_000)


if __name__ == "__main__":
    asyncio.run(run(options(int(sys.argv[1]))))
