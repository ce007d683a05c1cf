# SPDX-License-Identifier: Apache-2.0
"""The laws of a stream as properties: whatever a backend does, and however its bytes are cut, they hold at the wire."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_gateway.v1 import error_pb2
from tests.kit.calls import Outcome, chat_request, read_stream, stream, until
from tests.kit.gateway import start_gateway
from tests.kit.scripted import (
    DONE,
    STREAM_HEAD,
    Close,
    Hold,
    Reset,
    ScriptedBackend,
    chunk,
    event,
    json_response,
    usage,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.kit.scripted import Step

EXAMPLES = settings(max_examples=40)
ABORTED = grpc.StatusCode.ABORTED

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
cuts = st.lists(st.integers(0, 5_000), max_size=10)
pieces = st.lists(st.tuples(st.integers(0, 2), texts), max_size=12)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a backend ends, and what that makes of an answer of which something was delivered."""

    steps: tuple[Step, ...]
    reason: str


ENDINGS = {
    "cut": Ending((Close,), "STREAM_INTERRUPTED"),
    "reset": Ending((Reset,), "STREAM_INTERRUPTED"),
    "done": Ending((DONE, Close), "STREAM_INTERRUPTED"),
    "usage and done": Ending((usage(3, 4), DONE, Close), "STREAM_INTERRUPTED"),
    "abort": Ending((chunk(finish="abort"), DONE, Close), "BACKEND_ABORTED"),
    "error event": Ending((event({"error": {"message": "m", "code": 500}}), DONE, Close), "STREAM_INTERRUPTED"),
    "refusal event": Ending((event({"error": {"message": "m", "code": 400}}), DONE, Close), "STREAM_INTERRUPTED"),
    "garbage": Ending((b"data: {]\n\n", Close), "STREAM_CORRUPTED"),
}


def body_of(said: Sequence[tuple[int, str]], *, finish: bool) -> bytes:
    """The answer of three choices, interleaved as said; each ended at the end if it is to be whole."""
    body = b"".join(chunk(role="assistant", index=index) for index in range(3))
    body += b"".join(chunk(text, index=index) for index, text in said)
    if finish:
        body += b"".join(chunk(finish="stop", index=index) for index in range(3))
    return body


def cut(body: bytes, places: list[int]) -> list[Step]:
    """The body as several writes."""
    borders = [0, *sorted({place % (len(body) + 1) for place in places}), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(borders) if end > start]


async def answer_of(*scripts: Sequence[Step], n: int = 3) -> Outcome:
    """What a caller sees when backends play these scripts, an attempt each."""
    async with ScriptedBackend(*scripts) as backend, start_gateway(backend.url, default_model="tiny") as gateway:
        return await stream(gateway, n=n)


def assert_prefix(outcome: Outcome, said: Sequence[tuple[int, str]]) -> None:
    """Law 2, for every choice."""
    for index in range(3):
        sent = "".join(text for where, text in said if where == index)
        assert sent.startswith(outcome.text(index))


@EXAMPLES
@given(said=pieces, places=cuts)
async def test_law_1_and_2_an_answer_that_ends_well_is_completed_and_has_all_that_was_sent(
    said: list[tuple[int, str]], places: list[int]
) -> None:
    outcome = await answer_of([STREAM_HEAD, *cut(body_of(said, finish=True) + usage(3, 4) + DONE, places), Close])

    assert outcome.failure is None
    for index in range(3):
        assert outcome.text(index) == "".join(text for where, text in said if where == index)
        assert outcome.finish(index) == "STOP"


@EXAMPLES
@given(said=pieces, places=cuts, how=st.sampled_from(sorted(ENDINGS)))
async def test_law_1_and_2_an_answer_that_breaks_off_ends_in_a_status_and_has_a_prefix_of_what_was_sent(
    said: list[tuple[int, str]], places: list[int], how: str
) -> None:
    ending = ENDINGS[how]
    script = [STREAM_HEAD, chunk("first"), *cut(body_of(said, finish=False), places), *ending.steps]

    outcome = await answer_of(script)

    assert outcome.failure is not None
    # A connection that is reset may take the whole answer with it; then nothing was delivered.
    if outcome.events:
        assert (outcome.failure.code, outcome.failure.reason) == (ABORTED, ending.reason)
    else:
        assert how == "reset"
    assert outcome.failure.report.last_sequence == len(outcome.events)
    assert_prefix(outcome, [(0, "first"), *said])


