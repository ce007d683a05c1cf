# SPDX-License-Identifier: Apache-2.0
"""A caller as most are: grpc.aio and the generated stub. Too dear for load; its first token is what a caller sees."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc

from llm_gateway.v1 import llm_service_pb2_grpc
from tests.bench.grpc_client import FIRST_PIECE, request_of
from tests.bench.streams import Ask, Stream

if TYPE_CHECKING:
    from llm_gateway.v1 import llm_service_pb2 as pb


class AioClient:
    """The gateway's streaming chat through a channel."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self._stub: llm_service_pb2_grpc.LLMServiceAsyncStub = llm_service_pb2_grpc.LLMServiceStub(self._channel)
        self._readers: set[asyncio.Task[None]] = set()

    async def open(self, ask: Ask) -> Stream:
        """Send a request."""
        stream = Stream(FIRST_PIECE)
        reader = asyncio.create_task(self._read(request_of(ask), stream))
        self._readers.add(reader)
        reader.add_done_callback(self._readers.discard)
        return stream

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def _read(self, request: pb.ChatCompletionRequest, stream: Stream) -> None:
        try:
            async for event in self._stub.ChatCompletionStream(request, timeout=60.0):
                stream.counted(1)
                if event.WhichOneof("event") == "completed":
                    stream.tokens = event.completed.usage.completion_tokens
                    stream.merged = event.completed.merged_deltas
                    stream.attempts = len(event.completed.attempts)
        except grpc.aio.AioRpcError as error:
            stream.end(str(error))
        else:
            stream.end()
