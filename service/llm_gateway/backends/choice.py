# SPDX-License-Identifier: Apache-2.0
"""One choice of a streamed answer: its function calls, its halves of characters, and how it ended."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from llm_gateway.backends.wire import NOT_JSON, NotTheProtocolError, clean, split_half
from llm_gateway.generation import Finish, FinishReason, Piece, TokenLogprob, ToolCallPiece

if TYPE_CHECKING:
    from llm_gateway.backends.wire import ChoiceWire, LogprobsWire, MessageWire, ToolCallWire
    from llm_gateway.generation import Generation

# The words of vLLM, OpenAI, SGLang and TGI for how a choice ended well.
FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "eos_token": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
    "repetition": FinishReason.REPETITION,
}
LONG_TOKEN = 8
"""Characters: twice as long as a token usually is."""
IMPOSSIBLE = -9999.0  # vLLM's stand-in for a log-probability of minus infinity


class CallState:
    """One function call in the making."""

    __slots__ = ("arguments", "half", "id", "name")

    def __init__(self) -> None:
        self.id: str | None = None
        self.name: str | None = None
        self.arguments: list[str] = []
        self.half = ""
        """Half of a character, which waits for its other half."""

    @property
    def is_json(self) -> bool:
        """Whether the arguments are JSON, as a whole."""
        try:
            msgspec.json.decode("".join(self.arguments))
        except NOT_JSON:
            return False
        return True

    def add(self, arguments: str) -> str:
        """Take a piece of the arguments and give what of it can be delivered."""
        if self.half or not arguments.isascii():
            whole, self.half = split_half(self.half + arguments)
            arguments = clean(whole)
        if arguments:
            self.arguments.append(arguments)
        return arguments

    def end(self) -> str:
        """The half of a character that stayed alone, as U+FFFD; "" if none did."""
        rest, self.half = clean(self.half), ""
        if rest:
            self.arguments.append(rest)
        return rest


class ChoiceState:
    """What is known of one choice; `take` turns what the backend sends of it into pieces."""

    __slots__ = ("_calls", "_halves", "_max_tokens", "_waiting", "cut_by_length", "finished", "index",
                 "tokens", "unseen")  # fmt: skip

    def __init__(self, index: int, generation: Generation) -> None:
        self.index = index
        self._max_tokens: int | None = generation.sampling.get("max_tokens")
        self._calls: dict[int, CallState] = {}
        self._halves = {"text": "", "reasoning": ""}
        self._waiting: Piece | None = None
        self.finished = False
        self.cut_by_length = False
        self.tokens = 0
        """Tokens seen: exact where the backend tells, else one for each piece."""
        self.unseen = 0
        """How many more there may be, in pieces of more than one token: a busy backend sends several at once."""

    def take(self, wire: ChoiceWire, *, halved: bool, ends_well: bool) -> Piece | None:
        """What there is to deliver of one event; None if nothing.

        Raises NotTheProtocolError if the choice had ended and yet goes on.
        """
        piece = Piece(self.index, wire.text or "")
        if wire.delta is not None:
            self._message(wire.delta, piece)
        elif wire.message is not None:
            _number_calls(wire.message)
            self._message(wire.message, piece)
        if halved or self._half_waits:
            self._join_halves(piece, last=wire.finish_reason is not None)
        if wire.logprobs is not None:
            piece.logprobs = logprobs_of(wire.logprobs)
        if wire.token_ids:
            piece.token_ids = tuple(wire.token_ids)
        self._count(piece)
        if self.finished:
            _refuse_more(piece)
            return None
        if wire.finish_reason is not None and ends_well:
            return self._finish(wire, piece)
        return piece if piece.has_content or piece.token_ids else None

    def cut(self) -> Piece | None:
        """End the choice because the caller's time is up; None if it had ended."""
        if self.finished:
            return None
        self.finished = True
        return Piece(
            self.index,
            self._mend("text", "", last=True),
            self._mend("reasoning", "", last=True),
            self._end_calls(),
            finish=Finish(FinishReason.TIME_LIMIT),
        )

    def settle(self, tokens: int | None) -> list[Piece]:
        """The end that waited to know whether `max_tokens` or the context cut the choice; `tokens` is its length."""
        if self._waiting is None:
            return []
        piece, self._waiting = self._waiting, None
        if tokens is not None and self._max_tokens is not None and tokens < self._max_tokens:
            piece.finish = Finish(FinishReason.CONTEXT_LENGTH)
        return [piece]

    def _message(self, message: MessageWire, piece: Piece) -> None:
        if message.content:
            piece.text += message.content
        # Both names at once are the same thought twice: vLLM sent both while it renamed the field.
        piece.reasoning = message.reasoning or message.reasoning_content or ""
        if message.tool_calls:
            piece.tool_calls = tuple(self._call(call) for call in message.tool_calls)

    def _call(self, wire: ToolCallWire) -> ToolCallPiece:
        index = self._call_index(wire)
        state = self._calls.setdefault(index, CallState())
        function = wire.function
        arguments = state.add(_as_text(function.arguments)) if function is not None else ""
        name = function.name if function is not None else None
        # Some backends repeat the id and the name in every piece; they are delivered once.
        new_id = clean(wire.id) if wire.id and state.id is None else None
        new_name = clean(name) if name and state.name is None else None
        state.id = state.id or new_id
        state.name = state.name or new_name
        return ToolCallPiece(index, new_id, new_name, arguments)

    def _end_calls(self) -> tuple[ToolCallPiece, ...]:
        """What was kept back of the calls' arguments."""
        rests = ((index, state.end()) for index, state in self._calls.items())
        return tuple(ToolCallPiece(index, None, None, rest) for index, rest in rests if rest)

    def _call_index(self, wire: ToolCallWire) -> int:
        """The call that a piece belongs to. Where the backend does not count, a new id begins a new call."""
        if wire.index is not None:
            if wire.index < 0:
                raise NotTheProtocolError
            return wire.index
        for index, state in self._calls.items():
            if wire.id is not None and state.id == clean(wire.id):
                return index
        last = max(self._calls, default=-1)
        return last + 1 if wire.id is not None or last < 0 else last

    @property
    def _half_waits(self) -> bool:
        """Whether half a character waits for its other half."""
        return any(self._halves.values()) or any(call.half for call in self._calls.values())

    def _join_halves(self, piece: Piece, *, last: bool) -> None:
        piece.text = self._mend("text", piece.text, last=last)
        piece.reasoning = self._mend("reasoning", piece.reasoning, last=last)
        if last:
            piece.tool_calls += self._end_calls()

    def _mend(self, field: str, text: str, *, last: bool) -> str:
        """Join the halves of characters that were cut between events; a half that stays alone becomes U+FFFD."""
        text = self._halves[field] + text
        text, self._halves[field] = (text, "") if last else split_half(text)
        return clean(text)

    def _count(self, piece: Piece) -> None:
        if piece.token_ids or piece.logprobs:
            piece.token_count = len(piece.token_ids or piece.logprobs)
            self.tokens += piece.token_count
        elif piece.has_content:
            self.tokens += 1
            length = len(piece.text) + len(piece.reasoning)
            if length >= 2 * LONG_TOKEN:
                self.unseen += length // LONG_TOKEN - 1

    def _finish(self, wire: ChoiceWire, piece: Piece) -> Piece | None:
        self.finished = True
        finish = self._finish_of(wire)
        if finish.reason is not FinishReason.LENGTH:
            piece.finish = finish
            return piece
        self.cut_by_length = True
        if self._max_tokens is None:
            piece.finish = Finish(FinishReason.CONTEXT_LENGTH)
            return piece
        if self.tokens >= self._max_tokens:
            piece.finish = finish
            return piece
        # Fewer pieces than tokens were asked for: only the usage, which comes next, tells what cut the answer.
        self._waiting = Piece(self.index, finish=finish)
        return piece if piece.has_content or piece.token_ids else None

    def _finish_of(self, wire: ChoiceWire) -> Finish:
        word = wire.finish_reason or ""
        reason = FINISH_REASONS.get(word, FinishReason.OTHER)
        stop = wire.stop_reason if wire.stop_reason is not None else wire.matched_stop
        if reason in {FinishReason.STOP, FinishReason.TOOL_CALLS} and self._calls:
            return self._finish_of_calls()
        return Finish(
            reason,
            stop_sequence=clean(stop) if isinstance(stop, str) else None,
            stop_token_id=stop if isinstance(stop, int) and stop >= 0 else None,
            backend_reason=clean(word) if reason is FinishReason.OTHER else None,
        )

    def _finish_of_calls(self) -> Finish:
        for index, call in self._calls.items():
            if not call.is_json:
                return Finish(
                    FinishReason.MALFORMED_TOOL_CALL, message=f"The arguments of function call {index} are not JSON."
                )
        return Finish(FinishReason.TOOL_CALLS)


