# SPDX-License-Identifier: Apache-2.0
"""Whatever a caller sends, the call ends well or with a reason, and never with a bug of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_gateway.v1 import llm_service_pb2 as pb
from llm_gateway.v1 import message_pb2
from tests.kit.gateway import failure_of, start_gateway
from tests.kit.hostile import messages
from tests.kit.scripted import DONE, STREAM_HEAD, ScriptedBackend, chunk, json_response, usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from google.protobuf.message import Message

    from tests.kit.gateway import RunningGateway

SERVICE = "/llm_gateway.v1.LLMService"
ANSWER = [STREAM_HEAD, chunk("Hi"), chunk(finish="stop"), usage(1, 1), DONE]
TOKENS = [json_response("200 OK", {"count": 1, "tokens": [1], "max_model_len": 99}, ["connection: close"])]
KINDS: dict[str, type[Message]] = {
    "ChatCompletion": pb.ChatCompletionRequest,
    "ChatCompletionStream": pb.ChatCompletionRequest,
    "Generate": pb.GenerateRequest,
    "StreamGenerate": pb.GenerateRequest,
    "CountTokens": pb.CountTokensRequest,
    "ListModels": pb.ListModelsRequest,
}
CHAT = pb.ChatCompletionRequest(messages=[message_pb2.Message(role=message_pb2.ROLE_USER, content="hello")])
SANE: dict[str, Message] = {
    "ChatCompletion": CHAT,
    "ChatCompletionStream": CHAT,
    "Generate": pb.GenerateRequest(prompt="hello"),
    "StreamGenerate": pb.GenerateRequest(prompt="hello", raw=True),
    "CountTokens": pb.CountTokensRequest(prompt="hello"),
    "ListModels": pb.ListModelsRequest(),
}


@pytest.fixture
async def gateway(method: str) -> AsyncIterator[RunningGateway]:
    """A gateway in front of a backend that answers this method; all examples of a test share it."""
    script = TOKENS if method == "CountTokens" else ANSWER
    async with ScriptedBackend(script) as backend, start_gateway(backend.url, default_model="tiny") as running:
        yield running


async def ending_of(gateway: RunningGateway, method: str, data: bytes) -> str:
    """The reason of a call's end; "" if it ended well. A bare status fails."""
    path = f"{SERVICE}/{method}"
    try:
        if method in {"ChatCompletionStream", "StreamGenerate"}:
            stream: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = gateway.channel.unary_stream(path)
            async for _ in stream(data, timeout=30):
                pass
        else:
            unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = gateway.channel.unary_unary(path)
            await unary(data, timeout=30)
    except grpc.aio.AioRpcError as error:
        return failure_of(error).reason
    return ""


@pytest.mark.parametrize("method", KINDS)
@settings(max_examples=30)
@given(data=st.binary(max_size=60))
async def test_arbitrary_bytes_end_with_a_reason(method: str, gateway: RunningGateway, data: bytes) -> None:
    assert await ending_of(gateway, method, data) != "INTERNAL"


@pytest.mark.parametrize("method", KINDS)
@settings(max_examples=100)
@given(data=st.data())
async def test_arbitrary_messages_end_with_a_reason(method: str, gateway: RunningGateway, data: st.DataObject) -> None:
    message = data.draw(messages(SANE[method].DESCRIPTOR, base=data.draw(st.sampled_from([SANE[method], None]))))

    assert await ending_of(gateway, method, message.SerializeToString()) != "INTERNAL"
