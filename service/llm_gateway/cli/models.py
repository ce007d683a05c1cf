# SPDX-License-Identifier: Apache-2.0
"""`llm-gateway models`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc

from llm_gateway.cli import client as wire
from llm_gateway.cli.screen import complain, say, show, table
from llm_gateway.v1.llm_service_pb2 import ListModelsRequest

if TYPE_CHECKING:
    from llm_gateway.v1.llm_service_pb2 import ListModelsResponse


def models(address: str, *, timeout: float, as_json: bool) -> int:
    """List a gateway's models. Gives the exit code."""
    try:
        listed = asyncio.run(_list(address, timeout))
    except grpc.aio.AioRpcError as error:
        for line in wire.Failure.of(error, address).lines:
            complain(line)
        return 1
    if as_json:
        say(wire.as_json(listed))
        return 0
    models_table = table("Model", "Aliases", "Context", "Adapts", "Owner", "Default")
    for model in listed.models:
        context = f"{model.context_length:,}" if model.HasField("context_length") else ""
        default = "yes" if model.is_default else ""
        models_table.add_row(model.name, ", ".join(model.aliases), context, model.parent, model.owned_by, default)
    show(models_table)
    return 0


async def _list(address: str, timeout: float) -> ListModelsResponse:  # noqa: ASYNC109 - the call's deadline
    async with wire.Client(address) as client:
        return await client.stub.ListModels(ListModelsRequest(), timeout=timeout)
