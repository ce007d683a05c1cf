# SPDX-License-Identifier: Apache-2.0
"""The console script as its users run it: as a process of its own, by pipes or at a terminal."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from llm_gateway.settings import variables

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

SCRIPT = Path(sys.executable).with_name("llm-gateway")
PATIENCE = 50.0
BESIDE_SETTINGS = {"LLM_GATEWAY_ADDR", "LLM_GATEWAY_ADMIN_ADDR", "LLM_DEFAULT_MODEL", "SECRETS_DIR"}
OURS = BESIDE_SETTINGS | {name for name, _, _ in variables()}


def environment(**variables: str) -> dict[str, str]:
    """This environment without what would change a command, and with `variables`."""
    plain = {name: value for name, value in os.environ.items() if name not in OURS}
    return plain | {"TERM": "dumb", "COLUMNS": "100"} | variables


@dataclass(frozen=True, slots=True)
class Finished:
    """What is left of a command that has ended."""

    code: int
    out: str
    err: str


async def run(*arguments: str, stdin: str = "", command: tuple[str | Path, ...] = (SCRIPT,), **env: str) -> Finished:
    """Run a command to its end, away from any `.env`."""
    with tempfile.TemporaryDirectory() as nowhere:
        process = await asyncio.create_subprocess_exec(
            *command,
            *arguments,
            cwd=nowhere,
            env=environment(**env),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(stdin.encode()), PATIENCE)
        except BaseException:
            process.kill()
            await process.wait()
            raise
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())


class Program:
    """A command that runs until it is told to end; its stdout and stderr are one. Use it as a context."""

    def __init__(
        self,
        *arguments: str,
        terminal: bool = False,
        env: Mapping[str, str] | None = None,
        command: tuple[str | Path, ...] = (SCRIPT,),
    ) -> None:
        self._command = (*command, *arguments)
        self._terminal = terminal
        self._env = env or {}
        self._seen = bytearray()
        self._more = asyncio.Event()
        self._closed = asyncio.Event()
        self._read_to = 0

    async def __aenter__(self) -> Self:
        self._nowhere = tempfile.TemporaryDirectory()
        self._ours, theirs = os.openpty() if self._terminal else os.pipe()
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=self._nowhere.name,
            env=environment(**self._env),
            stdin=theirs if self._terminal else asyncio.subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        asyncio.get_running_loop().add_reader(self._ours, self._read)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        asyncio.get_running_loop().remove_reader(self._ours)
        os.close(self._ours)
        self._nowhere.cleanup()

    async def until(self, expected: str) -> str:
        """Wait for `expected`; gives all output between the last one that was waited for and its end."""
        async with asyncio.timeout(PATIENCE):
            while (end := self._seen.find(expected.encode(), self._read_to)) < 0:
                assert not self._closed.is_set(), f"it ended with {self.output}"
                self._more.clear()
                await self._more.wait()
        end += len(expected.encode())
        since, self._read_to = self._seen[self._read_to : end].decode(), end
        return since

    def type(self, text: str) -> None:
        """Type at the terminal."""
        os.write(self._ours, text.encode())

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self.send(signal.SIGINT)

    def terminate(self) -> None:
        """What Kubernetes does."""
        self.send(signal.SIGTERM)

    async def exit_code(self) -> int:
        """Wait for the end, and for the last that it wrote."""
        async with asyncio.timeout(PATIENCE):
            await self._closed.wait()
            return await self._process.wait()

    @property
    def output(self) -> str:
        """All that it has written."""
        return self._seen.decode()

    def _read(self) -> None:
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # a terminal whose other side is closed
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._ours)
            self._closed.set()
        self._seen += data
        self._more.set()
