# SPDX-License-Identifier: Apache-2.0
"""Answers to the wire: events, whole answers, and the report that goes with an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_gateway.generation import Completed, FinishReason, Piece, Started
from llm_gateway.v1 import call_report_pb2, message_pb2, model_pb2, outcome_pb2
from llm_gateway.v1 import llm_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llm_gateway.generation import (
        Answer,
        Attempt,
        Finish,
        Model,
        Timing,
        TokenCount,
        TokenLogprob,
        Usage,
    )
    from llm_gateway.observability.call import Call

StreamResponse = type[pb.ChatCompletionStreamResponse] | type[pb.StreamGenerateResponse]
FINISH_REASONS: dict[FinishReason, outcome_pb2.FinishReason] = {
    reason: getattr(outcome_pb2, f"FINISH_REASON_{reason}") for reason in FinishReason
}


def encode_event(kind: StreamResponse, event: Started | Piece | Completed, sequence: int, request_id: str) -> bytes:
    """One event of a stream, as the bytes of its message."""
    if isinstance(event, Piece):
        return kind(sequence=sequence, delta=_delta(event)).SerializeToString()
    if isinstance(event, Started):
        started = outcome_pb2.Started(
            request_id=request_id, model=event.model, backend=event.backend, attempt=event.attempt
        )
        return kind(sequence=sequence, started=started).SerializeToString()
    completed = outcome_pb2.Completed(
        usage=_usage(event.usage),
        timing=_timing(event.timing),
        attempts=_attempts(event.attempts),
        merged_deltas=event.merged_deltas,
    )
    return kind(sequence=sequence, completed=completed).SerializeToString()


def encode_chat(answer: Answer, request_id: str) -> bytes:
    """A whole chat answer."""
    return pb.ChatCompletionResponse(
        request_id=request_id,
        model=answer.started.model,
        backend=answer.started.backend,
        choices=[_choice(piece) for piece in answer.choices],
        usage=_usage(answer.completed.usage),
        timing=_timing(answer.completed.timing),
        attempts=_attempts(answer.completed.attempts),
    ).SerializeToString()


def encode_generate(answer: Answer, request_id: str) -> bytes:
    """A whole continuation."""
    choices = [_choice(piece) for piece in answer.choices]
    return pb.GenerateResponse(
        request_id=request_id,
        model=answer.started.model,
        backend=answer.started.backend,
        text=choices[0].message.content,
        finish_reason=choices[0].finish_reason,
        choices=choices,
        usage=_usage(answer.completed.usage),
        timing=_timing(answer.completed.timing),
        attempts=_attempts(answer.completed.attempts),
    ).SerializeToString()


def encode_models(models: Sequence[Model]) -> bytes:
    """The list of models."""
    return pb.ListModelsResponse(
        models=[
            model_pb2.Model(
                name=model.name,
                aliases=model.aliases,
                context_length=model.context_length,
                parent=model.parent,
                owned_by=model.owned_by,
                is_default=model.is_default,
            )
            for model in models
        ]
    ).SerializeToString()


def encode_token_count(count: TokenCount, *, include_token_ids: bool) -> bytes:
    """The tokens of a prompt."""
    return pb.CountTokensResponse(
        token_count=count.count,
        context_length=count.context_length,
        token_ids=count.token_ids if include_token_ids else (),
        model=count.model,
        backend=count.backend,
    ).SerializeToString()


def call_report(call: Call) -> call_report_pb2.CallReport:
    """How far a call got."""
    return call_report_pb2.CallReport(
        last_sequence=call.last_sequence,
        usage=_usage(call.usage),
        timing=_timing(call.stopwatch.timing()),
        attempts=_attempts(call.attempts),
    )


def _delta(piece: Piece) -> outcome_pb2.Delta:
    delta = outcome_pb2.Delta(index=piece.index, text=piece.text)
    if piece.token_count is not None:
        delta.token_count = piece.token_count
    if piece.reasoning:
        delta.reasoning = piece.reasoning
    if piece.tool_calls:
        delta.tool_calls.extend(
            outcome_pb2.ToolCallDelta(index=call.index, id=call.id, name=call.name, arguments=call.arguments)
            for call in piece.tool_calls
        )
    if piece.logprobs:
        delta.logprobs.content.extend(_token_logprob(token) for token in piece.logprobs)
    if piece.token_ids:
        delta.token_ids.extend(piece.token_ids)
    if piece.finish is not None:
        _set_finish(delta, piece.finish)
    return delta


def _choice(piece: Piece) -> outcome_pb2.Choice:
    """A merged piece as a whole answer."""
    message = message_pb2.Message(
        role=message_pb2.ROLE_ASSISTANT,
        reasoning=piece.reasoning or None,
        tool_calls=_whole_calls(piece),
    )
    if piece.text or not piece.tool_calls:
        message.content = piece.text
    choice = outcome_pb2.Choice(index=piece.index, message=message, token_ids=piece.token_ids)
    if piece.logprobs:
        choice.logprobs.content.extend(_token_logprob(token) for token in piece.logprobs)
    if piece.finish is not None:
        _set_finish(choice, piece.finish)
    return choice


def _whole_calls(piece: Piece) -> list[message_pb2.ToolCall]:
    calls: dict[int, message_pb2.ToolCall] = {}
    for part in piece.tool_calls:
        call = calls.setdefault(part.index, message_pb2.ToolCall())
        call.id += part.id or ""
        call.name += part.name or ""
        call.arguments += part.arguments
    return [call for _, call in sorted(calls.items())]


def _set_finish(target: outcome_pb2.Delta | outcome_pb2.Choice, finish: Finish) -> None:
    target.finish_reason = FINISH_REASONS[finish.reason]
    if finish.message is not None:
        target.finish_message = finish.message
    if finish.stop_sequence is not None:
        target.stop_sequence = finish.stop_sequence
    if finish.stop_token_id is not None:
        target.stop_token_id = finish.stop_token_id
    if finish.backend_reason is not None:
        target.backend_finish_reason = finish.backend_reason


def _token_logprob(token: TokenLogprob) -> outcome_pb2.TokenLogprob:
    return outcome_pb2.TokenLogprob(
        token=token.token,
        logprob=token.logprob,
        bytes=token.bytes,
        top_logprobs=[_token_logprob(rival) for rival in token.top],
    )


def _usage(usage: Usage) -> outcome_pb2.Usage:
    return outcome_pb2.Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        cached_prompt_tokens=usage.cached_prompt_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        estimated=usage.estimated,
    )


def _timing(timing: Timing) -> outcome_pb2.Timing:
    return outcome_pb2.Timing(
        queue=duration(timing.queue),
        time_to_first_token=duration(timing.time_to_first_token),
        inter_token_p50=duration(timing.inter_token_p50),
        inter_token_p95=duration(timing.inter_token_p95),
        inter_token_max=duration(timing.inter_token_max),
        upstream=duration(timing.upstream),
        gateway_overhead=duration(timing.gateway_overhead),
        client_stall=duration(timing.client_stall),
        total=duration(timing.total),
    )


def _attempts(attempts: Iterable[Attempt]) -> list[outcome_pb2.Attempt]:
    return [
        outcome_pb2.Attempt(
            backend=attempt.backend,
            outcome=f"OUTCOME_{attempt.outcome}",
            reason=f"ERROR_REASON_{attempt.reason or 'UNSPECIFIED'}",
            duration=duration(attempt.duration),
        )
        for attempt in attempts
    ]


def duration(seconds: float | None) -> dict[str, int] | None:
    """A Duration, as the fields of one: half the work of building one that is then copied."""
    if seconds is None:
        return None
    whole = int(seconds)
    return {"seconds": whole, "nanos": int((seconds - whole) * 1e9)}
