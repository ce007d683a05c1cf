# SPDX-License-Identifier: Apache-2.0
"""A caller who does not read: it holds the backend back, loses nothing, and blames nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.kit.calls import chat_request, read_stream, until
from tests.kit.gateway import start_gateway
from tests.kit.logs import captured_logs
from tests.kit.scripted import DONE, STREAM_HEAD, Pause, ScriptedBackend, Step, chunk, usage
from tests.kit.waiting import settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PIECES = [f"{number:06}" + "x" * 65_530 for number in range(1000)]
"""64 MB, in order: several times what all buffers between a backend and a caller hold."""
CHUNKS = [chunk(piece) for piece in PIECES]
SIZE = sum(map(len, CHUNKS))
END = [chunk(finish="stop"), usage(1, len(PIECES)), DONE]


@pytest.fixture
async def generous() -> AsyncIterator[ScriptedBackend]:
    """A backend that sends more than anybody holds."""
    async with ScriptedBackend([STREAM_HEAD, *CHUNKS, *END]) as backend:
        yield backend


@pytest.fixture
async def endless() -> AsyncIterator[ScriptedBackend]:
    """A backend that sends more than anybody holds, and never ends."""
    async with ScriptedBackend([STREAM_HEAD, *CHUNKS, Pause()]) as backend:
        yield backend


async def held_back(backend: ScriptedBackend, calm: float = 0.1) -> None:
    """Wait until nothing has moved for a while between the backend and a caller who does not read."""
    await until(lambda: backend.sent)
    assert await settled(lambda: backend.sent, calm) < SIZE, "somebody holds it all"


async def test_a_caller_who_stops_reading_stops_the_reading_from_the_backend(generous: ScriptedBackend) -> None:
    async with start_gateway(generous.url) as gateway:
        call = gateway.stub.ChatCompletionStream(chat_request(), timeout=60)

        await held_back(generous)

        call.cancel()


async def test_a_caller_who_reads_on_gets_it_all_in_larger_pieces(generous: ScriptedBackend) -> None:
    async with start_gateway(generous.url) as gateway:
        call = gateway.stub.ChatCompletionStream(chat_request(), timeout=60)
        await held_back(generous)

        outcome = await read_stream(call)

    assert outcome.failure is None
    assert outcome.text() == "".join(PIECES)
    assert outcome.completed.merged_deltas > 0
    assert len([delta for delta in outcome.deltas if delta.text]) + outcome.completed.merged_deltas == len(PIECES)
    assert outcome.completed.timing.client_stall.ToMilliseconds() >= 100, "as long as it was held back at least"


async def test_a_silence_of_the_callers_is_no_silence_of_the_backends(generous: ScriptedBackend) -> None:
    async with start_gateway(generous.url, timeouts={"idle_ms": 200}) as gateway:
        call = gateway.stub.ChatCompletionStream(chat_request(), timeout=60)
        await held_back(generous, calm=0.4)

        outcome = await read_stream(call)

    assert outcome.failure is None
    assert outcome.finish() == "STOP"


async def test_a_time_limit_that_passes_meanwhile_ends_the_answer_well(endless: ScriptedBackend) -> None:
    limit = Duration(nanos=50_000_000)
    async with start_gateway(endless.url) as gateway:
        call = gateway.stub.ChatCompletionStream(chat_request(time_limit=limit), timeout=60)
        await settled(lambda: endless.sent)

        outcome = await read_stream(call)
        await endless.left.wait()

    assert outcome.failure is None
    assert outcome.finish() == "TIME_LIMIT"
    assert "".join(PIECES).startswith(outcome.text())


async def test_a_deadline_that_passes_meanwhile_frees_the_backend(endless: ScriptedBackend) -> None:
    async with start_gateway(endless.url, timeout_ms=500) as gateway:
        call = gateway.stub.ChatCompletionStream(chat_request())

        await endless.left.wait()
        await until(lambda: gateway.server.in_flight == 0)
        outcome = await read_stream(call)

    assert outcome.failure is not None
    assert outcome.failure.code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "".join(PIECES).startswith(outcome.text())


async def test_a_failure_that_its_caller_does_not_read_is_told_at_once_and_kept_for_it(
    endless: ScriptedBackend,
) -> None:
    """gRPC waits with a status for the caller's flow control; the call is over all the same."""
    with captured_logs() as logs:
        async with start_gateway(endless.url, timeout_ms=300) as gateway:
            call = gateway.stub.ChatCompletionStream(chat_request())

            await until(lambda: logs.calls)
            outcome = await read_stream(call)

    assert [(line["status"], line["reason"]) for line in logs.calls] == [("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")]
    assert outcome.failure is not None
    assert outcome.failure.reason == "DEADLINE_EXCEEDED"


async def test_a_slow_caller_slows_no_other() -> None:
    """Each stream is held back alone, also on one connection."""
    scripts: list[list[Step]] = [[STREAM_HEAD, *CHUNKS, Pause()], [STREAM_HEAD, chunk("quick"), *END]]
    async with ScriptedBackend(*scripts) as backend, start_gateway(backend.url) as gateway:
        slow = gateway.stub.ChatCompletionStream(chat_request(), timeout=60)
        await held_back(backend)

        outcome = await read_stream(gateway.stub.ChatCompletionStream(chat_request(), timeout=60))
        slow.cancel()

    assert outcome.text() == "quick"
