# SPDX-License-Identifier: Apache-2.0
"""Many streams at once from a real vLLM, through a gateway in a process of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import pytest

from llm_gateway.v1 import llm_service_pb2_grpc
from tests.kit.calls import read_stream
from tests.kit.processes import gateway_process
from tests.vllm.asking import GREEDY, story, until_running

if TYPE_CHECKING:
    from tests.vllm.server import Vllm

pytestmark = pytest.mark.vllm

STREAMS = 32
TOKENS = 64


async def test_thirty_two_streams_are_all_whole_and_all_right(vllm: Vllm) -> None:
    """A greedy answer does not depend on the company it is generated in: all of them are the first one's."""
    request = story(max_tokens=TOKENS, ignore_eos=True, seed=1, **GREEDY)
    async with gateway_process(vllm.url) as gateway, grpc.aio.insecure_channel(gateway.address) as channel:
        stub = llm_service_pb2_grpc.LLMServiceStub(channel)
        alone = await read_stream(stub.ChatCompletionStream(request))
        outcomes = await asyncio.gather(*(read_stream(stub.ChatCompletionStream(request)) for _ in range(STREAMS)))

    assert [outcome.failure for outcome in outcomes] == [None] * STREAMS
    assert {("LENGTH", TOKENS)} == {(o.finish(), o.completed.usage.completion_tokens) for o in outcomes}
    assert {alone.text()} == {outcome.text() for outcome in outcomes}
    await until_running(vllm, 0)
