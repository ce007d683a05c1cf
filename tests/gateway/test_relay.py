# SPDX-License-Identifier: Apache-2.0
"""The relay of one answer, below the wire: a scripted stream in, events out, attempts and usage recorded."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from llm_gateway import errors as e
from llm_gateway.deadline import NEVER, TimeLimitReached, Watchdog
from llm_gateway.gateway.relay import Relay, after_commit
from llm_gateway.generation import (
    Attempt,
    AttemptOutcome,
    Completed,
    Finish,
    FinishReason,
    Generation,
    Piece,
    Started,
    StreamOptions,
    TokenLogprob,
    ToolCallPiece,
    Usage,
)
from llm_gateway.observability.call import Call
from llm_gateway.upstream.budget import RetryBudget
from llm_gateway.upstream.ejection import Ejection, EjectionPolicy
from llm_gateway.upstream.endpoint import Endpoint
from llm_gateway.upstream.pool import Lease, Pool
from llm_gateway.upstream.spec import Address, BackendSpec, ModelSpec, Timeouts
from tests.kit.calls import until

if TYPE_CHECKING:
    from llm_gateway.gateway.relay import Event

STOP = Finish(FinishReason.STOP)
COST = Usage(prompt_tokens=3, completion_tokens=4)
Step = list[Piece] | Exception


class Forever:
    """A read that never returns."""


@dataclass
class ScriptedStream:
    """An AnswerStream that gives what a test wrote down, one read after another."""

    steps: list[Step | type[Forever]]
    ends: list[Piece] = field(default_factory=list)
    whole: bool = False
    model: str | None = "served"
    closed: int = 0

    @property
    def finished(self) -> bool:
        return not self.steps

    async def read(self) -> list[Piece]:
        step = self.steps.pop(0)
        if step is Forever:
            self.steps.insert(0, step)
            await asyncio.get_running_loop().create_future()
        if isinstance(step, Exception):
            raise step
        assert isinstance(step, list)
        self.whole = any(piece.finish for piece in step)
        return step

    def settle(self) -> list[Piece]:
        ends, self.ends = self.ends, []
        return ends

    def time_limit(self) -> list[Piece]:
        return [Piece(0, finish=Finish(FinishReason.TIME_LIMIT))]

    def usage(self) -> Usage:
        return COST

    async def close(self) -> None:
        self.closed += 1


class ScriptedBackend:
    """Opens its streams in order; an exception in the place of one is raised."""

    name = "scripted"

    def __init__(self, *streams: ScriptedStream | Exception | type[Forever]) -> None:
        self._streams = list(streams)

    async def open(self, *_: Any) -> ScriptedStream:
        stream = self._streams.pop(0)
        if isinstance(stream, Exception):
            raise stream
        if stream is Forever:
            await asyncio.get_running_loop().create_future()
        assert isinstance(stream, ScriptedStream)
        return stream


class Caller:
    """Takes events; `texts` is what a choice has said."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.begun = 0

    async def begin(self) -> None:
        self.begun += 1

    async def write(self, event: Event) -> None:
        self.events.append(event)

    @property
    def pieces(self) -> list[Piece]:
        return [event for event in self.events if isinstance(event, Piece)]

    @property
    def texts(self) -> list[str]:
        return [piece.text for piece in self.pieces]

    @property
    def completed(self) -> Completed:
        last = self.events[-1]
        assert isinstance(last, Completed)
        return last


@dataclass
class Bench:
    """A relay with all that it needs."""

    caller: Caller
    call: Call
    relay: Relay
    lease: Lease

    async def attempt(self) -> None:
        await self.relay.attempt(self.lease)


