# SPDX-License-Identifier: Apache-2.0
"""Real processes, to be sent real signals: a gateway, a simulated vLLM, and a caller that streams."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATIENCE = 30.0
LISTENING = "listening"
SERVE = ("-m", "llm_gateway", "serve")
SIMULATE = ("-m", "llm_gateway", "simulate")

CALLER = """
import json
import sys
import grpc
from llm_gateway.v1 import generation_pb2, llm_service_pb2, llm_service_pb2_grpc, message_pb2

params = generation_pb2.GenerationParams(**json.loads(sys.argv[2]))
message = message_pb2.Message(role=message_pb2.ROLE_USER, content="hello")
with grpc.insecure_channel(sys.argv[1]) as channel:
    stub = llm_service_pb2_grpc.LLMServiceStub(channel)
    for event in stub.ChatCompletionStream(llm_service_pb2.ChatCompletionRequest(messages=[message], params=params)):
        print(event.WhichOneof("event"), flush=True)
"""


class Process:
    """A running process; its output line by line."""

    def __init__(self, process: asyncio.subprocess.Process, output: asyncio.StreamReader) -> None:
        self._process = process
        self._output = output

    async def line(self) -> str:
        """The next line; "" at the end."""
        async with asyncio.timeout(PATIENCE):
            return (await self._output.readline()).decode()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def state(self) -> str:
        """One letter, as in ps: "T" is one that was stopped."""
        return Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def send(self, number: signal.Signals) -> None:
        """Send a signal. Raises ProcessLookupError where there is nobody any more to get it."""
        self._process.send_signal(number)

    async def rest(self) -> str:
        """Everything that it still says; SIGTERM ends it."""
        self.send(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            return (await self._output.read()).decode()

    async def exit_code(self) -> int:
        """Wait for the end."""
        async with asyncio.timeout(PATIENCE):
            return await self._process.wait()


P = TypeVar("P", bound=Process)


class GatewayProcess(Process):
    """A gateway in a process of its own; `address` is where it listens."""

    address = ""

    async def log_line(self, message: str) -> dict[str, Any]:
        """The next line of the log with this message."""
        while line := await self.line():
            # gRPC's C core writes a line of its own now and then.
            record: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
            if record.get("message") == message:
                return record
        raise AssertionError(f"the gateway ended without saying {message!r}")


class SimulatorProcess(Process):
    """A simulated vLLM in a process of its own, asked over HTTP for what one in this process tells."""

    url = ""

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def script(self, *behaviours: dict[str, Any]) -> None:
        """Queue behaviours for the next generation requests, named as in a directive."""
        await self._ask("POST", "/simulator/script", json=list(behaviours))

    async def statistics(self) -> dict[str, Any]:
        """The counts of this moment."""
        statistics: dict[str, Any] = await self._ask("GET", "/simulator/statistics")
        return statistics

    async def wait_for(self, **counts: int) -> None:
        """Wait until the statistics have these counts."""
        async with asyncio.timeout(PATIENCE):
            while not counts.items() <= (await self.statistics()).items():  # noqa: ASYNC110 - another process's
                await asyncio.sleep(0.01)

    async def _ask(self, method: str, path: str, **content: Any) -> Any:
        async with aiohttp.ClientSession() as session, session.request(method, self.url + path, **content) as response:
            response.raise_for_status()
            return await response.json()


@asynccontextmanager
async def simulator_process(*options: str, port: int = 0) -> AsyncIterator[SimulatorProcess]:
    """A simulated vLLM, started as users start it; with the `port` of one that was killed, it is that one again."""
    async with _started(SimulatorProcess, *SIMULATE, "--port", str(port), *options) as process:
        found = re.search(r"http://[\d.:]+", await process.line())
        assert found is not None, "it did not say where it listens"
        process.url = found.group()
        yield process


@asynccontextmanager
async def caller_process(address: str, **params: Any) -> AsyncIterator[Process]:
    """A caller that streams from a gateway and prints a word for every event; `params` are GenerationParams."""
    async with _started(Process, "-c", CALLER, address, json.dumps(params)) as process:
        yield process


@asynccontextmanager
async def gateway_process(url: str, **variables: str) -> AsyncIterator[GatewayProcess]:
    """A gateway in front of `url`, started as users start it; `variables` are its settings."""
    async with starting_gateway(url, **variables) as process:
        process.address = (await process.log_line(LISTENING))["address"]
        yield process


@asynccontextmanager
async def starting_gateway(url: str, **variables: str) -> AsyncIterator[GatewayProcess]:
    """The same, which may still be on its way, or have failed."""
    own = {"PORT": "0", "SERVER__HOST": "127.0.0.1", "VLLM_URL": url, "LOG_FORMAT": "json"}
    async with _started(GatewayProcess, *SERVE, **(own | variables)) as process:
        yield process


@asynccontextmanager
async def _started(kind: type[P], *arguments: str, **variables: str) -> AsyncIterator[P]:
    """Run Python; at the end, it is killed if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env=os.environ | variables,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        yield kind(process, process.stdout)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
