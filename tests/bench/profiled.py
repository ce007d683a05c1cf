# SPDX-License-Identifier: Apache-2.0
"""The gateway under cProfile: `python -m tests.bench.profiled FILE`."""

from __future__ import annotations

import cProfile
import sys

from llm_gateway.app import run
from llm_gateway.observability.logging import configure_logging
from llm_gateway.settings import load_settings


def main(file: str) -> None:
    """Serve until SIGTERM, then write what was found."""
    settings = load_settings()
    configure_logging(settings.log_level)
    profile = cProfile.Profile()
    try:
        profile.runcall(run, settings)
    finally:
        profile.dump_stats(file)


if __name__ == "__main__":
    main(sys.argv[1])
