# SPDX-License-Identifier: Apache-2.0
"""What is asked of a backend and what comes back, in the gateway's own words: no protobuf, no JSON, no HTTP."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# ---------------------------------------------------------------------------------------------------- what is asked


@dataclass(frozen=True, slots=True)
class TextPart:
    """Text."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """A picture at an address; `detail` is "low", "high", "auto" or None."""

    url: str
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class AudioPart:
    """Sound as bytes, in a format such as "wav"."""

    data: bytes
    format: str


@dataclass(frozen=True, slots=True)
class MediaPart:
    """Sound or film at an address; `kind` is "audio_url" or "video_url"."""

    kind: str
    url: str


Part = TextPart | ImagePart | AudioPart | MediaPart


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a function; `arguments` is what the model wrote, meant to be JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation; `role` is OpenAI's word for it ("user", "tool" …)."""

    role: str
    content: str | tuple[Part, ...] | None = None
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that the model may call; `parameters` is its JSON schema, decoded."""

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] | None = None
    strict: bool | None = None


class ToolMode(StrEnum):
    """How free the model is to call functions; the values are OpenAI's."""

    NONE = "none"
    AUTO = "auto"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class NamedTool:
    """The one function that the model must call."""

    name: str


@dataclass(frozen=True, slots=True)
class Constraint:
    """A form that the answer must have; `kind` is the field of StructuredOutput, `value` what it holds, decoded."""

    kind: str
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonSchema:
    """A JSON schema, decoded, with its name."""

    name: str
    schema: Mapping[str, Any]
    strict: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasoning:
    """How a reasoning model thinks; what is None is left to the backend."""

    effort: str | None = None
    thinking_token_budget: int | None = None
    include: bool | None = None


class Priority(StrEnum):
    """Who goes first when seats are scarce."""

    INTERACTIVE = "interactive"
    BATCH = "batch"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """How a stream is cut: the least time between deltas in seconds, the most bytes that may wait meanwhile."""

    min_flush_interval: float = 0.0
    max_merge_bytes: int = 65_536
    include_token_ids: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One request for tokens.

    `sampling` holds only what the caller set, by the field names of `GenerationParams`; `time_limit` is in seconds.
    A raw prompt is in `prompt`; else there are `messages`.
    """

    model: str | None = None
    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolMode | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    constraint: Constraint | None = None
    reasoning: Reasoning | None = None
    time_limit: float | None = None
    stream_options: StreamOptions = field(default_factory=StreamOptions)
    priority: Priority = Priority.INTERACTIVE
    session_id: str | None = None
    cache_salt: str | None = None
    user: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    extensions: Mapping[str, Any] = field(default_factory=dict)
    unary: bool = False
    size: int = 0
    """Bytes of the caller's message: a bound for whatever is estimated from it."""

    @property
    def choices(self) -> int:
        """How many choices are generated."""
        n: int = self.sampling.get("n", 1)
        return n


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenQuery:
    """A prompt whose tokens are to be counted: a raw `prompt`, else `messages`."""

    model: str | None = None
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()
    prompt: str | None = None


# --------------------------------------------------------------------------------------------------- what comes back


class FinishReason(StrEnum):
    """Why a choice ended well; the values are the names of the proto's FinishReason without their prefix."""

    STOP = "STOP"
    LENGTH = "LENGTH"
    CONTEXT_LENGTH = "CONTEXT_LENGTH"
    TOOL_CALLS = "TOOL_CALLS"
    CONTENT_FILTER = "CONTENT_FILTER"
    TIME_LIMIT = "TIME_LIMIT"
    REPETITION = "REPETITION"
    MALFORMED_TOOL_CALL = "MALFORMED_TOOL_CALL"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a choice: `message` explains it where the reason alone does not, `backend_reason` is for OTHER."""

    reason: FinishReason
    message: str | None = None
    stop_sequence: str | None = None
    stop_token_id: int | None = None
    backend_reason: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCallPiece:
    """A piece of a function call; pieces of one call share its index."""

    index: int
    id: str | None
    name: str | None
    arguments: str


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The natural logarithm of a token's probability, and of its likeliest rivals'."""

    token: str
    logprob: float
    bytes: bytes
    top: tuple[TokenLogprob, ...] = ()


