# SPDX-License-Identifier: Apache-2.0
"""The state machine of a streamed answer: a backend's bytes in, pieces out, and a verdict at the end.

Nothing that a backend sends is success by itself: not `[DONE]`, not the end of the body, not `finish_reason: "abort"`.
An answer is whole when every choice that was asked for has a finish reason, and only then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_gateway.backends.choice import ChoiceState
from llm_gateway.backends.failures import error_of_event, is_error
from llm_gateway.backends.sse import SseParser
from llm_gateway.backends.wire import ChunkWire, HalvedChunkWire, NotTheProtocolError, clean, decode_chunk
from llm_gateway.errors import BackendGaveUp, BackendLost, BackendProtocolError
from llm_gateway.generation import Piece, Usage

if TYPE_CHECKING:
    from llm_gateway.backends.wire import ChoiceWire, UsageWire
    from llm_gateway.errors import GatewayError
    from llm_gateway.generation import Generation

DONE = b"[DONE]"
ABORT = "abort"
ERROR = "error"
MAX_MODEL_BYTES = 256
"""What is kept of a model's name, for it goes into trailers and logs: as much as a request may have."""


class Assembly:
    """Assembles the pieces of one answer.

    `feed` gives the pieces that a read completes. What goes wrong in the middle of a read is kept in `failure` until
    the pieces before it are delivered: nothing that came before a fault is lost.
    """

    __slots__ = (
        "_choices",
        "_pieces_seen",
        "_sse",
        "_unfinished",
        "_usage",
        "done",
        "failure",
        "model",
        "moved",
        "usage_is_final",
    )

    def __init__(self, generation: Generation, max_event_bytes: int) -> None:
        self._sse = SseParser(max_event_bytes)
        self._choices = [ChoiceState(index, generation) for index in range(generation.choices)]
        self._unfinished = len(self._choices)
        self._usage: UsageWire | None = None
        self._pieces_seen = 0
        self.usage_is_final = False
        self.model: str | None = None
        self.done = False
        """Whether the backend said that nothing more comes ("[DONE]")."""
        self.failure: GatewayError | None = None
        self.moved = False
        """Whether the last read had an event that carries a choice: what restarts the idle timer."""

    @property
    def whole(self) -> bool:
        """Whether every choice has its finish reason."""
        return self._unfinished == 0

    def feed(self, data: bytes) -> list[Piece]:
        """Take the bytes of one read and give the pieces they complete."""
        self.moved = False
        pieces: list[Piece] = []
        for event in self._sse.feed(data):
            if not self.done:
                self._event(event, pieces)
            if self.failure is not None:
                return pieces
        if self._sse.overflowed and not self.done:
            self.failure = BackendProtocolError("The backend sent an event that is larger than the gateway takes.")
        return pieces

    def feed_whole(self, body: bytes) -> list[Piece]:
        """Take an answer that came in one piece, as from a backend that does not stream, and give its pieces."""
        pieces: list[Piece] = []
        self._event(body, pieces)
        self.done = True
        return pieces

    def end(self) -> list[Piece]:
        """Say that the body has ended: one that broke off is a failure. Gives the ends that waited for a usage."""
        if self.failure is None and not self.whole:
            self.failure = BackendLost("The backend ended its answer without a finish reason.")
        return self.settle()

    def settle(self) -> list[Piece]:
        """Give the ends that wait for a usage, which does not come any more or is there."""
        return [piece for choice in self._choices for piece in choice.settle(self._choice_tokens())]

    def time_limit(self) -> list[Piece]:
        """End every choice that has not ended, for the caller's `time_limit` is up."""
        ends = [end for choice in self._choices if (end := choice.cut()) is not None]
        self._unfinished = 0
        return self.settle() + ends

    def usage(self, prompt_bytes: int) -> Usage:
        """What the answer cost: the backend's last word where it is final, else what was seen."""
        seen = self._usage
        if seen is None:
            # Four bytes a token is the rule of thumb for English; it is marked as the estimate that it is.
            return Usage(prompt_tokens=-(-prompt_bytes // 4), completion_tokens=self._tokens_seen(), estimated=True)
        prompt, completion = seen.prompt_tokens, seen.completion_tokens
        details = seen.completion_tokens_details
        prompt_details = seen.prompt_tokens_details
        return Usage(
            prompt_tokens=-(-prompt_bytes // 4) if prompt is None else prompt,
            completion_tokens=self._tokens_seen() if completion is None else completion,
            cached_prompt_tokens=prompt_details.cached_tokens if prompt_details else None,
            reasoning_tokens=details.reasoning_tokens if details else seen.reasoning_tokens,
            estimated=not self.usage_is_final or prompt is None or completion is None,
        )

    def _tokens_seen(self) -> int:
        return sum(choice.tokens + choice.unseen for choice in self._choices)

    def _event(self, event: bytes, pieces: list[Piece]) -> None:
        if event.rstrip() == DONE:
            self.done = True
            pieces += self.settle()
            return
        if not event.strip():
            return
        try:
            chunk = decode_chunk(event)
        except NotTheProtocolError:
            self.failure = BackendProtocolError("The backend sent an event that is not of its protocol.")
            return
        self._chunk(chunk, pieces)

    def _chunk(self, chunk: ChunkWire, pieces: list[Piece]) -> None:
        if is_error(chunk):
            self.failure = error_of_event(chunk)
            return
        if chunk.model is not None and self.model is None:
            self.model = _model_name(chunk.model)
        if chunk.choices:
            self.moved = True
            for choice in chunk.choices:
                self._choice(choice, isinstance(chunk, HalvedChunkWire), pieces)
                if self.failure is not None:
                    return
        if chunk.usage is not None:
            self._usage = chunk.usage
            # A usage beside some of the choices is the running one of vLLM's continuous_usage_stats, and of those only;
            # the final one comes after all, or with all.
            self.usage_is_final = self.whole and len(chunk.choices or ()) in {0, len(self._choices)}
            if self.usage_is_final:
                pieces += self.settle()

    def _choice(self, wire: ChoiceWire, halved: bool, pieces: list[Piece]) -> None:
        index = wire.index or 0
        if not 0 <= index < len(self._choices):
            self.failure = BackendProtocolError("The backend sent a choice that was not asked for.")
            return
        if wire.finish_reason == ABORT:
            self.failure = BackendGaveUp("The backend gave the answer up.")
        elif wire.finish_reason == ERROR:
            self.failure = BackendLost("The backend failed while it generated the answer.")
        choice = self._choices[index]
        was_finished = choice.finished
        try:
            piece = choice.take(wire, halved=halved, ends_well=self.failure is None)
        except NotTheProtocolError:
            self.failure = BackendProtocolError("The backend sent a piece that is not of its protocol.")
            return
        if piece is not None:
            pieces.append(piece)
        if choice.finished and not was_finished:
            self._unfinished -= 1

    def _choice_tokens(self) -> int | None:
        """How many tokens each choice has, where all ran into the same limit; None where nobody can tell."""
        if not self.usage_is_final or self._usage is None or self._usage.completion_tokens is None:
            return None
        if not all(choice.cut_by_length for choice in self._choices):
            return None
        return self._usage.completion_tokens // len(self._choices)


def _model_name(name: str) -> str:
    return clean(name[:MAX_MODEL_BYTES]).encode()[:MAX_MODEL_BYTES].decode(errors="ignore")
