# SPDX-License-Identifier: Apache-2.0
"""Questions beside a generation, the models and the tokens of a prompt, when the backend is silent or unwell."""

from __future__ import annotations

import asyncio
import time
from typing import Self

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from llm_gateway.backends.openai import OpenAIBackend
from llm_gateway.errors import BackendLost
from llm_gateway.v1 import llm_service_pb2
from tests.kit.calls import stream, until
from tests.kit.gateway import failure_of, start_gateway
from tests.kit.scripted import DONE, STREAM_HEAD, Close, Pause, ScriptedBackend, chunk, json_response, usage

OVERLOADED = json_response("503 Service Unavailable", {"error": {"code": 503}}, ["retry-after-ms: 200"])
GOOD = (STREAM_HEAD, chunk("good", finish="stop"), usage(1, 1), DONE, Close)


class DeafServer:
    """Takes connections and requests, and never answers; counts the requests."""

    def __init__(self) -> None:
        self.asked = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._listen, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            self.asked += 1
        writer.close()


async def test_a_silent_backend_is_not_waited_for_until_the_deadline_to_count_tokens() -> None:
    timeouts = {"first_token_ms": 20}
    async with (
        ScriptedBackend([Pause()]) as backend,
        start_gateway(backend.url, default_model="tiny", timeouts=timeouts) as gateway,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway.stub.CountTokens(llm_service_pb2.CountTokensRequest(prompt="hi"), timeout=30)

    failure = failure_of(caught.value)
    assert failure.reason == "FIRST_TOKEN_TIMEOUT"
    assert len(failure.report.attempts) == 1
    assert failure.report.timing.upstream.ToTimedelta() > failure.report.timing.gateway_overhead.ToTimedelta()


async def test_a_question_that_the_deadline_ends_is_an_attempt_that_was_given_up() -> None:
    async with ScriptedBackend([Pause()]) as backend, start_gateway(backend.url, default_model="tiny") as gateway:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway.stub.CountTokens(llm_service_pb2.CountTokensRequest(prompt="hi"), timeout=0.1)

    failure = failure_of(caught.value)
    assert failure.reason == "DEADLINE_EXCEEDED"
    assert [attempt.outcome for attempt in failure.report.attempts] == [3]


async def test_the_time_limit_holds_while_the_default_model_is_looked_up() -> None:
    async with DeafServer() as backend, start_gateway(backend.url) as gateway:
        outcome = await stream(gateway, time_limit=Duration(nanos=20_000_000))

    assert outcome.failure is None
    assert outcome.finish() == "TIME_LIMIT"
    assert outcome.started.backend == "vllm"


async def test_callers_who_ask_for_the_models_at_once_share_one_request_and_its_failure() -> None:
    async with DeafServer() as server:
        backend = OpenAIBackend("vllm", server.url, timeout=0.05)
        began = time.monotonic()
        results = await asyncio.gather(*(backend.list_models() for _ in range(20)), return_exceptions=True)
        took = time.monotonic() - began
        await backend.close()

    assert {type(result) for result in results} == {BackendLost}
    assert server.asked == 1
    assert took < 20 * 0.05


async def test_one_who_leaves_does_not_take_the_list_of_models_from_the_others() -> None:
    async with ScriptedBackend([Pause()]) as server:
        backend = OpenAIBackend("vllm", server.url)
        first = asyncio.create_task(backend.list_models())
        second = asyncio.create_task(backend.list_models())
        await asyncio.sleep(0)
        first.cancel()

        assert [model.name for model in await second] == ["tiny"]
        await backend.close()


async def test_closing_a_backend_ends_the_request_for_its_models() -> None:
    async with DeafServer() as server:
        backend = OpenAIBackend("vllm", server.url)
        asking = asyncio.create_task(backend.list_models())
        await until(lambda: server.asked)
        await backend.close()

        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_the_pause_that_a_backend_asks_for_is_not_the_gateways_own_work() -> None:
    async with (
        ScriptedBackend([OVERLOADED], GOOD) as backend,
        start_gateway(backend.url, default_model="tiny") as gateway,
    ):
        outcome = await stream(gateway)

    timing = outcome.completed.timing
    assert outcome.text() == "good"
    assert timing.gateway_overhead.ToTimedelta() < timing.upstream.ToTimedelta()
