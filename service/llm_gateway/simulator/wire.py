# SPDX-License-Identifier: Apache-2.0
"""vLLM's bytes: what chat and text answers have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_gateway.simulator.asks import Ask
    from llm_gateway.simulator.logprobs import Logprobs
    from llm_gateway.simulator.replies import Reply

Json = dict[str, Any]

encode = msgspec.json.Encoder().encode
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Server:
    """What of the server's flags shows in its answers."""

    version: str
    fingerprint: str
    prompt_tokens_details: bool
    per_request_metrics: bool
    reasoning_parser: bool

    @property
    def is_032(self) -> bool:
        """0.33 added a few keys."""
        return self.version == "0.32.0"


@dataclass(frozen=True, slots=True)
class Timing:
    """Of one request, in seconds: shown with `--enable-per-request-metrics`."""

    queue: float
    first_token: float
    generation: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything an answer is written from."""

    ask: Ask
    replies: list[Reply]
    logprobs: Logprobs | None
    server: Server
    cached_tokens: int
    created_cache_tokens: int

    @property
    def completion_tokens(self) -> int:
        """Of all choices."""
        return sum(len(step.tokens) for reply in self.replies for step in reply.steps)

    def head(self, kind: str) -> Json:
        """The keys every answer and every event begin with."""
        ask = self.ask
        return {"id": ask.request_id, "object": kind, "created": ask.created, "model": ask.model}


class EventWriter(Protocol):
    """The events of one stream."""

    def opening(self) -> Iterator[bytes]:
        """Events before the first token (the roles)."""

    def step(self, reply: Reply, number: int) -> bytes | None:
        """The event of one step of one choice, if it has one."""

    def usage(self, timing: Timing) -> bytes | None:
        """The usage event, if it was asked for."""


def usage_counts(prompt: int, completion: int) -> Json:
    """vLLM's three counts, in its order."""
    return {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}


def metrics(answer: Answer, timing: Timing) -> Json | None:
    """`metrics`, which is only told of a request with one choice."""
    if not answer.server.per_request_metrics or len(answer.replies) > 1:
        return None
    tokens = answer.completion_tokens
    total = timing.first_token + timing.generation
    return {
        "time_to_first_token_ms": timing.first_token * 1000,
        "generation_time_ms": timing.generation * 1000,
        "queue_time_ms": timing.queue * 1000,
        "mean_itl_ms": timing.generation * 1000 / max(tokens - 1, 1),
        "tokens_per_second": tokens / total if total else 0.0,
        "speculative_decoding": None,
    }


def event(content: Json) -> bytes:
    """One `data:` event."""
    return b"data: " + encode(content) + b"\n\n"


def is_last(reply: Reply, number: int) -> bool:
    """Whether a step carries the finish_reason."""
    return number == len(reply.steps) - 1
