# SPDX-License-Identifier: Apache-2.0
"""Who takes calls while endpoints come back; what questions say of them; who waits for a dead one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_gateway import errors as e
from llm_gateway.backends.base import Readiness
from llm_gateway.generation import TokenQuery
from llm_gateway.upstream.ejection import Health
from tests.upstream.fakes import Clock, backend_spec, pool_of
from tests.upstream.pooling import GENERATION, A, B, chosen, endpoint, fail, kill, unreachable

if TYPE_CHECKING:
    from llm_gateway.upstream.pool import Lease, Pool


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_while_the_others_are_only_on_trial_the_last_healthy_one_is_not_ejected_for_its_answers(clock: Clock) -> None:
    """Else all but the trial would be refused until its first token."""
    pool = pool_of(A, B, clock=clock)
    fail(pool, "a", *[e.BackendLost("5xx")] * 3)
    clock.pass_(2.0)
    fail(pool, "b", *[e.BackendLost("5xx")] * 3)

    assert endpoint(pool, "a").ejection.health is Health.PROBATION
    assert endpoint(pool, "b").ejection.health is Health.HEALTHY


def test_where_all_are_slow_to_answer_probes_one_stays(clock: Clock) -> None:
    pool = pool_of(A, B, backend_spec("drained", weight=0), clock=clock)
    for _ in range(20):
        for name in ("a", "b"):
            pool.probed(endpoint(pool, name), Readiness.SILENT)
            clock.pass_(1.0)

        assert any(endpoint.healthy for endpoint in pool.endpoints)


@pytest.fixture
def on_trial(clock: Clock) -> Pool:
    """Its only backend that takes calls came back, and its trial waits for the first token."""
    pool = pool_of(A, backend_spec("drained", weight=0), clock=clock)
    kill(pool, "a")
    pool.probed(endpoint(pool, "a"), Readiness.READY)
    pool.lease(GENERATION, "llama")
    return pool


def test_the_only_backend_takes_calls_beside_its_trial(on_trial: Pool) -> None:
    assert on_trial.has_other(GENERATION, ())
    assert on_trial.lease(GENERATION, "llama").endpoint.name == "a"


@pytest.mark.parametrize("readiness", [Readiness.SILENT, Readiness.DOWN])
def test_unless_its_last_probe_did_not_find_it_ready(on_trial: Pool, readiness: Readiness) -> None:
    on_trial.lease(GENERATION, "llama")
    on_trial.probed(endpoint(on_trial, "a"), readiness)

    with pytest.raises(e.NoHealthyBackend):
        on_trial.lease(GENERATION, "llama")


def test_where_there_is_another_a_trial_is_one_call(clock: Clock) -> None:
    pool = pool_of(A, B, clock=clock)
    kill(pool, "a")
    pool.probed(endpoint(pool, "a"), Readiness.READY)
    pool.lease(GENERATION, "llama", avoid=[endpoint(pool, "b")])

    assert chosen(pool).keys() == {"b"}


@pytest.mark.parametrize("spared", [False, True], ids=["answers", "spared"])
def test_that_an_ejected_backend_is_back_is_logged_once(
    clock: Clock, caplog: pytest.LogCaptureFixture, spared: bool
) -> None:
    pool = pool_of(A, B, clock=clock)
    fail(pool, "a", *[e.BackendLost("5xx")] * 3)
    if spared:
        pool.update(pool.spec, [endpoint(pool, "a")])
    clock.pass_(2.0)
    with caplog.at_level("INFO"):
        fail(pool, "a", e.BackendLost("5xx")) if spared else chosen(pool)
        chosen(pool)

    lines = [vars(record) for record in caplog.records if record.message == "an ejected backend is back"]
    assert [(line["model"], line["backend"]) for line in lines] == [("llama", "a")]


# ------------------------------------------------------------------------------------------------------- questions


@pytest.fixture(params=[None, TokenQuery(prompt="x")], ids=["models", "tokens"])
def question(request: pytest.FixtureRequest) -> TokenQuery | None:
    asked: TokenQuery | None = request.param
    return asked


def ask(pool: Pool, name: str, question: TokenQuery | None, error: e.GatewayError | None = None) -> None:
    pool.lease(question, "llama", avoid=[other for other in pool.endpoints if other.name != name]).ended(error)


def test_a_question_that_is_answered_forgives_no_failure(clock: Clock, question: TokenQuery | None) -> None:
    pool = pool_of(A, B, clock=clock)
    for _ in range(3):
        ask(pool, "a", question)
        fail(pool, "a", e.BackendLost("5xx"))

    assert endpoint(pool, "a").ejection.health is Health.EJECTED


@pytest.mark.parametrize("error", [None, e.BackendLost("5xx"), e.FirstTokenTimeout("Silent.")], ids=str)
def test_a_question_neither_takes_nor_ends_a_trial(
    clock: Clock, question: TokenQuery | None, error: e.GatewayError | None
) -> None:
    pool = pool_of(A, B, clock=clock)
    fail(pool, "a", *unreachable())
    clock.pass_(2.0)
    ask(pool, "a", question, error)
    open_still = endpoint(pool, "a").takes_calls
    pending = pool.lease(question, "llama", avoid=[endpoint(pool, "b")])
    pool.lease(GENERATION, "llama", avoid=[endpoint(pool, "b")])
    pending.ended(error)

    assert open_still
    assert endpoint(pool, "a").ejection.health is Health.PROBATION
    assert not endpoint(pool, "a").takes_calls, "the trial is under way"


@pytest.mark.parametrize("error", [None, e.BackendLost("5xx"), e.DeadlineExceeded("Late.")], ids=str)
def test_a_question_asked_beside_a_trial_does_not_give_it_back(
    on_trial: Pool, question: TokenQuery | None, error: e.GatewayError | None
) -> None:
    on_trial.lease(question, "llama").ended(error)

    assert endpoint(on_trial, "a").ejection.health is Health.PROBATION
    assert not endpoint(on_trial, "a").takes_calls, "the trial is under way"


def test_a_question_that_fails_is_not_held_against_it_but_that_it_does_not_arrive_is(
    clock: Clock, question: TokenQuery | None
) -> None:
    pool = pool_of(A, B, clock=clock)
    for _ in range(30):
        ask(pool, "a", question, e.BackendLost("5xx"))
    healths = [endpoint(pool, "a").ejection.health]
    for error in unreachable():
        ask(pool, "a", question, error)

    assert [*healths, endpoint(pool, "a").ejection.health] == [Health.HEALTHY, Health.EJECTED]


# ----------------------------------------------------------------------------------- who waits for a dead endpoint


def waiting(pool: Pool, name: str) -> tuple[list[e.GatewayError], Lease]:
    """A lease whose first token has not come; what it is told."""
    told: list[e.GatewayError] = []

    def go_elsewhere(error: e.GatewayError) -> bool:
        told.append(error)
        return True

    lease = pool.lease(GENERATION, "llama", avoid=[other for other in pool.endpoints if other.name != name])
    lease.on_lost = go_elsewhere
    return told, lease


def test_who_waits_for_the_first_token_of_a_dead_endpoint_is_sent_elsewhere(clock: Clock) -> None:
    pool = pool_of(A, B, clock=clock)
    told, _ = waiting(pool, "a")
    kill(pool, "a")

    assert [type(error) for error in told] == [e.BackendLost]


def test_so_is_who_waits_at_one_that_others_calls_have_ejected_before_the_probes_did(clock: Clock) -> None:
    pool = pool_of(A, B, clock=clock)
    told, _ = waiting(pool, "a")
    fail(pool, "a", *unreachable())
    kill(pool, "a")

    assert [type(error) for error in told] == [e.BackendLost]


def test_where_there_is_nobody_else_the_wait_goes_on(clock: Clock) -> None:
    pool = pool_of(A, clock=clock)
    told, _ = waiting(pool, "a")
    kill(pool, "a")

    assert not told


def test_one_that_gets_no_calls_is_nobody_to_be_sent_to(clock: Clock) -> None:
    pool = pool_of(A, backend_spec("drained", weight=0), clock=clock)
    told, _ = waiting(pool, "a")
    kill(pool, "a")

    assert not told


@pytest.mark.parametrize("silences", [2, 3])
def test_who_waits_at_one_that_is_long_silent_is_sent_elsewhere(clock: Clock, silences: int) -> None:
    pool = pool_of(A, B, clock=clock)
    told, _ = waiting(pool, "a")
    for _ in range(silences):
        pool.probed(endpoint(pool, "a"), Readiness.SILENT)

    assert len(told) == (silences == 3)


def test_unless_it_is_spared_because_there_is_only_a_trial_elsewhere(clock: Clock) -> None:
    pool = pool_of(A, B, clock=clock)
    told, _ = waiting(pool, "a")
    fail(pool, "b", *unreachable())
    clock.pass_(2.0)
    for _ in range(10):
        pool.probed(endpoint(pool, "a"), Readiness.SILENT)

    assert not told


def test_an_answer_that_has_begun_is_left_to_its_own_timer(clock: Clock) -> None:
    pool = pool_of(A, B, clock=clock)
    told, lease = waiting(pool, "a")
    lease.answered(0.1)
    kill(pool, "a")

    assert not told
