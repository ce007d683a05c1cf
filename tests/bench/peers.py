# SPDX-License-Identifier: Apache-2.0
"""What the gateway is compared with: `vllm-router`, a router in Rust that forwards the backend's HTTP as it is."""

from __future__ import annotations

import subprocess
import sys
import venv
from typing import TYPE_CHECKING

from tests.bench.processes import MEASURED_CORE, SCRATCH, Process, free_port

if TYPE_CHECKING:
    from pathlib import Path

VERSION = "0.1.17"
HOME = SCRATCH / "vllm-router"
INSTALL_WAIT = 300.0


def installed_router() -> Path:
    """The program, from PyPI into a virtual environment of its own."""
    program = HOME / "bin" / "vllm-router"
    stamp = HOME / f"installed-{VERSION}"
    if not stamp.exists():
        print(f"installing vllm-router {VERSION} into {HOME}", file=sys.stderr)  # noqa: T201 - it may take a minute
        venv.create(HOME, with_pip=True, clear=True)
        command = [str(HOME / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
        subprocess.run([*command, f"vllm-router=={VERSION}"], check=True, timeout=INSTALL_WAIT)
        stamp.touch()
    return program


def router(backend: Process) -> Process:
    """The router in front of the simulator; it asks the backend's /health only."""
    port = free_port()
    command = [str(installed_router()), "--worker-urls", f"http://127.0.0.1:{backend.port}"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--policy", "round_robin"]
    command += ["--prometheus-port", str(free_port()), "--worker-startup-check-interval", "1"]
    return Process("vllm-router", command, port=port, cores=MEASURED_CORE)