def bench(
    *streams: ScriptedStream | Exception | type[Forever],
    generation: Generation | None = None,
    soft: float = NEVER,
    caller: Caller | None = None,
    **timeouts: float,
) -> Bench:
    """A relay in front of these streams; timers are an hour but for those given, in seconds."""
    call = Call("r-1", "ChatCompletionStream", deadline=time.monotonic() + 3600, timeout=3600)
    caller = caller or Caller()
    limits = {"first_token": 3600.0, "idle": 3600.0, "usage": 3600.0} | timeouts
    backend: Any = ScriptedBackend(*streams)  # a relay does nothing with it but open streams
    spec = BackendSpec(name="scripted", urls=("http://scripted",), timeouts=Timeouts(**limits))
    endpoint = Endpoint(backend, spec, Address("http://scripted"), ejection=Ejection(EjectionPolicy()))
    pool = Pool(ModelSpec(name="asked", backends=(spec,)), budget=RetryBudget())
    lease = Lease(pool, endpoint, "asked", Generation())
    watchdog = Watchdog(call.deadline, soft)
    relay = Relay(generation or Generation(), call, watchdog, caller, max_stall=60.0)
    return Bench(caller, call, relay, lease)


def attempts_of(call: Call) -> list[tuple[AttemptOutcome, str | None]]:
    return [(attempt.outcome, attempt.reason) for attempt in call.attempts]


# ---------------------------------------------------------------------------------------------------- a good answer


async def test_an_answer_is_started_delivered_and_completed() -> None:
    stream = ScriptedStream([[Piece(0, "a")], [Piece(0, "b", finish=STOP)]])
    it = bench(stream)

    await it.attempt()

    assert it.caller.events[0] == Started("served", "scripted", 1)
    assert it.caller.texts == ["a", "b"]
    assert it.caller.completed.usage == it.call.usage == COST
    assert [a.outcome for a in it.caller.completed.attempts] == [AttemptOutcome.SERVED]
    assert attempts_of(it.call) == [(AttemptOutcome.SERVED, None)]
    assert stream.closed == 1


async def test_the_model_is_the_asked_one_where_the_backend_names_none() -> None:
    it = bench(ScriptedStream([[Piece(0, "a", finish=STOP)]], model=None))

    await it.attempt()

    assert it.caller.events[0] == Started("asked", "scripted", 1)


@pytest.mark.parametrize(
    "content",
    [
        {"text": "a"},
        {"reasoning": "a"},
        {"tool_calls": (ToolCallPiece(0, "i", "f", ""),)},
        {"logprobs": (TokenLogprob("a", -1.0, b"a"),)},
    ],
    ids=["text", "reasoning", "tool call", "logprobs"],
)
async def test_whatever_can_be_delivered_opens_the_stream(content: dict[str, Any]) -> None:
    it = bench(ScriptedStream([[], [Piece(0, **content)], Forever]), first_token=3600, idle=0.0)

    with pytest.raises(e.StreamStalled):
        await it.attempt()

    assert [type(event) for event in it.caller.events] == [Started, Piece]


async def test_an_end_alone_does_not_open_the_stream_but_waits_for_the_first_content() -> None:
    steps: list[Any] = [[Piece(1, finish=STOP)], [Piece(0, "a")], [Piece(0, finish=STOP)]]
    it = bench(ScriptedStream(steps))

    await it.attempt()

    assert [(piece.index, piece.text) for piece in it.caller.pieces] == [(0, "a"), (1, ""), (0, "")]


async def test_an_answer_without_content_is_started_when_it_is_completed() -> None:
    it = bench(ScriptedStream([[Piece(0, finish=STOP)]]))

    await it.attempt()

    assert [type(event) for event in it.caller.events] == [Started, Piece, Completed]


async def test_the_first_piece_leaves_alone_and_what_came_with_it_follows_as_one() -> None:
    it = bench(ScriptedStream([[Piece(0, "a"), Piece(0, "b"), Piece(0, "c")], [Piece(0, finish=STOP)]]))

    await it.attempt()

    assert it.caller.texts == ["a", "bc", ""]
    assert it.caller.completed.merged_deltas == 1