def logprobs_of(wire: LogprobsWire) -> tuple[TokenLogprob, ...]:
    """The log-probabilities of an event, of a chat or of a completion."""
    if wire.content is not None:
        return tuple(
            TokenLogprob(
                clean(token.token),
                token.logprob,
                _bytes_of(token.bytes),
                tuple(
                    TokenLogprob(clean(rival.token), rival.logprob, _bytes_of(rival.bytes))
                    for rival in token.top_logprobs or ()
                ),
            )
            for token in wire.content
        )
    tokens = wire.tokens or []
    logprobs = wire.token_logprobs or []
    rivals = wire.top_logprobs or [None] * len(tokens)
    if not len(tokens) == len(logprobs) == len(rivals):
        raise NotTheProtocolError
    return tuple(
        TokenLogprob(
            clean(token),
            IMPOSSIBLE if logprob is None else logprob,
            clean(token).encode(),
            tuple(TokenLogprob(clean(t), p, clean(t).encode()) for t, p in (top or {}).items()),
        )
        for token, logprob, top in zip(tokens, logprobs, rivals, strict=True)
    )


def _refuse_more(piece: Piece) -> None:
    """A choice may be ended twice, but it must not go on after its end."""
    if piece.has_content:
        raise NotTheProtocolError


def _number_calls(message: MessageWire) -> None:
    """A whole message does not number its calls: they are in order."""
    for index, call in enumerate(message.tool_calls or ()):
        call.index = index


def _as_text(arguments: Any) -> str:  # noqa: ANN401 - whatever JSON has
    """Arguments as a string; a backend that sends the object itself has it written out."""
    if arguments is None:
        return ""
    if isinstance(arguments, str):
        return arguments
    try:
        return msgspec.json.encode(arguments).decode()
    except UnicodeEncodeError:  # half of a character, as msgspec refuses it
        return clean(json.dumps(arguments, ensure_ascii=False, separators=(",", ":")))
    except RecursionError as error:
        raise NotTheProtocolError from error


def _bytes_of(values: list[int] | None) -> bytes:
    if not values:
        return b""
    if min(values) < 0 or max(values) > 255:  # noqa: PLR2004 - a byte
        raise NotTheProtocolError
    return bytes(values)
