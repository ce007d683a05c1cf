# SPDX-License-Identifier: Apache-2.0
"""All that one caller saw of its call, in the order in which it came."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llm_gateway.v1 import outcome_pb2
from llm_gateway.v1.outcome_pb2 import Attempt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_gateway.v1.call_report_pb2 import CallReport
    from llm_gateway.v1.outcome_pb2 import Delta, Started, Usage
    from tests.chaos.wishes import Wish

BARE = "–"
"""The reason of a status that has none, since gRPC itself made it."""
STARTED, DELTA, COMPLETED = "started", "delta", "completed"


@dataclass(slots=True)
class History:
    """One call. A stream has `events`, a unary call that went well an `answer`."""

    wish: Wish
    events: list[Any] = field(default_factory=list)
    answer: Any = None
    endings: list[tuple[str, str]] = field(default_factory=list)
    """Code and reason: "" with OK."""
    report: CallReport | None = None
    retry_after: bool = False
    """Whether the status says when to come again."""
    request_id: str | None = None
    """That of the trailers."""
    told: str = ""
    """The status and all metadata, as text."""
    seconds: float = 0.0
    left: bool = False
    """The caller has left."""
    stopped: bool = False
    """The operator has ended it."""

    @property
    def code(self) -> str:
        """The status code; "" as long as there is none."""
        return self.endings[-1][0] if self.endings else ""

    @property
    def reason(self) -> str:
        """Why it failed."""
        return self.endings[-1][1] if self.endings else ""

    @property
    def ok(self) -> bool:
        """Whether the caller was told that all is well."""
        return self.code == "OK"

    @property
    def kinds(self) -> list[str]:
        """The kinds of the events."""
        return [event.WhichOneof("event") for event in self.events]

    @property
    def started(self) -> Started | None:
        """The first event, if it is what it should be."""
        return self.events[0].started if self.kinds[:1] == [STARTED] else None

    @property
    def deltas(self) -> list[Delta]:
        """The pieces."""
        return [event.delta for event in self.events if event.WhichOneof("event") == DELTA]

    @property
    def summary(self) -> Any:
        """What says how it went, if anything does."""
        if self.answer is not None:
            return self.answer
        if self.kinds[-1:] == [COMPLETED]:
            return self.events[-1].completed
        return self.report

    @property
    def usage(self) -> Usage | None:
        """What it has cost."""
        return self.summary.usage if self.summary is not None and self.summary.HasField("usage") else None

    @property
    def attempts(self) -> Sequence[Attempt]:
        """The tries at backends."""
        return self.summary.attempts if self.summary is not None else ()

    def text(self, index: int) -> str:
        """What was delivered of a choice."""
        if self.answer is not None:
            return "".join(choice.message.content for choice in self.answer.choices if choice.index == index)
        return "".join(delta.text for delta in self.deltas if delta.index == index)

    def finishes(self, index: int) -> list[str]:
        """Why a choice ended: once, if all is well."""
        pieces = self.deltas if self.answer is None else self.answer.choices
        found = [piece.finish_reason for piece in pieces if piece.index == index and piece.finish_reason]
        return [outcome_pb2.FinishReason.Name(reason).removeprefix("FINISH_REASON_") for reason in found]

    def __str__(self) -> str:
        """In full, for whoever is to understand what went wrong."""
        lines = [
            f"{self.wish}",
            f"{self.code or 'no ending'} {self.reason} after {self.seconds:.3f} s; left: {self.left}, {self.told}",
        ]
        lines += [f"  {_line(event)}" for event in self.events]
        lines += [f"  {_line(message)}" for message in (self.answer, self.report) if message is not None]
        return "\n".join(lines)


def _line(message: object) -> str:
    return " ".join(str(message).split())


def outcome_of(attempt: Attempt) -> str:
    """How a try ended, in a word."""
    return Attempt.Outcome.Name(attempt.outcome).removeprefix("OUTCOME_")