async def test_only_neighbours_of_one_choice_are_merged_and_an_end_is_not_counted() -> None:
    read = [Piece(0, "b"), Piece(0, "c"), Piece(1, "x"), Piece(0, "d"), Piece(0, finish=STOP)]
    it = bench(ScriptedStream([[Piece(0, "a")], read]))

    await it.attempt()

    assert [(piece.index, piece.text) for piece in it.caller.pieces] == [(0, "a"), (0, "bc"), (1, "x"), (0, "d")]
    assert it.caller.pieces[-1].finish == STOP
    assert it.caller.completed.merged_deltas == it.call.merged == 1


# ------------------------------------------------------------------------------------------------------- an interval


def with_interval(seconds: float, max_merge_bytes: int = 65_536) -> Generation:
    options = StreamOptions(min_flush_interval=seconds, max_merge_bytes=max_merge_bytes)
    return Generation(stream_options=options)


async def test_within_an_interval_pieces_wait_and_leave_as_one() -> None:
    steps: list[Any] = [[Piece(0, "a"), Piece(0, "b")], [Piece(0, "c")], [Piece(0, "d", finish=STOP)]]
    it = bench(ScriptedStream(steps), generation=with_interval(3600))

    await it.attempt()

    assert it.caller.texts == ["a", "bcd"]


async def test_an_interval_that_is_over_lets_them_leave_without_anything_new() -> None:
    steps: list[Any] = [[Piece(0, "a"), Piece(0, "b")], Forever]
    it = bench(ScriptedStream(steps), generation=with_interval(0.001), idle=0.1)

    with pytest.raises(e.StreamStalled):
        await it.attempt()

    assert it.caller.texts == ["a", "b"]


async def test_the_most_bytes_that_may_wait_are_bytes_and_not_characters() -> None:
    steps: list[Any] = [[Piece(0, "a")], [Piece(0, "é")], [Piece(0, "b")], [Piece(0, reasoning="éé")], [Piece(0, "z")]]
    it = bench(ScriptedStream([*steps, [Piece(0, finish=STOP)]]), generation=with_interval(3600, 3))

    await it.attempt()

    assert [(piece.text, piece.reasoning) for piece in it.caller.pieces] == [
        ("a", ""),
        ("éb", ""),
        ("", "éé"),
        ("z", ""),
    ]


async def test_what_an_interval_holds_back_is_delivered_before_a_failure() -> None:
    steps: list[Any] = [[Piece(0, "a")], [Piece(0, "b")], [Piece(0, "c")], e.BackendLost("gone")]
    it = bench(ScriptedStream(steps), generation=with_interval(3600))

    with pytest.raises(e.StreamInterrupted):
        await it.attempt()

    assert it.caller.texts == ["a", "bc"]


# ------------------------------------------------------------------------------------------------------- a bad answer


@pytest.mark.parametrize(
    "error", [e.BackendLost("x"), e.BackendOverloaded("x"), e.InvalidRequest("x"), e.ModelNotFound("x")], ids=type
)
@pytest.mark.parametrize("where", ["opening", "reading"])
async def test_before_the_first_event_an_error_is_what_it_is(error: e.GatewayError, where: str) -> None:
    it = bench(error if where == "opening" else ScriptedStream([[], error]))

    with pytest.raises(type(error)):
        await it.attempt()

    assert it.caller.events == []
    assert not it.relay.committed
    assert attempts_of(it.call) == [(AttemptOutcome.FAILED, error.reason)]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (e.BackendLost("x"), e.StreamInterrupted),
        (e.BackendOverloaded("x"), e.StreamInterrupted),
        (e.BackendGaveUp("x"), e.BackendAborted),
        (e.FirstTokenTimeout("x"), e.StreamStalled),
        (e.BackendProtocolError("x"), e.StreamCorrupted),
        (e.InvalidRequest("x"), e.StreamInterrupted),
        (e.ModelNotFound("x"), e.StreamInterrupted),
        (e.StreamStalled("x"), e.StreamStalled),
        (e.DeadlineExceeded("x"), e.DeadlineExceeded),
        (e.DrainExpired("x"), e.DrainExpired),
    ],
)
async def test_after_the_first_event_an_error_says_that_part_was_delivered(
    error: e.GatewayError, expected: type[e.GatewayError]
) -> None:
    stream = ScriptedStream([[Piece(0, "a")], error])
    it = bench(stream)

    with pytest.raises(e.GatewayError) as raised:
        await it.attempt()

    assert type(raised.value) is type(after_commit(error)) is expected
    assert it.caller.texts == ["a"]
    assert it.call.usage == COST
    assert stream.closed == 1


