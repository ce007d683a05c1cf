# SPDX-License-Identifier: Apache-2.0
"""Two real vLLMs share the calls; one is killed under a crowd and starts again on the same port."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.matrix import OK, Ending, attempts_of, ending_of
from tests.vllm.harm import CROWD, MEDIUM, SHORT, STAND_IN, VICTIM, restarted

if TYPE_CHECKING:
    from tests.vllm.harm import Asked, Histories, History

pytestmark = pytest.mark.vllm

RESCUED = [(VICTIM, "BACKEND_LOST"), (STAND_IN, "")]
LOST = Ending("ABORTED", "STREAM_INTERRUPTED")
UNAVAILABLE = Ending("UNAVAILABLE", "NO_HEALTHY_BACKEND")


@pytest.fixture
async def history(histories: Histories) -> History:
    """What callers saw of the restart."""
    return await histories.of("restart", restarted)


async def test_of_a_crowd_only_the_one_whose_answer_had_begun_is_lost(history: History, asked: Asked) -> None:
    whole = [outcome for outcome in history.running if outcome.failure is None]
    lost = [outcome for outcome in history.running if outcome.failure is not None]

    assert len(history.running) == CROWD
    assert [ending_of(outcome) for outcome in lost] in ([LOST], [])  # vLLM may have been between two answers
    assert {MEDIUM} == {outcome.completed.usage.completion_tokens for outcome in whole}
    assert all(asked.whole.startswith(outcome.text()) for outcome in history.running)


async def test_of_a_crowd_those_who_waited_are_served_by_the_other(history: History) -> None:
    attempts = [attempts_of(outcome) for outcome in history.running]

    assert CROWD // 2 - 1 <= attempts.count(RESCUED) <= CROWD // 2
    assert attempts.count([(STAND_IN, "")]) == CROWD // 2


async def test_while_a_vllm_loads_the_other_serves(history: History, asked: Asked) -> None:
    assert {OK} == {ending_of(outcome) for outcome in history.new}
    assert {SHORT} == {outcome.completed.usage.completion_tokens for outcome in history.new}
    assert {(STAND_IN, "")} == {attempts_of(outcome)[-1] for outcome in history.new}
    assert all(asked.whole.startswith(outcome.text()) for outcome in history.new)


async def test_without_another_the_caller_is_told_when_to_come_again(history: History) -> None:
    failures = [outcome.failure for outcome in history.alone if outcome.failure is not None]

    assert {UNAVAILABLE} == {ending_of(failure) for failure in failures}
    assert all("google.rpc.RetryInfo" in failure.details for failure in failures)


async def test_a_vllm_that_was_restarted_gets_calls_again(history: History, asked: Asked) -> None:
    assert {OK} == {ending_of(outcome) for outcome in history.back}
    assert {VICTIM, "vllm"} == {outcome.started.backend for outcome in history.back}
    assert all(asked.whole.startswith(outcome.text()) for outcome in history.back)
