# SPDX-License-Identifier: Apache-2.0
"""A worker that streams one answer: python examples/worker.py "Tell me a story." """

import asyncio
import os
import sys

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from llm_gateway.v1.llm_service_pb2 import ChatCompletionRequest
from llm_gateway.v1.llm_service_pb2_grpc import LLMServiceStub
from llm_gateway.v1.message_pb2 import ROLE_USER, Message


async def answer(question: str) -> None:
    request = ChatCompletionRequest(messages=[Message(role=ROLE_USER, content=question)])
    async with grpc.aio.insecure_channel(os.environ.get("LLM_GATEWAY_ADDR", "localhost:50052")) as channel:
        call = LLMServiceStub(channel).ChatCompletionStream(request, timeout=60)  # seconds; always set a deadline
        try:
            async for event in call:  # started, delta, delta …, completed; ignore what you do not know
                sys.stdout.write(event.delta.text)
                sys.stdout.flush()
        except grpc.aio.AioRpcError as error:  # the one error type; without it, the answer is whole
            sys.exit(f"\n{error.code().name} {reason_of(error)}: {error.details()}")
        finally:
            call.cancel()  # whoever stops reading early must say so: grpcio does not do it for you


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """What happened, in the one word that the table of endings and the logs have for it."""
    trailers = dict(error.trailing_metadata())
    info, status = ErrorInfo(), Status.FromString(trailers.get("grpc-status-details-bin", b""))
    for detail in status.details:
        detail.Unpack(info)
    return info.reason or "NO_GATEWAY"


if __name__ == "__main__":
    asyncio.run(answer(sys.argv[1]))