@pytest.mark.parametrize("error", [e.DeadlineExceeded("x"), e.DrainExpired("x")], ids=type)
async def test_what_ends_a_call_from_this_side_does_not_blame_the_backend(error: e.GatewayError) -> None:
    it = bench(ScriptedStream([error]))

    with pytest.raises(type(error)):
        await it.attempt()

    assert attempts_of(it.call) == [(AttemptOutcome.CANCELLED, None)]


async def test_a_caller_who_leaves_ends_the_attempt_and_closes_the_stream() -> None:
    stream = ScriptedStream([[Piece(0, "a")], Forever])
    it = bench(stream)
    task = asyncio.create_task(it.attempt())
    await until(lambda: it.caller.texts)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert attempts_of(it.call) == [(AttemptOutcome.CANCELLED, None)]
    assert it.call.usage == COST
    assert stream.closed == 1


async def test_a_second_attempt_says_that_it_is_the_second() -> None:
    it = bench(e.BackendLost("x"), ScriptedStream([[Piece(0, "a", finish=STOP)]]))
    with pytest.raises(e.BackendLost):
        await it.attempt()

    await it.attempt()

    assert it.caller.events[0] == Started("served", "scripted", 2)
    assert [a.outcome for a in it.caller.completed.attempts] == [AttemptOutcome.FAILED, AttemptOutcome.SERVED]
    assert it.relay.attempts == 2


async def test_what_a_failed_attempt_held_is_not_delivered_by_the_next() -> None:
    first = ScriptedStream([[Piece(0, finish=STOP)], e.BackendLost("x")])
    it = bench(first, ScriptedStream([[Piece(0, "a", finish=STOP)]]))
    with pytest.raises(e.BackendLost):
        await it.attempt()

    await it.attempt()

    assert len(it.caller.pieces) == 1


# ------------------------------------------------------------------------------------------------------------- timers


@pytest.mark.parametrize("where", ["opening", "reading", "nothing to deliver"])
async def test_the_first_token_timer_runs_until_something_can_be_delivered(where: str) -> None:
    streams = {
        "opening": Forever,
        "reading": ScriptedStream([Forever]),
        "nothing to deliver": ScriptedStream([[], [], Forever]),
    }
    it = bench(streams[where], first_token=0.001)  # type: ignore[arg-type]  # a row of the table

    with pytest.raises(e.FirstTokenTimeout):
        await it.attempt()

    assert attempts_of(it.call) == [(AttemptOutcome.FAILED, "FIRST_TOKEN_TIMEOUT")]


async def test_the_idle_timer_takes_over_after_the_first_event() -> None:
    it = bench(ScriptedStream([[Piece(0, "a")], Forever]), idle=0.001)

    with pytest.raises(e.StreamStalled):
        await it.attempt()

    assert it.caller.texts == ["a"]


async def test_a_usage_that_does_not_come_is_not_waited_for_for_long() -> None:
    stream = ScriptedStream(
        [[Piece(0, "a", finish=None)], [Piece(1, finish=STOP)], Forever], ends=[Piece(0, finish=STOP)]
    )
    it = bench(stream, usage=0.001)

    await it.attempt()

    assert it.caller.pieces[-1].finish == STOP
    assert it.caller.completed.usage == COST
    assert attempts_of(it.call) == [(AttemptOutcome.SERVED, None)]


