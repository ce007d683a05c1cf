# SPDX-License-Identifier: Apache-2.0
"""Signals to a real vLLM in mid-stream: what was being streamed ends honestly, and everybody else is served."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.faults.matrix import OK, Ending, attempts_of, ending_of
from tests.vllm.harm import SHORT, STAND_IN, VICTIM, frozen, killed

if TYPE_CHECKING:
    from tests.kit.calls import Outcome
    from tests.vllm.harm import Asked, Histories, History
    from tests.vllm.server import Part

pytestmark = pytest.mark.vllm

ABORTED = Ending("ABORTED", "BACKEND_ABORTED")
INTERRUPTED = Ending("ABORTED", "STREAM_INTERRUPTED")
STALLED = Ending("ABORTED", "STREAM_STALLED")


@dataclass(frozen=True, slots=True)
class Kill:
    """A signal that ends a process, how a stream may end then, and with which code vLLM does."""

    number: signal.Signals
    part: Part
    endings: set[Ending]
    exit_code: int


@dataclass(frozen=True, slots=True)
class Freeze:
    """A process that stands still, and what tells the gateway not to wait for a first token any more."""

    part: Part
    sign: str
    first_token_ms: int


KILLS = {
    # vLLM tells its engine to abort what runs, ends it, and lets go of it: a stream tells of the abort, or of a dead
    # engine, or stays open and silent, as long as the caller does. It is a race in vLLM.
    "SIGTERM to the API process": Kill(signal.SIGTERM, "api", {ABORTED, INTERRUPTED, STALLED}, 0),
    "SIGKILL to the API process": Kill(signal.SIGKILL, "api", {INTERRUPTED}, -signal.SIGKILL),
    "SIGKILL to the engine": Kill(signal.SIGKILL, "engine", {INTERRUPTED}, 0),
}
FREEZES = {
    # No probe is answered.
    "SIGSTOP to the API process": Freeze("api", "BACKEND_LOST", first_token_ms=50_000),
    # /health says all the while that all is well.
    "SIGSTOP to the engine": Freeze("engine", "FIRST_TOKEN_TIMEOUT", first_token_ms=4_000),
}


@pytest.fixture(params=KILLS)
def kill(request: pytest.FixtureRequest) -> Kill:
    """Each of them."""
    return KILLS[request.param]


@pytest.fixture
async def after_kill(request: pytest.FixtureRequest, kill: Kill, histories: Histories) -> History:
    """What callers saw of it."""
    return await histories.of(request.node.callspec.params["kill"], partial(killed, number=kill.number, part=kill.part))


@pytest.fixture(params=FREEZES)
def freeze(request: pytest.FixtureRequest) -> Freeze:
    """Each of them."""
    return FREEZES[request.param]


@pytest.fixture
async def after_freeze(request: pytest.FixtureRequest, freeze: Freeze, histories: Histories) -> History:
    """What callers saw of it."""
    do = partial(frozen, part=freeze.part, first_token_ms=freeze.first_token_ms)
    return await histories.of(request.node.callspec.params["freeze"], do)


def is_cut(outcome: Outcome, asked: Asked) -> bool:
    """Whether something was delivered, all of it right, and not the whole."""
    return asked.whole.startswith(outcome.text()) and "" != outcome.text() != asked.whole


def is_whole(outcome: Outcome, asked: Asked) -> bool:
    """Whether it is every token of a short answer."""
    usage = outcome.completed.usage
    return asked.whole.startswith(outcome.text()) and (usage.completion_tokens, usage.estimated) == (SHORT, False)


async def test_a_stream_from_a_killed_vllm_is_never_whole(kill: Kill, after_kill: History, asked: Asked) -> None:
    [outcome] = after_kill.running

    assert after_kill.exit_code == kill.exit_code
    assert ending_of(outcome) in kill.endings
    assert is_cut(outcome, asked)
    assert [backend for backend, _ in attempts_of(outcome)] == [VICTIM]


async def test_what_a_killed_vllm_has_generated_is_accounted_for(after_kill: History) -> None:
    [outcome] = after_kill.running

    assert outcome.failure is not None
    assert outcome.failure.report.last_sequence == len(outcome.events)
    assert outcome.failure.report.usage.completion_tokens > 0


async def test_who_waited_in_a_killed_vllm_is_served_by_the_other(after_kill: History, asked: Asked) -> None:
    [outcome] = after_kill.waiting

    assert ending_of(outcome) == OK
    assert attempts_of(outcome) == [(VICTIM, "BACKEND_LOST"), (STAND_IN, "")]
    assert is_whole(outcome, asked)


async def test_new_calls_are_served_by_the_other_at_once(after_kill: History, asked: Asked) -> None:
    attempts = [attempts_of(outcome) for outcome in after_kill.new]

    assert {OK} == {ending_of(outcome) for outcome in after_kill.new}
    assert all(is_whole(outcome, asked) for outcome in after_kill.new)
    assert {(STAND_IN, "")} == {tried[-1] for tried in attempts}
    assert max(map(len, attempts)) <= 2
    assert [(STAND_IN, "")] in attempts  # the dead one is ejected


async def test_a_stream_from_a_frozen_vllm_has_stalled(after_freeze: History, asked: Asked) -> None:
    [outcome] = after_freeze.running

    assert ending_of(outcome) == STALLED
    assert is_cut(outcome, asked)
    assert attempts_of(outcome) == [(VICTIM, "STREAM_STALLED")]


async def test_who_waited_in_a_frozen_vllm_is_served_by_the_other(
    freeze: Freeze, after_freeze: History, asked: Asked
) -> None:
    [outcome] = after_freeze.waiting

    assert ending_of(outcome) == OK
    assert attempts_of(outcome) == [(VICTIM, freeze.sign), (STAND_IN, "")]
    assert is_whole(outcome, asked)


async def test_calls_during_a_freeze_are_served_by_the_other(after_freeze: History, asked: Asked) -> None:
    attempts = [attempts_of(outcome) for outcome in after_freeze.new]

    assert {OK} == {ending_of(outcome) for outcome in after_freeze.new}
    assert all(is_whole(outcome, asked) for outcome in after_freeze.new)
    assert {(STAND_IN, "")} == {tried[-1] for tried in attempts}
    assert max(map(len, attempts)) <= 2


async def test_a_vllm_that_goes_on_gets_calls_again(after_freeze: History, asked: Asked) -> None:
    [outcome] = after_freeze.back

    assert attempts_of(outcome) == [(VICTIM, "")]
    assert is_whole(outcome, asked)
