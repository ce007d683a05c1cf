# SPDX-License-Identifier: Apache-2.0
"""The same witness where the gateway is a process of its own, to be sent real signals: it knows the log and the end."""

from __future__ import annotations

import asyncio
import io
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc

from llm_gateway.simulator import Options, Simulator
from llm_gateway.v1 import llm_service_pb2_grpc
from tests.faults.invariants import CALM, Witness, key_file, models_at
from tests.kit.gateway import RunningGateway, config_file
from tests.kit.logs import Logs
from tests.kit.processes import gateway_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tests.kit.processes import GatewayProcess


@asynccontextmanager
async def process_scene(
    url: str, channel_options: Sequence[tuple[str, Any]] = (), **variables: str
) -> AsyncIterator[tuple[Witness, GatewayProcess]]:
    """A gateway process with a model at `url`, and its witness. The row ends it; then the invariants are checked.

    There is no bystander: what befalls the whole process, nobody on it fails to notice. That nothing is left of calls
    in flight is what its last line says.
    """
    with key_file() as key:
        async with Simulator(Options(models=(CALM,))) as calm:
            with config_file(models_at(url, calm=calm.url, api_key_file=str(key))) as path:
                own = {"CONFIG_FILE": str(path), "LOG_LEVEL": "debug", "SERVER__DRAIN_DELAY_MS": "0"}
                async with (
                    gateway_process(calm.url, **(own | variables)) as process,
                    _witnessed(process, channel_options) as witness,
                ):
                    yield witness, process


@asynccontextmanager
async def _witnessed(process: GatewayProcess, options: Sequence[tuple[str, Any]]) -> AsyncIterator[Witness]:
    output = io.StringIO()
    listening = asyncio.create_task(_listen(process, output))
    try:
        async with grpc.aio.insecure_channel(process.address, options=list(options)) as channel:
            server: Any = None  # it is elsewhere
            gateway = RunningGateway(server, channel, llm_service_pb2_grpc.LLMServiceStub(channel))
            witness = Witness(gateway, Logs(output))
            yield witness
        await process.exit_code()
        await listening
        witness.confirm_calls()
        assert "stopped" in [line["message"] for line in witness.logs.lines]
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def _listen(process: GatewayProcess, output: io.StringIO) -> None:
    """Take what the process says, line by line; gRPC's C core writes a line of its own now and then."""
    while line := await process.line():
        output.write(line if line.startswith("{") else json.dumps({"logger": "", "message": line}) + "\n")
