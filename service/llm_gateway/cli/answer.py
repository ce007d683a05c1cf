# SPDX-License-Identifier: Apache-2.0
"""One streamed answer, from the call to its one ending; Ctrl-C ends the answer and not the program."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

import grpc

from llm_gateway.cli.client import Failure, as_json
from llm_gateway.cli.screen import aside, complain, say, write
from llm_gateway.v1 import message_pb2, outcome_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.protobuf.duration_pb2 import Duration

    from llm_gateway.v1.llm_service_pb2 import ChatCompletionRequest, ChatCompletionStreamResponse
    from llm_gateway.v1.llm_service_pb2_grpc import LLMServiceAsyncStub


class Ending(IntEnum):
    """How an answer ended, as an exit code."""

    WHOLE = 0
    FAILED = 1
    CANCELLED = 130


class View(Protocol):
    """What shows an answer."""

    def show(self, event: ChatCompletionStreamResponse) -> None:
        """Show one event, whatever kind it is of."""

    def end(self) -> None:
        """No more comes: whatever is said next begins a line."""


@dataclass(slots=True)
class Answer:
    """What an answer says, and how it ended; while it is on its way, FAILED."""

    message: message_pb2.Message
    ending: Ending = Ending.FAILED
    _calls: dict[int, message_pb2.ToolCall] = field(default_factory=dict)
    """The message's tool calls by their index, which is the backend's word and need not be near."""

    def take(self, event: ChatCompletionStreamResponse) -> None:
        """Append what an event brings; of several choices, the first counts."""
        if event.WhichOneof("event") == "completed":
            self.ending = Ending.WHOLE
        delta = event.delta
        if delta.index:
            return
        if delta.text:
            self.message.content += delta.text
        if delta.reasoning:
            self.message.reasoning += delta.reasoning
        for piece in delta.tool_calls:
            if piece.index not in self._calls:
                self._calls[piece.index] = self.message.tool_calls.add()
            call = self._calls[piece.index]
            call.id += piece.id
            call.name += piece.name
            call.arguments += piece.arguments


async def ask(
    stub: LLMServiceAsyncStub,
    request: ChatCompletionRequest,
    view: View,
    *,
    timeout: float,  # noqa: ASYNC109 - the call's deadline
    address: str,
) -> Answer:
    """Stream an answer to a view, and say on stderr how it ended if it did not end well."""
    answer = Answer(message_pb2.Message(role=message_pb2.ROLE_ASSISTANT, content=""))
    trouble: tuple[str, ...] = ()
    call = stub.ChatCompletionStream(request, timeout=timeout)
    try:
        with _interrupt_calls(call.cancel):
            async for event in call:
                view.show(event)
                answer.take(event)
        if answer.ending is not Ending.WHOLE:
            trouble = ("the stream ended without its end: the answer is not whole",)
    except grpc.aio.AioRpcError as error:
        answer.ending, trouble = Ending.FAILED, Failure.of(error, address).lines
    except asyncio.CancelledError:
        if asyncio.current_task().cancelling():  # type: ignore[union-attr]  # a coroutine runs in a task
            raise
        answer.ending = Ending.CANCELLED
    finally:
        call.cancel()  # from grpcio 1.83 on, nobody else does it for a caller who leaves
        view.end()
    for line in trouble:
        complain(line)
    if answer.ending is Ending.CANCELLED:
        aside("cancelled")
    return answer


@contextlib.contextmanager
def _interrupt_calls(cancel: Callable[[], object]) -> Iterator[None]:
    """Let Ctrl-C call something, instead of ending the program."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


class JsonLines:
    """Prints each event as a line of JSON."""

    def show(self, event: ChatCompletionStreamResponse) -> None:
        """Print one event."""
        say(as_json(event))

    def end(self) -> None:
        """Every line has ended already."""


class Page:
    """Prints an answer's text as it comes, reasoning and what it cost beside it, and other choices after the first."""

    def __init__(self) -> None:
        self._part = ""
        self._at_line_start = True
        self._finish: dict[int, str] = {}
        self._others: dict[int, str] = {}

    def show(self, event: ChatCompletionStreamResponse) -> None:
        """Print one event."""
        kind = event.WhichOneof("event")
        if kind == "delta":
            self._delta(event.delta)
        elif kind == "completed":
            self._completed(event.completed)

    def end(self) -> None:
        """Close what is open."""
        self._begin("")

    def _delta(self, delta: outcome_pb2.Delta) -> None:
        if delta.finish_reason:
            self._finish[delta.index] = finish_name(delta)
        if delta.index:
            self._others[delta.index] = self._others.get(delta.index, "") + delta.text
            return
        if delta.reasoning:
            self._begin("reasoning")
            self._put(delta.reasoning)
        if delta.text:
            self._begin("text")
            self._put(delta.text)
        for piece in delta.tool_calls:
            self._begin(f"call {piece.index}")
            self._put(f"→ {piece.name}(" if piece.name else "")
            self._put(piece.arguments)

    def _completed(self, completed: outcome_pb2.Completed) -> None:
        for index, text in sorted(self._others.items()):
            self._begin(f"heading {index}")
            self._put(f"choice {index}:")
            self._begin("text")
            self._put(text)
        self._begin("")
        aside(summary(completed, [self._finish[index] for index in sorted(self._finish)]))

    def _begin(self, part: str) -> None:
        """End the part that is being printed, unless it is this one."""
        if part == self._part:
            return
        if self._part.startswith("call"):
            self._put(")")
        if not self._at_line_start:
            self._put("\n")
        self._part = part

    def _put(self, text: str) -> None:
        if not text:
            return
        self._at_line_start = text.endswith("\n")
        if self._part == "text" or self._part.startswith("call"):
            write(text, "cyan" if self._part.startswith("call") else None)
        else:
            aside(text, end="")


def finish_name(delta: outcome_pb2.Delta) -> str:
    """Why a choice ended, in words."""
    name = outcome_pb2.FinishReason.Name(delta.finish_reason).removeprefix("FINISH_REASON_").lower().replace("_", " ")
    if delta.HasField("stop_sequence"):
        name += f" at {delta.stop_sequence!r}"
    return f"{name}: {delta.finish_message}" if delta.finish_message else name


def summary(completed: outcome_pb2.Completed, finishes: list[str]) -> str:
    """What an answer cost, in a line."""
    usage, timing = completed.usage, completed.timing
    tokens = f"{usage.prompt_tokens} + {usage.completion_tokens} tokens"
    asides = []
    if usage.cached_prompt_tokens:
        asides.append(f"{usage.cached_prompt_tokens} cached")
    if usage.reasoning_tokens:
        asides.append(f"{usage.reasoning_tokens} of reasoning")
    if usage.estimated:
        asides.append("estimated")
    if asides:
        tokens += f" ({', '.join(asides)})"
    total = _seconds(timing.total)
    parts = [", ".join(finishes), tokens]
    if timing.HasField("time_to_first_token"):
        first = _seconds(timing.time_to_first_token)
        parts.append(f"first token {1000 * first:.0f} ms")
        if usage.completion_tokens > 1 and total > first:
            parts.append(f"{(usage.completion_tokens - 1) / (total - first):.1f} tokens/s")
    parts.append(f"{total:.2f} s")
    if len(completed.attempts) > 1:
        parts.append(f"{len(completed.attempts)} attempts")
    return " · ".join(parts)


def _seconds(duration: Duration) -> float:
    return duration.ToNanoseconds() / 1e9