BEFORE_THE_FIRST_TOKEN: dict[str, tuple[tuple[Step, ...], str]] = {
    "reset before the head": ((Reset,), "BACKEND_LOST"),
    "closed before the head": ((Close,), "BACKEND_LOST"),
    "reset after the head": ((STREAM_HEAD, Reset), "BACKEND_LOST"),
    "role, then the end": ((STREAM_HEAD, chunk(role="assistant"), DONE, Close), "BACKEND_LOST"),
    "abort": ((STREAM_HEAD, chunk(role="assistant"), chunk(finish="abort"), DONE, Close), "BACKEND_LOST"),
    "500": ((json_response("500 Internal Server Error", {"error": {"code": 500}}),), "BACKEND_LOST"),
    "503": ((json_response("503 Service Unavailable", {"error": {"code": 503}}),), "BACKEND_OVERLOADED"),
    "429": ((json_response("429 Too Many Requests", {"error": {"code": 429}}),), "BACKEND_RATE_LIMITED"),
    "error event": ((STREAM_HEAD, event({"error": {"code": 500}}), DONE, Close), "BACKEND_LOST"),
}
GOOD: tuple[Step, ...] = (STREAM_HEAD, chunk("good", finish="stop"), usage(1, 1), DONE, Close)


@EXAMPLES
@given(failing=st.lists(st.sampled_from(sorted(BEFORE_THE_FIRST_TOKEN)), max_size=4))
async def test_law_3_what_fails_before_the_first_delta_is_tried_again_and_listed(failing: list[str]) -> None:
    scripts = [BEFORE_THE_FIRST_TOKEN[name][0] for name in failing]
    expected = [BEFORE_THE_FIRST_TOKEN[name][1] for name in failing[:3]]

    outcome = await answer_of(*scripts, GOOD, n=1)

    attempts = outcome.completed.attempts if outcome.failure is None else outcome.failure.report.attempts
    names = [error_pb2.ErrorReason.Name(attempt.reason) for attempt in attempts if attempt.reason]
    assert names == [f"ERROR_REASON_{reason}" for reason in expected]
    if len(failing) < 3:
        assert outcome.text() == "good"
        assert outcome.started.attempt == len(failing) + 1
    else:
        assert outcome.failure is not None
        assert outcome.failure.reason == expected[-1]
        assert outcome.failure.trailers["grpc-retry-pushback-ms"] == "-1"
        assert outcome.events == []


@pytest.mark.parametrize("how", sorted(ENDINGS))
async def test_law_3_nothing_is_tried_again_after_the_first_delta(how: str) -> None:
    # The second script would answer well, if it were ever asked. The gate lets the first delta arrive for certain.
    gate = asyncio.Event()
    script = [STREAM_HEAD, chunk("first"), Hold(gate), *ENDINGS[how].steps]
    async with ScriptedBackend(script, GOOD) as backend, start_gateway(backend.url, default_model="tiny") as gateway:
        call = gateway.stub.ChatCompletionStream(chat_request())
        events = aiter(call)
        seen = [await anext(events), await anext(events)]
        gate.set()
        rest = await read_stream(call, seen, events)

    assert rest.text() == "first"
    assert rest.failure is not None
    assert (rest.failure.code, rest.failure.reason) == (ABORTED, ENDINGS[how].reason)
    assert len(backend.requests) == 1


@EXAMPLES
@given(said=st.lists(texts, min_size=1, max_size=10), places=cuts)
async def test_law_4_the_first_delta_is_alone_and_merging_loses_and_miscounts_nothing(
    said: list[str], places: list[int]
) -> None:
    body = b"".join(map(chunk, said)) + chunk(finish="stop") + usage(1, len(said)) + DONE

    outcome = await answer_of([STREAM_HEAD, *cut(body, places), Close], n=1)

    with_text = [delta for delta in outcome.deltas if delta.text]
    assert with_text[0].text == said[0]
    assert outcome.text() == "".join(said)
    assert len(with_text) + outcome.completed.merged_deltas == len(said)


