# SPDX-License-Identifier: Apache-2.0
"""Every edge of a backend's protocol has one ending: a table of bytes in, and what callers get out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from llm_gateway.v1 import outcome_pb2
from tests.kit.calls import Outcome, chat_request, read_stream
from tests.kit.gateway import RunningGateway, failure_of, start_gateway
from tests.kit.scripted import Close, Reset, ScriptedBackend
from tests.wire import meaning_edges, transport_edges
from tests.wire.edges import HELLO, Fault, Row, Whole, streamed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.kit.scripted import Step

ROWS = transport_edges.ROWS | meaning_edges.ROWS
each_edge = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
SETTINGS: dict[str, Any] = {"retry": {"max_attempts": 1}, "backend": {"max_event_bytes": transport_edges.LARGEST_EVENT}}


@pytest.fixture
async def backend(row: Row) -> AsyncIterator[ScriptedBackend]:
    """A backend that plays the row."""
    async with ScriptedBackend(row.script) as playing:
        yield playing


@pytest.fixture
async def gateway(backend: ScriptedBackend) -> AsyncIterator[RunningGateway]:
    """A gateway that tries once."""
    async with start_gateway(backend.url, **SETTINGS) as running:
        yield running


def test_no_two_rows_have_one_name() -> None:
    assert set() == transport_edges.ROWS.keys() & meaning_edges.ROWS.keys()


@each_edge
async def test_a_stream_ends_as_the_table_says(gateway: RunningGateway, backend: ScriptedBackend, row: Row) -> None:
    outcome = await read_stream(gateway.stub.ChatCompletionStream(chat_request(**row.params), timeout=20))

    if isinstance(row.ending, Fault):
        assert outcome.failure is not None
        assert row.ending == Fault(outcome.failure.code.name, outcome.failure.reason, outcome.text())
    else:
        assert outcome.failure is None
        assert row.ending == _told(outcome, row.ending)
    assert len(backend.requests) == 1


@each_edge
async def test_a_unary_call_ends_as_the_table_says(gateway: RunningGateway, backend: ScriptedBackend, row: Row) -> None:
    call = gateway.stub.ChatCompletion(chat_request(**row.params), timeout=20)

    if isinstance(row.ending, Fault):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        failure = failure_of(caught.value)
        assert (row.ending.code, row.ending.reason) == (failure.code.name, failure.reason)
    else:
        answer = await call
        texts = tuple(choice.message.content for choice in answer.choices)
        finishes = tuple(_finish_name(choice.finish_reason) for choice in answer.choices)
        assert (tuple(row.ending.texts), tuple(row.ending.finishes)) == (texts, finishes)
    assert len(backend.requests) == 1


@pytest.mark.parametrize("broken", [[Reset], [Close]], ids=["reset", "closed"])
async def test_a_connection_that_breaks_before_the_head_is_tried_once_more(broken: list[Step]) -> None:
    async with (
        ScriptedBackend(broken, streamed(*HELLO)) as backend,
        start_gateway(backend.url, retry={"max_attempts": 2}) as gateway,
    ):
        outcome = await read_stream(gateway.stub.ChatCompletionStream(chat_request()))

    assert outcome.text() == "Hello"
    assert [attempt.outcome for attempt in outcome.completed.attempts] == [
        outcome_pb2.Attempt.OUTCOME_FAILED,
        outcome_pb2.Attempt.OUTCOME_SERVED,
    ]


def _told(outcome: Outcome, expected: Whole) -> Whole:
    indexes = range(len(expected.texts))
    told = {name: TOLD[name](outcome) for name in expected.more}
    return Whole(tuple(map(outcome.text, indexes)), tuple(map(outcome.finish, indexes)), told)


def _calls(outcome: Outcome) -> list[tuple[str, str, str]]:
    calls: dict[int, tuple[str, str, str]] = {}
    for delta in outcome.deltas:
        for piece in delta.tool_calls:
            id_, name, arguments = calls.get(piece.index, ("", "", ""))
            calls[piece.index] = id_ + piece.id, name + piece.name, arguments + piece.arguments
    return list(calls.values())


def _usage(outcome: Outcome) -> tuple[int, int] | None:
    usage = outcome.completed.usage
    return None if usage.estimated else (usage.prompt_tokens, usage.completion_tokens)


def _finish_name(reason: Any) -> str:
    return outcome_pb2.FinishReason.Name(reason).removeprefix("FINISH_REASON_")


TOLD: dict[str, Any] = {
    "calls": _calls,
    "usage": _usage,
    "reasoning": lambda outcome: "".join(delta.reasoning for delta in outcome.deltas),
    "logprobs": lambda outcome: [token.logprob for delta in outcome.deltas for token in delta.logprobs.content],
    "model": lambda outcome: outcome.started.model,
    "stop_sequence": lambda outcome: outcome.deltas[-1].stop_sequence,
    "stop_token_id": lambda outcome: outcome.deltas[-1].stop_token_id,
    "backend_finish_reason": lambda outcome: outcome.deltas[-1].backend_finish_reason,
}
