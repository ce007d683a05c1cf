# SPDX-License-Identifier: Apache-2.0
"""The fault matrix of docs/fault-matrix.md as the tests read it: what a row's ending is, only the table says."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import pytest

from llm_gateway.v1 import error_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.kit.calls import Outcome
    from tests.kit.gateway import Failure

TABLE = Path(__file__).parents[2] / "docs" / "fault-matrix.md"
ROW = re.compile(r"\| (\d+) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|")
ENDING = re.compile(r"`([A-Z_]+)(?: ([A-Z0-9_–]+))?`")

T = TypeVar("T", bound="Callable[..., object]")


class Ending(NamedTuple):
    """A status code and a reason, both as the contract spells them; "–" is no reason, "" belongs to OK."""

    code: str
    reason: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, self))


OK = Ending("OK")
CANCELLED = Ending("CANCELLED", "–")


@dataclass(frozen=True, slots=True)
class Row:
    """One row; `endings` has for each of its cases ("" where there is only one) how a call may end."""

    number: int
    fault: str
    injected: str
    endings: Mapping[str, tuple[Ending, ...]]
    checked: str


@dataclass(slots=True)
class Expected:
    """How a test's calls are to end, by the table; `of` a case, where the test proves several together."""

    endings: tuple[Ending, ...] = ()
    cases: dict[str, Expected] = field(default_factory=dict)
    _asked: bool = False

    def __contains__(self, ending: object) -> bool:
        self._asked = True
        return ending in self.endings

    def of(self, case: str) -> Expected:
        """One of the cases."""
        return self.cases[case]

    @property
    def asked(self) -> bool:
        """Whether an ending was compared with it; with each of its cases."""
        return all(case.asked for case in self.cases.values()) if self.cases else self._asked

    def __str__(self) -> str:
        return " or ".join(map(str, self.endings))


def ending_of(ended: Outcome | Failure | object) -> Ending:
    """How a call has ended: a stream's Outcome, a Failure, or the answer of a unary call."""
    failure = getattr(ended, "failure", ended)
    code, reason = getattr(failure, "code", None), getattr(failure, "reason", "")
    return OK if code is None else Ending(code.name, reason or "–")


def told(line: Mapping[str, str]) -> Ending:
    """How a call has ended by its line in the log: nobody can tell a caller who has left."""
    return OK if line["status"] == "OK" else Ending(line["status"], line["reason"] or "–")


def attempts_of(outcome: Outcome) -> list[tuple[str, str]]:
    """What was tried for a stream: each backend, and why it failed ("" where it did not)."""
    report = outcome.completed if outcome.failure is None else outcome.failure.report
    name = error_pb2.ErrorReason.Name
    return [
        (attempt.backend, name(attempt.reason).removeprefix("ERROR_REASON_") if attempt.reason else "")
        for attempt in report.attempts
    ]


def rows(text: str | None = None) -> dict[int, Row]:
    """The table by its row numbers."""
    found: dict[int, Row] = {}
    for number, fault, injected, ends, checked in ROW.findall(TABLE.read_text() if text is None else text):
        assert int(number) not in found, f"row {number} twice"
        found[int(number)] = Row(int(number), fault, injected, _endings(ends), checked)
    return found


def row(number: int, *cases: str, together: bool = False) -> Callable[[T], T]:
    """Marks a test of a row, or of some of its cases.

    Of several, the test has one at a time as its argument `case`; or all of them `together`, as `expected.of(case)`.
    """

    def mark(test: T) -> T:
        test = pytest.mark.row(number, *cases, together=together)(test)
        return pytest.mark.parametrize("case", cases)(test) if len(cases) > 1 and not together else test

    return mark


def expected_of(number: int, case: str) -> Expected:
    """What the table says of a case; without one, the row must have no others."""
    endings = rows()[number].endings
    assert case in endings, f"row {number} has the cases {', '.join(endings)}, and not {case!r}"
    return Expected(endings[case])


def _endings(cell: str) -> dict[str, tuple[Ending, ...]]:
    endings: dict[str, tuple[Ending, ...]] = {}
    for part in cell.split("; "):
        case, colon, _ = part.partition(": ")
        endings[case if colon else ""] = tuple(Ending(*words) for words in ENDING.findall(part))
    return endings