async def test_the_time_limit_ends_an_answer_well_where_it_is() -> None:
    stream = ScriptedStream([[Piece(0, "a")], [Piece(0, "b")], Forever])
    it = bench(stream, soft=time.monotonic() + 0.005)
    with pytest.raises(TimeLimitReached):
        await it.attempt()

    await it.relay.end_early()

    assert it.caller.texts == ["a", "b", ""]
    assert it.caller.pieces[-1].finish == Finish(FinishReason.TIME_LIMIT)
    assert it.caller.completed.usage == COST
    assert attempts_of(it.call) == [(AttemptOutcome.SERVED, None)]
    assert stream.closed == 1


async def test_the_time_limit_ends_even_an_answer_that_has_not_begun() -> None:
    it = bench(Forever, generation=Generation(sampling={"n": 2}), soft=time.monotonic() + 0.001)
    with pytest.raises(TimeLimitReached):
        await it.attempt()

    await it.relay.end_early()

    assert it.caller.events[0] == Started("asked", "scripted", 1)
    assert [(p.index, p.finish) for p in it.caller.pieces] == [(i, Finish(FinishReason.TIME_LIMIT)) for i in range(2)]
    assert attempts_of(it.call) == [(AttemptOutcome.CANCELLED, None)]
    assert not it.lease.answers  # the end is ours: a silent backend has earned nothing by it


async def test_the_ends_of_an_attempt_that_failed_are_not_delivered_when_the_time_is_up() -> None:
    it = bench(ScriptedStream([[Piece(1, finish=STOP)], e.BackendLost("x")]), generation=Generation(sampling={"n": 2}))
    with pytest.raises(e.BackendLost):
        await it.attempt()

    await it.relay.end_early()

    assert [(p.index, p.finish) for p in it.caller.pieces] == [(i, Finish(FinishReason.TIME_LIMIT)) for i in range(2)]


class SlowToBegin(Caller):
    """Takes a while until it has taken the initial metadata."""

    def __init__(self) -> None:
        super().__init__()
        self.beginning = asyncio.Event()
        self.go_on = asyncio.Event()

    async def begin(self) -> None:
        self.beginning.set()
        await self.go_on.wait()
        await super().begin()


async def test_what_ends_a_call_while_it_begins_does_not_break_off_the_beginning() -> None:
    """gRPC could not send a status behind half of the initial metadata, and the caller would wait for ever."""
    caller = SlowToBegin()
    it = bench(ScriptedStream([[Piece(0, "a")], Forever]), caller=caller)
    attempt = asyncio.create_task(it.attempt())
    await caller.beginning.wait()

    it.relay.watchdog.interrupt(e.CancelledByOperator("Enough."))
    await asyncio.sleep(0)
    caller.go_on.set()

    with pytest.raises(e.CancelledByOperator):
        await attempt
    assert caller.begun == 1
    assert caller.events == []


async def test_a_backend_has_answered_once_its_first_token_is_there() -> None:
    it = bench(ScriptedStream([[], [Piece(0, "a")], e.BackendLost("x")]))
    with pytest.raises(e.StreamInterrupted):
        await it.attempt()

    assert it.lease.answers


async def test_the_time_limit_between_two_attempts_adds_none() -> None:
    it = bench(e.BackendLost("x"))
    with pytest.raises(e.BackendLost):
        await it.attempt()

    await it.relay.end_early()

    assert it.caller.events[0] == Started("asked", "scripted", 1)
    assert attempts_of(it.call) == [(AttemptOutcome.FAILED, "BACKEND_LOST")]


async def test_an_attempt_knows_how_long_it_took() -> None:
    before = time.monotonic()
    it = bench(ScriptedStream([[Piece(0, "a", finish=STOP)]]))

    await it.attempt()

    [attempt] = it.call.attempts
    assert isinstance(attempt, Attempt)
    assert 0 < attempt.duration <= time.monotonic() - before


