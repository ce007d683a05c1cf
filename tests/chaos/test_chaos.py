# SPDX-License-Identifier: Apache-2.0
"""`make chaos` for a few seconds, with another seed each time: pytest-randomly has set it, and prints its own."""

from __future__ import annotations

import random

from tests.chaos import report
from tests.chaos.quiet import RECOVERED_IN
from tests.chaos.run import run

SECONDS = 5.0
PRINTED = ("calls by ending", "attempts per call", "troubles made", "recovery", "memory", "violations: 0")


async def test_a_few_seconds_of_trouble_break_no_rule() -> None:
    result = await run(SECONDS, random.randrange(1_000_000), lambda _: None)

    printed = "\n".join(report.lines(result, SECONDS))
    assert result.violations == [], printed
    assert result.endings["OK"] > 0
    assert result.troubles.total() > 0
    assert result.struck.total() > 0
    assert len(result.recoveries) == len(result.samples) == 2
    assert max(result.recoveries) < RECOVERED_IN
    assert [word for word in PRINTED if word not in printed] == []
