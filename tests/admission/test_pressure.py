# SPDX-License-Identifier: Apache-2.0
"""A gateway that is short of memory, or of time, sheds new calls; who runs or waits goes on."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from llm_gateway.admission import Admission, Limits, Pressure, PressureStatistics
from llm_gateway.admission.memory import Memory
from llm_gateway.admission.pressure import BEAT, BEATS_PER_READING, SHORT_OF_MEMORY, SHORT_OF_TIME
from llm_gateway.errors import QueueFull
from tests.admission.callers import Clock, all_leave, comes, settle, ticket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LAG = 1.0


class Watched:
    """A pressure whose memory and clock are at hand, and whose heart beats when it is told."""

    def __init__(self, directory: Path) -> None:
        (directory / "proc").mkdir()
        (directory / "proc" / "cgroup").write_text("0::/\n")
        (directory / "memory.max").write_text("1000\n")
        (directory / "memory.stat").write_text("inactive_file 0\n")
        self._current = directory / "memory.current"
        self.uses(100)
        self.clock = Clock()
        self.pressure = Pressure(
            max_memory=0.9,
            max_loop_lag=LAG,
            memory=Memory(cgroup=directory, proc=directory / "proc"),
            clock=self.clock,
        )
        self.desk = Admission(Limits(max_in_flight=1), pressure=self.pressure, clock=self.clock)

    def uses(self, permille: int) -> None:
        self._current.write_text(f"{permille}\n")

    def beat(self, times: int = 1) -> None:
        """Let the timer's time come, and run what it would run."""
        for _ in range(times):
            timer = self.pressure._timer
            assert timer is not None
            timer.cancel()
            self.clock.now += BEAT
            self.pressure._beat()

    def beat_until_it_reads(self) -> None:
        self.beat(BEATS_PER_READING)


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    watched = Watched(tmp_path)
    watched.pressure.start()
    yield watched
    watched.pressure.stop()


async def test_where_nothing_is_short_everybody_may_come(watched: Watched) -> None:
    watched.beat()

    assert watched.pressure.reason() is None
    assert watched.pressure.statistics() == PressureStatistics(memory_share=0.1, loop_lag=0.0)


@pytest.mark.parametrize(("permille", "expected"), [(899, None), (900, SHORT_OF_MEMORY), (1000, SHORT_OF_MEMORY)])
async def test_memory_is_short_from_a_share_on(watched: Watched, permille: int, expected: str | None) -> None:
    watched.uses(permille)
    watched.beat_until_it_reads()

    assert watched.pressure.reason() == expected
    assert watched.pressure.statistics().memory_share == permille / 1000


async def test_memory_is_read_at_the_start(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.uses(950)
    watched.pressure.start()

    assert watched.pressure.reason() == SHORT_OF_MEMORY

    watched.pressure.stop()


async def test_memory_that_is_given_back_ends_the_shortage(watched: Watched) -> None:
    watched.uses(950)
    watched.beat_until_it_reads()
    watched.uses(500)
    watched.beat_until_it_reads()

    assert watched.pressure.reason() is None


@pytest.mark.parametrize(("late", "expected"), [(LAG - 0.01, None), (LAG + 0.01, SHORT_OF_TIME)])
async def test_a_beat_that_is_overdue_is_a_reason(watched: Watched, late: float, expected: str | None) -> None:
    watched.clock.now += BEAT + late

    assert watched.pressure.reason() == expected
    assert watched.pressure.statistics().loop_lag == pytest.approx(late)


async def test_a_beat_that_was_late_is_a_reason_until_the_next_one_is_on_time(watched: Watched) -> None:
    """What came while the loop was blocked may run after the late beat."""
    watched.clock.now += LAG + 0.01
    watched.beat()
    after_the_late_one = watched.pressure.reason()
    watched.beat()

    assert after_the_late_one == SHORT_OF_TIME
    assert watched.pressure.reason() is None


async def test_what_is_not_watched_is_no_reason(watched: Watched) -> None:
    watched.uses(950)
    watched.beat_until_it_reads()
    watched.clock.now += LAG + 0.01
    watched.beat()
    watched.pressure.stop()
    watched.clock.now += 1e6

    assert watched.pressure.reason() is None
    assert watched.pressure.statistics().loop_lag == 0.0


async def test_a_block_of_the_real_loop_is_seen() -> None:
    pressure = Pressure(max_loop_lag=0.0, memory=Memory())
    pressure.start()
    time.sleep(BEAT + 0.02)  # noqa: ASYNC251 - to block the loop is the test
    blocked = pressure.reason()
    lag = pressure.statistics().loop_lag
    pressure.stop()

    assert blocked == SHORT_OF_TIME
    assert lag > 0.01


async def test_the_heart_beats_by_itself() -> None:
    pressure = Pressure()
    pressure.start()
    first = pressure._timer
    while pressure._timer is first:  # noqa: ASYNC110 - nobody tells of a beat
        await asyncio.sleep(BEAT / 10)
    pressure.stop()


async def test_who_comes_under_pressure_is_shed_with_the_reason_though_a_seat_is_free(watched: Watched) -> None:
    watched.uses(950)
    watched.beat_until_it_reads()

    with pytest.raises(QueueFull, match="short of memory") as caught:
        await watched.desk.admit(ticket()).__aenter__()

    statistics = watched.desk.statistics()
    assert caught.value.retry_after == 1.0
    assert (statistics.shed, statistics.rejected, statistics.in_flight) == (1, {"QUEUE_FULL": 1}, 0)


async def test_who_runs_or_waits_goes_on_under_pressure(watched: Watched) -> None:
    runs, waits = await comes(watched.desk), await comes(watched.desk)
    watched.uses(950)
    watched.beat_until_it_reads()
    runs.leave()
    await settle()

    assert waits.seated

    await all_leave(runs, waits)
