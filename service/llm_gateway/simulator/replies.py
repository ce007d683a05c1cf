# SPDX-License-Identifier: Apache-2.0
"""Plans a whole reply before its first token is sent: which tokens, what text each brings, and why it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from itertools import chain, cycle, islice, tee
from typing import TYPE_CHECKING

from llm_gateway.simulator.options import Behaviour, Fault
from llm_gateway.simulator.tokenizer import END, END_OF_TEXT, Tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llm_gateway.simulator.story import Story

_HUGE = 4 * 1024 * 1024
"""Characters of a huge event."""


class Kind(Enum):
    """Where a step's text belongs."""

    TEXT = "text"
    REASONING = "reasoning"
    CALL_NAME = "name"
    CALL_ARGUMENTS = "arguments"
    SILENT = "silent"  # markup the parsers swallow: no event, unless it carries logprobs


@dataclass(frozen=True, slots=True)
class Step:
    """One engine step of one choice: a token and the text that it sets free."""

    tokens: tuple[int, ...]
    text: str
    kind: Kind = Kind.TEXT
    call: int = 0
    """Which tool call."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One choice, from its first token to its end."""

    index: int
    steps: list[Step]
    finish_reason: str
    stop_reason: str | int | None = None
    has_calls: bool = False

    def joined(self, kind: Kind, call: int = 0) -> str:
        """All text of one kind."""
        return "".join(step.text for step in self.steps if step.kind is kind and step.call == call)

    def tokens(self) -> list[int]:
        """All token ids, the one that ended the reply included."""
        return [token for step in self.steps for token in step.tokens]

    def calls(self) -> list[tuple[str, str]]:
        """(name, arguments) of the tool calls that were begun."""
        count = 1 + max((step.call for step in self.steps if step.kind is Kind.CALL_NAME), default=-1)
        return [(self.joined(Kind.CALL_NAME, i), self.joined(Kind.CALL_ARGUMENTS, i)) for i in range(count)]


@dataclass(frozen=True, slots=True)
class Limits:
    """What ends a reply (names as in vLLM's SamplingParams)."""

    max_tokens: int
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    include_stop: bool = False
    ignore_eos: bool = False
    seed: int = 0


@dataclass(slots=True)
class Script:
    """What the model would say if nothing cut it: pieces of text by kind, or None for the story."""

    parts: list[tuple[Kind, str, int]] | None = None
    before: list[tuple[Kind, str, int]] = field(default_factory=list)
    """Said before the story (reasoning)."""


@dataclass(slots=True)
class _StopStrings:
    """vLLM's detokenizer: holds back what may become a stop string, cuts it off when it has."""

    limits: Limits
    text: str = ""
    sent: int = 0

    def push(self, piece: str, checked: bool) -> tuple[str, str | None]:
        """The text now free, and the stop string that ended the reply."""
        before = len(self.text)
        self.text += piece
        if not self.limits.stop:
            return piece, None
        if checked:
            for stop in self.limits.stop:
                at = self.text.find(stop, max(0, before - len(stop) + 1))
                if at >= 0:
                    self.text = self.text[: at + len(stop) * self.limits.include_stop]
                    return self.rest(), stop
        held = 0 if self.limits.include_stop else max(map(len, self.limits.stop)) - 1
        free = max(self.sent, len(self.text) - held)
        piece, self.sent = self.text[self.sent : free], free
        return piece, None

    def rest(self) -> str:
        """What was held back, once nothing more can come."""
        piece, self.sent = self.text[self.sent :], len(self.text)
        return piece


