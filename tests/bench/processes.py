# SPDX-License-Identifier: Apache-2.0
"""The measured programs as processes: pinned to a core, watched through /proc, stopped by their id."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

ROOT = Path(__file__).parents[2]
SCRATCH = ROOT / ".cache" / "bench"
GATEWAY = [sys.executable, "-m", "llm_gateway", "serve"]
LIBC = ctypes.CDLL(None)
SET_DEATH_SIGNAL = 1
PRECEDENCE = -10
"""Before other programs of a busy machine, where we may."""
START_WAIT = 30.0
STOP_WAIT = 10.0
POLL = 0.02

CORES = sorted(os.sched_getaffinity(0))
MEASURED_CORE = CORES[-1:]
"""The gateway and its peers run here, one at a time."""
OTHER_CORES = CORES[:-1] or CORES
"""The simulator and the load generator run here."""


def settle() -> None:
    """Give this process its cores, as many sockets as its user may have, and precedence; children inherit the rest."""
    os.sched_setaffinity(0, OTHER_CORES)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, PRECEDENCE)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextlib.contextmanager
def scratch_folder(scratch: Path = SCRATCH) -> Iterator[Path]:
    """A folder of this run alone, gone at its end."""
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        yield Path(folder)


def free_port() -> int:
    """A port of loopback that nobody has now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Process:
    """A server on a port of loopback, from `with` until its end."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        port: int,
        cores: Sequence[int],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.port = port
        self._command = list(command)
        self._cores = cores
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.log = SCRATCH / f"{name}.log"

    def __enter__(self) -> Self:
        """Start, and wait until it listens."""
        SCRATCH.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=SCRATCH,
                env=_environment() | self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is ours: we stop them in order
                preexec_fn=self._prepare,  # noqa: PLW1509 - processes are started before any thread
            )
        try:
            self._wait_until_it_listens()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()

    @property
    def url(self) -> str:
        """Where it is asked, if it speaks HTTP."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its id."""
        assert self._process is not None, "started before"
        return self._process.pid

    def cpu(self) -> float:
        """Seconds of CPU that it and its children have used."""
        return sum(cpu_seconds(pid) for pid in family(self.pid))

    def memory(self) -> int:
        """Bytes that are resident, its children's too."""
        return sum(resident_bytes(pid) for pid in family(self.pid))

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that does not help."""
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_WAIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_WAIT)

    def _prepare(self) -> None:
        """In the child, before its program: so it counts the right number of cores, and does not outlive us."""
        os.sched_setaffinity(0, self._cores)
        LIBC.prctl(SET_DEATH_SIGNAL, signal.SIGTERM)

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + START_WAIT
        while time.monotonic() < deadline:
            assert self._process is not None, "started before"
            if self._process.poll() is not None:
                raise RuntimeError(f"{self.name} ended at its start:\n{self.log.read_text(errors='replace')[-2000:]}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), POLL):
                return
            time.sleep(POLL)
        raise RuntimeError(f"{self.name} does not listen on port {self.port}; see {self.log}")


class ForeignWatch:
    """Sees how much of the machine's CPU is used by programs that are not ours."""

    def __init__(self, ours: Sequence[Process]) -> None:
        self._ours = ours
        self._start = self._now()

    def share(self) -> float:
        """Of all cores, since the start."""
        busy, own, seconds = (now - then for now, then in zip(self._now(), self._start, strict=True))
        return max(0.0, busy - own) / (seconds * (os.cpu_count() or 1))

    def _now(self) -> tuple[float, float, float]:
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        busy = (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")  # without idle and iowait
        own = time.process_time() + sum(process.cpu() for process in self._ours)
        return busy, own, time.monotonic()


def simulator(endings: Path | None = None) -> Process:
    """The backend; it writes to `endings` when it was done with which request."""
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.backend", str(port), *([str(endings)] if endings else [])]
    return Process("simulator", command, port=port, cores=OTHER_CORES)


def gateway(backend: Process, *, profile: Path | None = None) -> Process:
    """The gateway in front of it, as its users start it."""
    command = GATEWAY if profile is None else [sys.executable, "-m", "tests.bench.profiled", str(profile)]
    return _gateway("gateway", command, {"VLLM_URL": backend.url})


def gateway_of(service: Path, backend: Process, *, name: str) -> Process:
    """The gateway of another source tree, with the interpreter and the packages of this one."""
    return _gateway(name, GATEWAY, {"VLLM_URL": backend.url, "PYTHONPATH": str(service)})


def gateway_with(file: Path, settings: Mapping[str, str]) -> Process:
    """The gateway with models and backends from a file."""
    return _gateway("gateway", GATEWAY, {"CONFIG_FILE": str(file), **settings})


def _gateway(name: str, command: Sequence[str], environment: Mapping[str, str]) -> Process:
    port = free_port()
    listening = {"PORT": str(port), "SERVER__HOST": "127.0.0.1"}
    draining = {"SERVER__DRAIN_DELAY_MS": "0", "SERVER__DRAIN_GRACE_MS": "1000"}
    return Process(name, command, port=port, cores=MEASURED_CORE, environment=listening | draining | dict(environment))


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    members = [pid]
    for member in members:
        for children in Path(f"/proc/{member}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                members += [int(child) for child in children.read_text().split()]
    return members


def cpu_seconds(pid: int) -> float:
    """What the kernel has counted for a process, ended threads included, to the nanosecond.

    /proc/<pid>/stat says the same in steps of 10 ms.
    """
    clock = (~pid << 3) | 2  # as clock_getcpuclockid(3) makes it
    return time.clock_gettime(clock)


def resident_bytes(pid: int) -> int:
    """What a process has in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _environment() -> dict[str, str]:
    """Ours without what would be taken for settings of the gateway."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"PYTHONPATH": str(ROOT)}
