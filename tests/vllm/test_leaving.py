# SPDX-License-Identifier: Apache-2.0
"""A caller who leaves, in whatever way, frees the real vLLM at once."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.kit.calls import read_stream
from tests.kit.gateway import failure_of
from tests.kit.processes import caller_process
from tests.vllm.asking import LONG, story, stream_of, until_running

if TYPE_CHECKING:
    from tests.kit.gateway import RunningGateway
    from tests.vllm.server import Vllm

pytestmark = pytest.mark.vllm


async def test_a_cancelled_stream_stops_vllm(gateway: RunningGateway, vllm: Vllm) -> None:
    call = gateway.stub.ChatCompletionStream(story(**LONG))
    await anext(aiter(call))
    await until_running(vllm, 1)

    call.cancel()

    await until_running(vllm, 0)


async def test_a_cancelled_unary_call_stops_vllm(gateway: RunningGateway, vllm: Vllm) -> None:
    call = gateway.stub.ChatCompletion(story(**LONG))
    waiting = asyncio.ensure_future(call)
    await until_running(vllm, 1)

    call.cancel()

    await until_running(vllm, 0)
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_two_choices_stop_with_their_caller(gateway: RunningGateway, vllm: Vllm) -> None:
    call = gateway.stub.ChatCompletionStream(story(n=2, temperature=1.0, **LONG))
    await anext(aiter(call))
    await until_running(vllm, 2)

    call.cancel()

    await until_running(vllm, 0)


async def test_a_killed_caller_stops_vllm(gateway: RunningGateway, vllm: Vllm) -> None:
    async with caller_process(gateway.address, **LONG) as caller:
        assert await caller.line() == "started\n"
        await until_running(vllm, 1)

        caller.send(signal.SIGKILL)

        await until_running(vllm, 0)


async def test_a_deadline_stops_vllm_and_says_how_far_it_got(gateway: RunningGateway, vllm: Vllm) -> None:
    outcome = await read_stream(gateway.stub.ChatCompletionStream(story(**LONG), timeout=1.0))

    assert outcome.failure is not None
    assert outcome.failure.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert outcome.failure.report.last_sequence == len(outcome.events) > 1
    assert outcome.failure.report.usage.completion_tokens > 0
    await until_running(vllm, 0)


async def test_a_time_limit_ends_the_answer_well_and_stops_vllm(gateway: RunningGateway, vllm: Vllm) -> None:
    outcome = await stream_of(gateway, story(time_limit=Duration(nanos=500_000_000), **LONG))

    assert outcome.failure is None
    assert outcome.finish() == "TIME_LIMIT"
    assert outcome.text() != ""
    assert outcome.completed.usage.estimated
    await until_running(vllm, 0)


async def test_a_deadline_of_a_unary_call_stops_vllm(gateway: RunningGateway, vllm: Vllm) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.stub.ChatCompletion(story(**LONG), timeout=0.7)

    assert failure_of(caught.value).code is grpc.StatusCode.DEADLINE_EXCEEDED
    await until_running(vllm, 0)