LOGPROB_BYTES = 32
TOKEN_ID_BYTES = 4


class Piece:
    """A piece of one choice: the hot object of the token path, made once for every token."""

    __slots__ = ("finish", "index", "logprobs", "reasoning", "text", "token_count", "token_ids", "tool_calls")

    def __init__(  # noqa: PLR0913, PLR0917 - one slot each; a value object between would be built for every token
        self,
        index: int,
        text: str = "",
        reasoning: str = "",
        tool_calls: tuple[ToolCallPiece, ...] = (),
        logprobs: tuple[TokenLogprob, ...] = (),
        token_ids: tuple[int, ...] = (),
        token_count: int | None = None,
        finish: Finish | None = None,
    ) -> None:
        self.index = index
        self.text = text
        self.reasoning = reasoning
        self.tool_calls = tool_calls
        self.logprobs = logprobs
        self.token_ids = token_ids
        self.token_count = token_count
        self.finish = finish

    @property
    def has_content(self) -> bool:
        """Whether there is anything but an end in it; an end alone does not open a stream."""
        return bool(self.text or self.reasoning or self.tool_calls or self.logprobs)

    @property
    def size(self) -> int:
        """About how many bytes it takes on the wire."""
        text = len(self.text.encode()) + len(self.reasoning.encode())
        arguments = sum(len(call.arguments.encode()) for call in self.tool_calls)
        logprobs = sum(1 + len(logprob.top) for logprob in self.logprobs)
        return text + arguments + LOGPROB_BYTES * logprobs + TOKEN_ID_BYTES * len(self.token_ids)

    @classmethod
    def joined(cls, pieces: Sequence[Piece]) -> Piece:
        """Pieces of one choice as one, losing nothing."""
        counts = [piece.token_count for piece in pieces if piece.has_content or piece.token_count is not None]
        return cls(
            pieces[0].index,
            "".join([piece.text for piece in pieces]),
            "".join([piece.reasoning for piece in pieces]),
            tuple(call for piece in pieces for call in piece.tool_calls),
            tuple(logprob for piece in pieces for logprob in piece.logprobs),
            tuple(token for piece in pieces for token in piece.token_ids),
            None if not counts or None in counts else sum(count for count in counts if count is not None),
            pieces[-1].finish,
        )

    def __repr__(self) -> str:
        return f"<Piece of choice {self.index}: {len(self.text)} characters, finish={self.finish}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of a call; `estimated` where the backend gave no final count."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_prompt_tokens: int | None = None
    reasoning_tokens: int | None = None
    estimated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Where a call's time went, in seconds; what did not happen is None."""

    queue: float = 0.0
    time_to_first_token: float | None = None
    inter_token_p50: float | None = None
    inter_token_p95: float | None = None
    inter_token_max: float | None = None
    upstream: float = 0.0
    client_stall: float = 0.0
    total: float = 0.0

    @property
    def gateway_overhead(self) -> float:
        """What is left without queue, upstream and client: the gateway's own work."""
        return max(0.0, self.total - self.queue - self.upstream - self.client_stall)


class AttemptOutcome(StrEnum):
    """How one try at a backend ended."""

    SERVED = "SERVED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a backend; `reason` is the reason of the error that ended it, `duration` is in seconds."""

    backend: str
    outcome: AttemptOutcome
    reason: str | None
    duration: float


@dataclass(frozen=True, slots=True)
class Started:
    """The first event of a stream: who answers; `attempt` counts from 1."""

    model: str
    backend: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Completed:
    """The last event of a stream: the answer is whole."""

    usage: Usage
    timing: Timing
    attempts: tuple[Attempt, ...]
    merged_deltas: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: one merged piece for each choice, in the order of their index."""

    started: Started
    choices: tuple[Piece, ...]
    completed: Completed


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that a backend serves; `context_length` is in tokens, `parent` the model that an adapter adapts."""

    name: str
    aliases: tuple[str, ...] = ()
    context_length: int | None = None
    parent: str | None = None
    owned_by: str | None = None
    is_default: bool = False


@dataclass(frozen=True, slots=True)
class TokenCount:
    """The tokens of a prompt, and how many the context takes where the backend says so."""

    model: str
    backend: str
    token_ids: tuple[int, ...]
    count: int
    context_length: int | None
