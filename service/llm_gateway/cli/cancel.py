# SPDX-License-Identifier: Apache-2.0
"""`llm-gateway cancel`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc

from llm_gateway.cli import client as wire
from llm_gateway.cli.screen import plain, say
from llm_gateway.cli.status import complain_of, span
from llm_gateway.v1.admin_service_pb2 import CancelStreamRequest

if TYPE_CHECKING:
    from llm_gateway.v1.admin_service_pb2 import CancelStreamResponse


def cancel(request_id: str, address: str, *, timeout: float, as_json: bool) -> int:
    """End the calls with a request id. Gives the exit code."""
    try:
        ended = asyncio.run(_cancel(request_id, address, timeout))
    except grpc.aio.AioRpcError as error:
        complain_of(error, address)
        return 1
    say(wire.as_json(ended, zeros=True) if as_json else _sentence(ended))
    return 0


async def _cancel(request_id: str, address: str, timeout: float) -> CancelStreamResponse:  # noqa: ASYNC109 - the call's deadline
    async with wire.Client(address) as client:
        return await client.admin.CancelStream(CancelStreamRequest(request_id=request_id), timeout=timeout)


def _sentence(ended: CancelStreamResponse) -> str:
    call = ended.call
    more = f"; and {ended.ended - 1} more with this id" if ended.ended > 1 else ""
    what = f"{call.rpc} of {plain(call.model)}" if call.model else call.rpc
    return f"ended: {what}, after {span(call.age)} and {call.completion_tokens} tokens{more}"
