# SPDX-License-Identifier: Apache-2.0
"""Many streams at once from a real vLLM, and what it says itself of how busy it is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import pytest

from llm_gateway.v1 import llm_service_pb2_grpc
from tests.kit.calls import read_stream
from tests.kit.operating import operate
from tests.kit.processes import gateway_process
from tests.vllm.asking import GREEDY, LONG, story, until_running

if TYPE_CHECKING:
    from llm_gateway.v1.admin_service_pb2 import BackendStatus
    from tests.kit.operating import Operated
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


async def until_reported(operated: Operated, running: int, waiting: int) -> BackendStatus:
    """The backend's status, once the gateway has read in its metrics that so many calls run and wait."""
    async with asyncio.timeout(30):
        while True:
            backend = (await operated.status()).models[0].backends[0]
            if (backend.reported_running, backend.reported_waiting) == (running, waiting):
                return backend
            await asyncio.sleep(0.05)


async def test_the_operator_sees_how_busy_vllm_says_it_is(victim: Vllm) -> None:
    async with operate(victim.url, health={"load_interval_ms": 100}) as operated:
        calls = [operated.gateway.stub.ChatCompletionStream(story(**LONG)) for _ in range(3)]
        busy = await until_reported(operated, 1, 2)
        for call in calls:
            call.cancel()
        idle = await until_reported(operated, 0, 0)

    assert busy.in_flight == 3
    assert 0 < busy.reported_kv_usage < 0.1
    assert idle.HasField("reported_kv_usage")
    assert idle.reported_kv_usage == 0