class Planner:
    """Turns a script into a reply."""

    def __init__(self, tokenizer: Tokenizer, story: Story, default_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._story = story
        self._told = list(self._steps(story.whole, Kind.TEXT, 0))
        self._default_tokens = default_tokens

    def plan(self, index: int, script: Script, limits: Limits, behaviour: Behaviour) -> Reply:
        """The reply of one choice; `index` makes the choices differ."""
        length = self._length(script, limits, behaviour)
        source = self._source(index, script, limits, length)
        if script.parts is None and not limits.stop and not limits.stop_token_ids:
            steps = list(islice(source, limits.max_tokens))  # long stories are told often: no look at each token
            reply = Reply(index, steps, "stop" if steps[-1].tokens == (END,) else "length")
        else:
            reply = self._cut(index, source, limits)
        reply = _faulty(reply, behaviour)
        if behaviour.finish_reason is not None:
            reply = Reply(index, reply.steps, behaviour.finish_reason, reply.stop_reason, reply.has_calls)
        return reply

    def _length(self, script: Script, limits: Limits, behaviour: Behaviour) -> int | None:
        """How many tokens of the story are told; None: no end."""
        if behaviour.tokens is not None:
            return max(behaviour.tokens - 1, 0)
        if limits.ignore_eos and script.parts is None:
            return None
        return max(self._default_tokens - 1, limits.min_tokens)

    def _source(self, index: int, script: Script, limits: Limits, length: int | None) -> Iterator[Step]:
        start = self._story.start(limits.seed + index)
        story: Iterator[Step] = islice(cycle(self._told[start:] + self._told[:start]), length)
        parts = script.before if script.parts is None else script.parts
        spoken = chain.from_iterable(self._spoken(kind, text, call) for kind, text, call in parts)
        return chain(spoken, story if script.parts is None else (), (Step((END,), ""),))

    def _spoken(self, kind: Kind, text: str, call: int) -> Iterator[Step]:
        if kind is Kind.CALL_NAME:  # sent whole, and only once its last token is there
            *first, last = self._tokenizer.encode(text)
            yield from (Step((token,), "", Kind.SILENT, call) for token in first)
            yield Step((last,), text, kind, call)
            return
        yield from self._steps(self._tokenizer.encode(text), kind, call)

    def _steps(self, tokens: Iterable[int], kind: Kind, call: int) -> Iterator[Step]:
        several = tee(tokens)
        for token, text in zip(several[0], self._tokenizer.pieces(several[1]), strict=True):
            yield Step((token,), text, kind, call)

    def _cut(self, index: int, source: Iterator[Step], limits: Limits) -> Reply:
        stops = _StopStrings(limits)
        steps: list[Step] = []
        has_calls = False
        for number, step in enumerate(source, 1):
            has_calls |= step.kind is Kind.CALL_NAME
            reason: str | int | None
            finish, reason = self._ends(step, number, limits)
            shown = "" if finish == "stop" and not limits.include_stop else step.text
            if step.kind is Kind.TEXT:
                shown, stop = stops.push(shown, number > limits.min_tokens)
                finish, reason = ("stop", stop) if stop is not None else (finish, reason)
                shown += stops.rest() if finish and limits.stop else ""
            steps.append(step if shown == step.text else Step(step.tokens, shown, step.kind, step.call))
            if finish:
                return Reply(index, steps, finish, reason, has_calls)
        raise AssertionError("a source ends with an end-of-sequence token")

    @staticmethod
    def _ends(step: Step, number: int, limits: Limits) -> tuple[str, int | None]:
        token = step.tokens[0]
        if token in (END, END_OF_TEXT):
            return "stop", None
        if token in limits.stop_token_ids and number >= limits.min_tokens:
            return "stop", token
        return ("length", None) if number >= limits.max_tokens else ("", None)


def _faulty(reply: Reply, behaviour: Behaviour) -> Reply:
    """The faults that are in the reply itself, not in its way to the client."""
    kept = reply.steps[: behaviour.after]
    if behaviour.fault is Fault.ABORT:
        return Reply(reply.index, [*kept, Step((), "")], "abort", None, reply.has_calls)
    if behaviour.fault is Fault.SILENT_DRAIN:
        return Reply(reply.index, [], "abort")
    if behaviour.fault is Fault.HUGE_EVENT:
        steps = [*kept, Step((END,), "a" * _HUGE), *reply.steps[behaviour.after :]]
        return Reply(reply.index, steps, reply.finish_reason, reply.stop_reason, reply.has_calls)
    return reply
