# SPDX-License-Identifier: Apache-2.0
"""Requests in a line, and streams read to their end with the laws checked on the way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc

from llm_gateway.v1 import generation_pb2, llm_service_pb2, message_pb2, outcome_pb2
from tests.kit.gateway import Failure, failure_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from tests.kit.gateway import RunningGateway


def chat_request(prompt: str = "hello", **params: Any) -> llm_service_pb2.ChatCompletionRequest:
    """One user message; keyword arguments are GenerationParams."""
    return llm_service_pb2.ChatCompletionRequest(
        messages=[message_pb2.Message(role=message_pb2.ROLE_USER, content=prompt)],
        params=generation_pb2.GenerationParams(**params),
    )


@dataclass(slots=True)
class Outcome:
    """All that a caller saw of one stream."""

    events: list[Any] = field(default_factory=list)
    failure: Failure | None = None
    initial_metadata: dict[str, str | bytes] = field(default_factory=dict)
    trailers: dict[str, str | bytes] = field(default_factory=dict)

    @property
    def started(self) -> outcome_pb2.Started:
        started: outcome_pb2.Started = self.events[0].started
        return started

    @property
    def completed(self) -> outcome_pb2.Completed:
        completed: outcome_pb2.Completed = self.events[-1].completed
        return completed

    @property
    def deltas(self) -> list[outcome_pb2.Delta]:
        return [event.delta for event in self.events if event.WhichOneof("event") == "delta"]

    def text(self, index: int = 0) -> str:
        """What was delivered of one choice."""
        return "".join(delta.text for delta in self.deltas if delta.index == index)

    def finish(self, index: int = 0) -> str:
        """The name of a choice's finish reason, without its prefix; "UNSPECIFIED" if it has not ended."""
        reasons = [delta.finish_reason for delta in self.deltas if delta.index == index and delta.finish_reason]
        assert len(reasons) <= 1, "a choice ended twice"
        name: str = outcome_pb2.FinishReason.Name(reasons[0] if reasons else 0)
        return name.removeprefix("FINISH_REASON_")


async def read_stream(
    call: grpc.aio.UnaryStreamCall[Any, Any], seen: Sequence[Any] = (), rest: AsyncIterator[Any] | None = None
) -> Outcome:
    """Read a stream to its end, and hold it to the laws that every stream obeys.

    Where a test has read the first events itself, they are `seen`, and `rest` is the iterator that it used.
    """
    outcome = Outcome(list(seen))
    try:
        async for event in rest if rest is not None else call:
            outcome.events.append(event)
    except grpc.aio.AioRpcError as error:
        outcome.failure = failure_of(error)
    outcome.initial_metadata = dict(await call.initial_metadata())
    outcome.trailers = dict(await call.trailing_metadata())
    assert_lawful(outcome)
    return outcome


async def stream(gateway: RunningGateway, prompt: str = "hello", timeout: float = 30.0, **params: Any) -> Outcome:  # noqa: ASYNC109 - the call's deadline
    """Stream a chat to its end."""
    return await read_stream(gateway.stub.ChatCompletionStream(chat_request(prompt, **params), timeout=timeout))


def assert_lawful(outcome: Outcome) -> None:
    """The laws of a stream that its events alone can show."""
    kinds = [event.WhichOneof("event") for event in outcome.events]
    assert [event.sequence for event in outcome.events] == list(range(1, len(kinds) + 1)), "a gap in the sequence"
    assert (kinds[:1] == ["started"]) == bool(kinds), "started is first"
    assert kinds.count("started") <= 1, "started comes once"
    assert kinds.count("completed") == (outcome.failure is None), "completed and a bad status exclude each other"
    assert "completed" not in kinds[:-1], "completed is last"
    assert outcome.trailers["x-request-id"], "the request id is always in the trailers"
    ended: set[int] = set()
    for delta in outcome.deltas:
        assert delta.index not in ended, "a choice went on after its end"
        if delta.finish_reason:
            ended.add(delta.index)


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition of this process holds, of whose coming true nobody tells; fail if it does not."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.001)


async def unary(gateway: RunningGateway, prompt: str = "hello", timeout: float = 30.0, **params: Any) -> Any:  # noqa: ASYNC109 - the call's deadline
    """A whole chat answer, or the Failure of it."""
    try:
        return await gateway.stub.ChatCompletion(chat_request(prompt, **params), timeout=timeout)
    except grpc.aio.AioRpcError as error:
        return failure_of(error)
