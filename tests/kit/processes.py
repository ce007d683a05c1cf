# SPDX-License-Identifier: Apache-2.0
"""Real processes, to be sent real signals: a gateway, and a caller that streams."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import signal
    from collections.abc import AsyncIterator

PATIENCE = 30.0
LISTENING = "listening"
SERVE = ("-m", "llm_gateway", "serve")

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

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

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


@asynccontextmanager
async def caller_process(address: str, **params: Any) -> AsyncIterator[Process]:
    """A caller that streams from a gateway and prints a word for every event; `params` are GenerationParams."""
    async with _started(Process, "-c", CALLER, address, json.dumps(params)) as process:
        yield process


@asynccontextmanager
async def gateway_process(url: str, **variables: str) -> AsyncIterator[GatewayProcess]:
    """A gateway in front of `url`, started as users start it; `variables` are its settings."""
    own = {"PORT": "0", "SERVER__HOST": "127.0.0.1", "VLLM_URL": url, "LOG_FORMAT": "json"}
    async with _started(GatewayProcess, *SERVE, **(own | variables)) as process:
        process.address = (await process.log_line(LISTENING))["address"]
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
