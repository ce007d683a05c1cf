# SPDX-License-Identifier: Apache-2.0
"""What a run prints at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.chaos.quiet import growth

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    from tests.chaos.run import Result

MEGABYTE = 1024 * 1024


def lines(result: Result, seconds: float) -> Iterator[str]:
    """The summary, and the first violations in full."""
    yield f"seed {result.seed}, {seconds:.0f} s of trouble"
    yield from _table(f"{result.endings.total()} calls by ending", result.endings)
    yield from _table("attempts per call", result.attempts)
    yield from _table(f"{result.outcomes.total()} attempts by outcome", result.outcomes)
    yield from _table(f"{result.troubles.total()} troubles made", result.troubles)
    yield from _table("faults that struck a request, by the simulators' own count", result.struck)
    yield f"recovery: {max(result.recoveries):.2f} s at most, after {len(result.recoveries) - 1} rounds of trouble"
    yield f"descriptors: {' '.join(str(sample.descriptors) for sample in result.samples)}"
    resident = [sample.resident for sample in result.samples]
    yield f"memory, MB: {' '.join(f'{size / MEGABYTE:.1f}' for size in resident)}"
    grown = growth(resident)
    yield "growth: the run is too short to tell" if grown is None else f"growth: {grown / MEGABYTE:.2f} MB"
    yield f"violations: {result.broken.total()} {dict(result.broken) or ''}".rstrip()
    for violation in result.violations:
        yield f"\nVIOLATION, seed {result.seed}: {violation}"


def _table(title: str, counts: Counter[str] | Counter[int]) -> Iterator[str]:
    yield f"{title}:"
    for what, count in sorted(counts.items(), key=lambda item: (-item[1], str(item[0]))):
        yield f"  {count:7d}  {what}"