async def test_law_4_the_first_delta_does_not_wait_for_the_second() -> None:
    gate = asyncio.Event()
    script: list[Step] = [STREAM_HEAD, chunk("first"), Hold(gate), *GOOD[1:]]
    async with ScriptedBackend(script) as backend, start_gateway(backend.url, default_model="tiny") as gateway:
        call = gateway.stub.ChatCompletionStream(chat_request())
        events = aiter(call)
        seen = [await anext(events), await anext(events)]
        gate.set()
        outcome = await read_stream(call, seen, events)

    assert seen[1].delta.text == "first"
    assert outcome.text() == "firstgood"


async def test_law_4_deltas_that_come_one_by_one_are_not_merged() -> None:
    gates = [asyncio.Event() for _ in range(5)]
    steps: list[Step] = [step for i, gate in enumerate(gates) for step in (chunk(f"t{i}"), Hold(gate))]
    script = [STREAM_HEAD, *steps, chunk(finish="stop"), DONE, Close]
    async with ScriptedBackend(script) as backend, start_gateway(backend.url, default_model="tiny") as gateway:
        call = gateway.stub.ChatCompletionStream(chat_request())
        events = aiter(call)
        seen = [await anext(events)]
        for gate in gates:
            seen.append(await anext(events))
            gate.set()
        outcome = await read_stream(call, seen, events)

    assert [delta.text for delta in outcome.deltas[:5]] == [f"t{i}" for i in range(5)]
    assert outcome.completed.merged_deltas == 0


@EXAMPLES
@given(delivered=st.integers(0, 6))
async def test_law_5_a_caller_who_leaves_frees_the_backend_at_once(delivered: int) -> None:
    script: list[Step] = [STREAM_HEAD, *(chunk(f"t{i}") for i in range(delivered)), Hold(asyncio.Event())]
    async with ScriptedBackend(script) as backend, start_gateway(backend.url, default_model="tiny") as gateway:
        call = gateway.stub.ChatCompletionStream(chat_request())
        events = aiter(call)
        text = ""
        while len(text) < 2 * delivered:
            text += (await anext(events)).delta.text
        await until(lambda: backend.requests)
        call.cancel()
        await asyncio.wait_for(backend.left.wait(), 5)
        await until(lambda: not gateway.server.in_flight)

    assert backend.open == 0


@EXAMPLES
@given(
    running=st.lists(st.none() | st.integers(0, 50), max_size=5),
    final=st.none() | st.tuples(st.integers(0, 9), st.integers(0, 9)),
    good=st.booleans(),
)
async def test_law_7_usage_is_the_backends_last_word_or_marked_as_an_estimate(
    running: list[int | None],
    final: tuple[int, int] | None,
    good: bool,
) -> None:
    def counted(completion: int | None) -> bytes:
        payload: dict[str, object] = {"model": "tiny", "choices": [{"index": 0, "delta": {"content": "t"}}]}
        if completion is not None:
            payload["usage"] = {"prompt_tokens": 7, "completion_tokens": completion}
        return event(payload)

    body = b"".join(map(counted, running)) + chunk("x") + (chunk(finish="stop") if good else b"")
    body += usage(*final) if final is not None and good else b""

    outcome = await answer_of([STREAM_HEAD, chunk("first"), body, DONE, Close], n=1)

    cost = outcome.completed.usage if good else (outcome.failure.report.usage if outcome.failure else None)
    assert cost is not None
    assert cost.total_tokens == cost.prompt_tokens + cost.completion_tokens
    assert cost.estimated == (not good or final is None)
    last = next((count for count in reversed(running) if count is not None), None)
    if final is not None and good:
        assert (cost.prompt_tokens, cost.completion_tokens) == final
    elif last is not None:
        assert (cost.prompt_tokens, cost.completion_tokens) == (7, last)
    else:
        assert cost.completion_tokens == len(running) + 2