# ------------------------------------------------------------------------------------------- order, limits, blame


async def test_token_ids_without_a_text_yet_stay_before_the_text_that_opens_the_stream() -> None:
    read = [
        Piece(0, token_ids=(1,)),
        Piece(1, token_ids=(9,)),
        Piece(0, "ab", token_ids=(2,)),
        Piece(0, token_ids=(3,)),
    ]
    it = bench(ScriptedStream([read, [Piece(0, finish=STOP)]]))

    await it.attempt()

    first, *later = it.caller.pieces
    assert (first.text, first.token_ids) == ("ab", (1, 2))
    assert [(piece.index, piece.token_ids) for piece in later] == [(1, (9,)), (0, (3,)), (0, ())]


async def test_a_failure_after_a_silence_delivers_what_an_interval_held_back_too() -> None:
    steps: list[Any] = [[Piece(0, "a")], [Piece(0, "b")], Forever]
    it = bench(ScriptedStream(steps), generation=with_interval(3600), idle=0.001)

    with pytest.raises(e.StreamStalled):
        await it.attempt()

    assert it.caller.texts == ["a", "b"]


@pytest.mark.parametrize(
    "content",
    [
        {"tool_calls": (ToolCallPiece(0, None, None, "x" * 100),)},
        {"reasoning": "x" * 100},
        {"logprobs": (TokenLogprob("a", -1.0, b"a"),) * 4},
        {"token_ids": (1,) * 25, "text": "a"},
    ],
    ids=["arguments", "reasoning", "logprobs", "token ids"],
)
async def test_whatever_a_piece_is_made_of_counts_towards_the_most_that_may_wait(content: dict[str, Any]) -> None:
    steps: list[Any] = [[Piece(0, "a"), Piece(0, "b")], [Piece(0, **content)], [Piece(0, "c")], [Piece(0, finish=STOP)]]
    it = bench(ScriptedStream(steps), generation=with_interval(3600, 100))

    await it.attempt()

    assert len(it.caller.pieces) == 3
    assert it.caller.pieces[-1].text == "c"


async def test_what_is_no_usage_does_not_stretch_the_wait_for_it() -> None:
    class Chatty(ScriptedStream):
        """Goes on for ever after its end, with nothing in it."""

        finished = False

        async def read(self) -> list[Piece]:
            if self.steps:
                return await super().read()
            await asyncio.sleep(0.001)
            return []

    it = bench(Chatty([[Piece(0, "a", finish=STOP)]]), usage=0.01)

    await it.attempt()

    assert it.caller.completed.usage == COST


async def test_letting_held_pieces_leave_is_no_sign_of_life() -> None:
    ends: list[float] = []

    class Silent(ScriptedStream):
        """Falls silent, and is lost in the end; notes when the watchdog would end each read."""

        async def read(self) -> list[Piece]:
            ends.append(it.relay.watchdog._limit)
            if len(ends) > 2:
                raise e.BackendLost("It was silent for long enough.")
            return await super().read()

    steps: list[Any] = [[Piece(0, "a"), Piece(0, "b")], Forever]
    it = bench(Silent(steps), generation=with_interval(0.001))

    with pytest.raises(e.StreamInterrupted):
        await it.attempt()

    assert it.caller.texts == ["a", "b"]
    _, until_the_flush, rest_of_the_silence = ends
    assert until_the_flush == rest_of_the_silence


async def test_a_beam_search_has_no_first_token_to_be_late() -> None:
    class Slow(ScriptedStream):
        """Takes its time."""

        async def read(self) -> list[Piece]:
            await asyncio.sleep(0.005)
            return await super().read()

    stream = Slow([[Piece(0, "a", finish=STOP)]])
    it = bench(stream, generation=Generation(sampling={"use_beam_search": True}), first_token=0.001)

    await it.attempt()

    assert it.caller.texts == ["a"]
