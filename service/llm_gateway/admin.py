# SPDX-License-Identifier: Apache-2.0
"""AdminService at the wire: shows the gateway to its operator, and ends calls at their word."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import grpc

from llm_gateway.codec import status as codec
from llm_gateway.errors import CallNotFound, CancelledByOperator

if TYPE_CHECKING:
    from llm_gateway.codec.status import Sources

    Context = grpc.aio.ServicerContext[Any, Any]

LOG = logging.getLogger(__name__)
SERVICE = codec.SERVICE


class AdminServicer:
    """The three RPCs. `close` lets those who watch go, with what is so then."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._closed = asyncio.Event()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register the RPCs, as the generated code would, but for bytes: so a broken request gets a typed error."""
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "GetStatus": grpc.unary_unary_rpc_method_handler(self.get_status),
            "WatchStatus": grpc.unary_stream_rpc_method_handler(self.watch_status),
            "CancelStream": grpc.unary_unary_rpc_method_handler(self.cancel_stream),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        server.add_registered_method_handlers(SERVICE, handlers)

    async def get_status(self, data: bytes, _: Context) -> bytes:
        """GetStatus."""
        codec.decode_get(data)
        return codec.encode_status(self._sources)

    async def watch_status(self, data: bytes, context: Context) -> None:
        """WatchStatus. A watcher who does not read keeps this handler waiting, with one status, and nobody else."""
        interval = codec.decode_watch(data)
        while True:
            closed = self._closed.is_set()
            await context.write(codec.encode_watched(self._sources))
            if closed:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await self._closed.wait()

    async def cancel_stream(self, data: bytes, _: Context) -> bytes:
        """CancelStream."""
        request_id = codec.decode_cancel(data)
        tickets = self._sources.admission.find(request_id)
        if not tickets:
            raise CallNotFound("No call with this request id runs or waits.")
        answer = codec.encode_cancelled(tickets)
        for ticket in tickets:
            ticket.watchdog.interrupt(CancelledByOperator("An operator ended the call."))
        LOG.warning("an operator ended a call", extra={"cancelled_request_id": request_id, "ended": len(tickets)})
        return answer

    def close(self) -> None:
        """Send those who watch a last status, and end their streams."""
        self._closed.set()
