# SPDX-License-Identifier: Apache-2.0
"""Requests for a real vLLM, and what its answers are held to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from llm_gateway.v1 import generation_pb2, llm_service_pb2, message_pb2
from tests.kit.calls import Outcome, chat_request, read_stream

if TYPE_CHECKING:
    from tests.kit.gateway import RunningGateway
    from tests.vllm.server import Vllm

STORY = "Tell me a story."
GREEDY: dict[str, Any] = {"temperature": 0.0}
LONG: dict[str, Any] = {"ignore_eos": True}
"""An answer that ends only where the context does: some seconds on a CPU."""
TOKENS = 1900
"""Of an answer that is nearly as long, and of known length."""


def story(**params: Any) -> llm_service_pb2.ChatCompletionRequest:
    """A chat; keyword arguments are GenerationParams."""
    return chat_request(STORY, **params)


def shaped(**constraint: Any) -> llm_service_pb2.ChatCompletionRequest:
    """A chat whose answer has a form."""
    request = story(max_tokens=200)
    request.structured_output.CopyFrom(generation_pb2.StructuredOutput(**constraint))
    return request


def calling(
    tools: list[message_pb2.Tool], choice: message_pb2.ToolChoice, **params: Any
) -> llm_service_pb2.ChatCompletionRequest:
    """A chat that may call functions."""
    request = story(**params)
    request.tools.extend(tools)
    request.tool_choice.CopyFrom(choice)
    return request


def raw(prompt: str = "once upon", **params: Any) -> llm_service_pb2.GenerateRequest:
    """A prompt without a chat template."""
    return llm_service_pb2.GenerateRequest(prompt=prompt, raw=True, params=generation_pb2.GenerationParams(**params))


async def stream_of(gateway: RunningGateway, request: Any, **options: Any) -> Outcome:
    """Stream a request of either kind to its end."""
    chat = isinstance(request, llm_service_pb2.ChatCompletionRequest)
    method: Any = gateway.stub.ChatCompletionStream if chat else gateway.stub.StreamGenerate
    return await read_stream(method(request, timeout=60, **options))


async def until_running(vllm: Vllm, count: int, *, waiting: int = 0) -> None:
    """Wait until vLLM generates for exactly so many requests, and so many wait in it."""
    async with asyncio.timeout(30):
        while (await vllm.running(), await vllm.waiting()) != (count, waiting):  # noqa: ASYNC110 - vLLM does not tell
            await asyncio.sleep(0.05)
