# SPDX-License-Identifier: Apache-2.0
"""Calls of the gateway by either kind of request, and what a caller is told in return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_gateway.v1 import llm_service_pb2, outcome_pb2
from tests.kit.calls import Outcome, chat_request, read_stream
from tests.replay.recording import Expected, Told
from tests.replay.translating import InexpressibleError, translate

if TYPE_CHECKING:
    from tests.kit.gateway import RunningGateway
    from tests.replay.recording import Recording
    from tests.replay.replaying import ReplayBackend
    from tests.replay.translating import Request


@dataclass(frozen=True, slots=True)
class Replay:
    """A gateway, and the backend behind it that replays."""

    gateway: RunningGateway
    backend: ReplayBackend

    async def stream(self, request: Request, metadata: Any = ()) -> Outcome:
        """Stream either kind of request to its end."""
        chat = isinstance(request, llm_service_pb2.ChatCompletionRequest)
        stub = self.gateway.stub
        method: Any = stub.ChatCompletionStream if chat else stub.StreamGenerate
        return await read_stream(method(request, timeout=30, metadata=metadata))

    async def complete(self, request: Request) -> Any:
        """Have either kind of request answered whole."""
        chat = isinstance(request, llm_service_pb2.ChatCompletionRequest)
        stub = self.gateway.stub
        method: Any = stub.ChatCompletion if chat else stub.Generate
        return await method(request, timeout=30)


def request_of(recording: Recording) -> Request:
    """The recorded request in our words; a plain one where we have none, for the answer is what matters."""
    try:
        return translate(recording.request)
    except InexpressibleError:
        return chat_request(max_tokens=recording.request["max_tokens"] if "err_role" in recording.name else None)


def told_by_stream(outcome: Outcome) -> dict[int, Told]:
    """What the deltas of a stream say, put together."""
    choices: dict[int, Told] = {}
    for delta in outcome.deltas:
        told = choices.setdefault(delta.index, Told())
        told.text += delta.text
        told.logprobs += _logprobs(delta.logprobs)
        told.token_ids += delta.token_ids
        for call in delta.tool_calls:
            if call.HasField("id"):
                assert call.index == len(told.calls)
                told.calls.append((call.id, call.name, call.arguments))
            else:
                id_, name, arguments = told.calls[call.index]
                told.calls[call.index] = id_, name, arguments + call.arguments
        if delta.finish_reason:
            told.finish, told.stop = _ending(delta)
    return choices


def told_by_answer(response: Any) -> dict[int, Told]:
    """What a whole answer says."""
    choices = {}
    for choice in response.choices:
        calls = [(call.id, call.name, call.arguments) for call in choice.message.tool_calls]
        finish, stop = _ending(choice)
        logprobs, token_ids = _logprobs(choice.logprobs), list(choice.token_ids)
        choices[choice.index] = Told(choice.message.content, calls, finish, stop, logprobs, token_ids)
    return choices


def usage_of(usage: outcome_pb2.Usage, answer: Expected) -> tuple[int, int, int | None] | None:
    """A usage as it is expected; an estimate is held to the pieces that were seen, and is none."""
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    if usage.estimated:
        assert usage.completion_tokens == answer.seen_tokens
        return None
    cached = usage.cached_prompt_tokens if usage.HasField("cached_prompt_tokens") else None
    return usage.prompt_tokens, usage.completion_tokens, cached


def _ending(end: Any) -> tuple[str, str | int | None]:
    name = outcome_pb2.FinishReason.Name(end.finish_reason).removeprefix("FINISH_REASON_")
    if end.HasField("stop_sequence"):
        return name, end.stop_sequence
    return name, end.stop_token_id if end.HasField("stop_token_id") else None


def _logprobs(logprobs: outcome_pb2.Logprobs) -> list[Any]:
    return [
        (token.token, token.logprob, token.bytes, [(rival.token, rival.logprob) for rival in token.top_logprobs])
        for token in logprobs.content
    ]
