# SPDX-License-Identifier: Apache-2.0
"""The JSON that backends send, as typed structs with only the fields that are read; decoded once, by msgspec.

Field names are OpenAI's and vLLM's (`vllm/entrypoints/openai/chat_completion/protocol.py`). Everything is optional
here: what may be missing, null or strange is decided where it is used.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

import msgspec

# What our contract has room for; a number beyond it is not of the protocol. Counts leave room for their sum.
Unsigned = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
StopToken = Annotated[int, msgspec.Meta(le=2**32 - 1)]


class FunctionWire(msgspec.Struct, gc=False):
    """`function` of a tool call; `arguments` is a string but for backends that send the object itself."""

    name: str | None = None
    arguments: Any = None


class ToolCallWire(msgspec.Struct, gc=False):
    """A tool call, or a piece of one."""

    index: Unsigned | None = None
    id: str | None = None
    function: FunctionWire | None = None


class TopLogprobWire(msgspec.Struct, gc=False):
    """One of the likeliest tokens."""

    token: str
    logprob: float
    bytes: list[int] | None = None


class TokenLogprobWire(msgspec.Struct, gc=False):
    """A token of a chat answer and its rivals."""

    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[TopLogprobWire] | None = None


class LogprobsWire(msgspec.Struct, gc=False):
    """`logprobs`: of a chat (`content`) or of a completion (the other three, parallel lists)."""

    content: list[TokenLogprobWire] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


class MessageWire(msgspec.Struct, gc=False):
    """`delta` of a chunk, `message` of an answer. `reasoning_content` is older vLLM's, SGLang's and llama.cpp's."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallWire] | None = None


class ChoiceWire(msgspec.Struct, gc=False):
    """A choice: `delta` in a chat stream, `text` in completions, `message` in a whole chat answer."""

    index: int | None = None
    delta: MessageWire | None = None
    message: MessageWire | None = None
    text: str | None = None
    finish_reason: str | None = None
    stop_reason: StopToken | str | None = None
    matched_stop: StopToken | str | None = None
    logprobs: LogprobsWire | None = None
    token_ids: list[Unsigned] | None = None


class PromptDetailsWire(msgspec.Struct, gc=False):
    """`prompt_tokens_details`; vLLM sends it with --enable-prompt-tokens-details."""

    cached_tokens: Count | None = None


class CompletionDetailsWire(msgspec.Struct, gc=False):
    """`completion_tokens_details`; vLLM sends it with a reasoning parser."""

    reasoning_tokens: Count | None = None


class UsageWire(msgspec.Struct, gc=False):
    """`usage`; SGLang has `reasoning_tokens` at its top level."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: PromptDetailsWire | None = None
    completion_tokens_details: CompletionDetailsWire | None = None
    reasoning_tokens: Count | None = None


class ChunkWire(msgspec.Struct, gc=False):
    """One event of a stream, a whole answer, or an error in the place of either.

    `error` is an object or a string, TGI's with an `error_type` beside it; SGLang's errors have `object: "error"` and
    their fields at the top level.
    """

    choices: list[ChoiceWire] | None = None
    usage: UsageWire | None = None
    model: str | None = None
    error: Any = None
    object: str | None = None
    code: Any = None
    type: str | None = None
    param: str | None = None
    error_type: Any = None


class UncountedChunkWire(ChunkWire, gc=False):
    """A chunk whose usage is none."""

    usage: Any = None


class HalvedChunkWire(ChunkWire, gc=False):
    """A chunk whose text may have a half of a surrogate pair."""


class ModelWire(msgspec.Struct):
    """An entry of `/v1/models`."""

    id: str
    owned_by: str | None = None
    parent: str | None = None
    max_model_len: Unsigned | None = None


class ModelListWire(msgspec.Struct):
    """The answer of `/v1/models`."""

    data: Annotated[list[ModelWire], msgspec.Meta(max_length=10_000)]


class TokenizeWire(msgspec.Struct):
    """The answer of `/tokenize`; llama.cpp's has only the tokens."""

    count: Unsigned | None = None
    tokens: list[Unsigned] | None = None
    max_model_len: Unsigned | None = None


T = TypeVar("T")

_CHUNK = msgspec.json.Decoder(ChunkWire)
_UNCOUNTED = msgspec.json.Decoder(UncountedChunkWire)
# What msgspec raises: the last one where arrays or objects are nested a thousand deep.
NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class NotTheProtocolError(Exception):
    """What a backend sent is no JSON, or not of this shape."""


def decode_chunk(data: bytes) -> ChunkWire:
    """Decode one event. A usage that cannot be one is as good as none, and costs nobody the answer that it came with.

    A half of a surrogate pair, written as an escape, is not valid Unicode, but a backend that cuts its text between the
    halves sends it: such an event takes the slow way and is a HalvedChunkWire. Raises NotTheProtocolError.
    """
    try:
        return _CHUNK.decode(data)
    except NOT_JSON as error:
        if isinstance(error, msgspec.ValidationError) and (chunk := _without_usage(data)) is not None:
            return chunk
        if b"\\ud" not in data and b"\\uD" not in data:
            raise NotTheProtocolError from error
    try:
        return msgspec.convert(json.loads(data, parse_constant=_refuse_constant), HalvedChunkWire)
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise NotTheProtocolError from error


def decode_as(data: bytes, kind: type[T]) -> T:
    """Decode a whole body as `kind`. Raises NotTheProtocolError."""
    try:
        return msgspec.json.decode(data, type=kind)
    except NOT_JSON as error:
        raise NotTheProtocolError from error


def clean(text: str) -> str:
    """Text that protobuf takes: the halves of a character are joined, a half without the other becomes U+FFFD."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def split_half(text: str) -> tuple[str, str]:
    """A text without the first half of a character at its end, and that half: "" where there is none."""
    return (text[:-1], text[-1]) if "\ud800" <= text[-1:] <= "\udbff" else (text, "")


def _without_usage(data: bytes) -> ChunkWire | None:
    """An event of which only the usage is wrong; None where there is more."""
    try:
        chunk = _UNCOUNTED.decode(data)
    except NOT_JSON:
        return None
    chunk.usage = None
    return chunk


def _refuse_constant(name: str) -> None:
    raise NotTheProtocolError(name)
