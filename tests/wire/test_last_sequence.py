# SPDX-License-Identifier: Apache-2.0
"""What a failed call says of how far it got is what its caller has in hand."""

from __future__ import annotations

from tests.kit.calls import chat_request, read_stream
from tests.kit.gateway import start_gateway
from tests.kit.scripted import STREAM_HEAD, Pause, ScriptedBackend, chunk


async def test_an_event_whose_writing_was_broken_off_is_counted() -> None:
    """The caller does not read, so that a write is under way when the time is up; gRPC delivers it all the same."""
    big = chunk("x" * 200_000)
    async with (
        ScriptedBackend([STREAM_HEAD, *[big] * 40, Pause()]) as backend,
        start_gateway(backend.url, timeout_ms=300) as gateway,
    ):
        call = gateway.stub.ChatCompletionStream(chat_request())
        await backend.left.wait()  # the time is up, and the caller has read nothing
        outcome = await read_stream(call)

    assert outcome.failure is not None
    assert outcome.failure.reason == "DEADLINE_EXCEEDED"
    assert outcome.failure.report.last_sequence == len(outcome.events)
