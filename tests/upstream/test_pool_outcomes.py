# SPDX-License-Identifier: Apache-2.0
"""What a pool learns from how calls and probes went."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from llm_gateway import errors as e
from llm_gateway.backends.base import Readiness
from llm_gateway.upstream.ejection import Health
from tests.upstream.fakes import Clock, backend_spec, pool_of
from tests.upstream.pooling import FALLBACK, GENERATION, A, B, chosen, endpoint, fail, unreachable

if TYPE_CHECKING:
    from llm_gateway.upstream.pool import Lease, Pool


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_who_cannot_be_reached_is_left_alone_and_comes_back(clock: Clock) -> None:
    pool = pool_of(A, B, clock=clock)
    fail(pool, "a", *unreachable())
    alone = chosen(pool)
    clock.pass_(2.0)
    trial = pool.lease(GENERATION, "llama", avoid=[endpoint(pool, "b")])
    during = chosen(pool)
    trial.ended()

    assert alone.keys() == during.keys() == {"b"}
    assert chosen(pool).keys() == {"a", "b"}


@pytest.mark.parametrize(
    "error",
    [
        e.BackendLost("5xx"),
        e.BackendGaveUp("Aborted."),
        e.BackendProtocolError("Garbage."),
        e.BackendRefused("401"),
        e.ModelNotFound("404"),
        e.FirstTokenTimeout("Silent."),
        e.StreamInterrupted("Cut."),
        e.StreamStalled("Silent."),
        e.StreamCorrupted("Garbage."),
        e.BackendAborted("Aborted."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_who_answers_badly_is_ejected_but_not_the_last_one(clock: Clock, error: e.GatewayError) -> None:
    pool = pool_of(A, B, clock=clock)
    fail(pool, "a", *[error] * 3)
    fail(pool, "b", *[error] * 30)

    assert chosen(pool).keys() == {"b"}


def test_the_last_one_is_ejected_where_it_cannot_be_reached(clock: Clock) -> None:
    pool = pool_of(A, clock=clock)
    fail(pool, "a", *unreachable())

    with pytest.raises(e.NoHealthyBackend) as caught:
        pool.lease(GENERATION, "llama")

    assert caught.value.retry_after == 2.0


@pytest.mark.parametrize(
    "error",
    [
        e.InvalidRequest("Bad."),
        e.ContextLengthExceeded("Long."),
        e.BackendRateLimited("429"),
        e.BackendOverloaded("503"),
        e.DeadlineExceeded("Late."),
        e.SlowCaller("Slow."),
        e.DrainExpired("Over."),
        asyncio.CancelledError(),
        KeyError("a bug"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_not_its_fault_is_not_held_against_it(clock: Clock, error: BaseException) -> None:
    pool = pool_of(A, B, clock=clock)
    for _ in range(30):
        pool.lease(GENERATION, "llama", avoid=[endpoint(pool, "b")]).ended(error)

    assert endpoint(pool, "a").ejection.health is Health.HEALTHY


def test_a_model_that_only_the_caller_named_is_the_callers_mistake(clock: Clock) -> None:
    pool = pool_of(backend_spec("a", model=None), backend_spec("b", model=None), clock=clock)
    fail(pool, "a", *[e.ModelNotFound("404")] * 30)

    assert endpoint(pool, "a").ejection.health is Health.HEALTHY


def test_who_breaks_off_every_answer_is_ejected_although_each_had_begun(clock: Clock) -> None:
    pool = pool_of(A, B, clock=clock)
    for _ in range(3):
        lease = pool.lease(GENERATION, "llama", avoid=[endpoint(pool, "b")])
        lease.answered(0.1)
        lease.ended(e.StreamInterrupted("Cut."))

    assert chosen(pool).keys() == {"b"}


@pytest.mark.parametrize("answered", [True, False], ids=["with a first token", "empty"])
def test_an_answer_that_is_whole_forgives_those_that_broke_off(clock: Clock, answered: bool) -> None:
    pool = pool_of(A, B, clock=clock)
    for error in [e.StreamInterrupted("Cut."), e.StreamStalled("Silent."), None] * 5:
        lease = pool.lease(GENERATION, "llama", avoid=[endpoint(pool, "b")])
        if answered or error is not None:
            lease.answered(0.1)
        lease.ended(error)

    assert endpoint(pool, "a").ejection.health is Health.HEALTHY


@pytest.mark.parametrize("error", [e.DeadlineExceeded("Late."), asyncio.CancelledError()], ids=["deadline", "caller"])
def test_an_answer_that_ended_from_our_side_forgives_nothing(clock: Clock, error: BaseException) -> None:
    pool = pool_of(A, B, clock=clock)
    for end in [error, e.StreamInterrupted("Cut.")] * 3:
        lease = pool.lease(GENERATION, "llama", avoid=[endpoint(pool, "b")])
        lease.answered(0.1)
        lease.ended(end)

    assert endpoint(pool, "a").ejection.health is Health.EJECTED


def cut(pool: Pool, name: str, *, after: float = 1.0, of: float = 2.0) -> Lease:
    """An attempt that is given up before the endpoint's own time is over."""
    lease = pool.lease(GENERATION, "llama", avoid=[other for other in pool.endpoints if other.name != name])
    lease.patience, lease.cut = after, of
    lease.ended(lease.late())
    return lease


def rescue(pool: Pool, given_up: Lease) -> Lease:
    """The attempt for which that was done."""
    lease = pool.lease(GENERATION, "llama", avoid=[given_up.endpoint])
    lease.instead_of = given_up
    return lease


def test_who_was_given_up_before_its_time_was_over_has_not_failed(clock: Clock) -> None:
    pool = pool_of(A, B, clock=clock)
    for _ in range(30):
        rescue(pool, cut(pool, "a")).ended(e.DeadlineExceeded("Late."))

    assert endpoint(pool, "a").ejection.health is Health.HEALTHY


@pytest.mark.parametrize(("after", "health"), [(0.9, Health.EJECTED), (1.1, Health.HEALTHY)])
def test_unless_another_one_answers_in_less_time_than_it_had(clock: Clock, after: float, health: Health) -> None:
    pool = pool_of(A, B, clock=clock)
    for _ in range(3):
        lease = rescue(pool, cut(pool, "a", after=1.0))
        lease.answered(after)
        lease.ended()

    assert endpoint(pool, "a").ejection.health is health


def test_a_call_that_gave_up_a_backend_in_vain_teaches_that_the_first_token_takes_long(clock: Clock) -> None:
    pool = pool_of(A, B, clock=clock)
    pool.first_token.took(0.1)
    known = [pool.first_token.usual]
    for error in (e.BackendLost("5xx"), e.DeadlineExceeded("Late."), asyncio.CancelledError()):
        rescue(pool, cut(pool, "a", of=2.0)).ended(error)
        known.append(pool.first_token.usual)

    assert known[0] < known[1] < known[2] == known[3]


def test_one_whose_rescue_answers_teaches_only_how_long_that_took(clock: Clock) -> None:
    pool = pool_of(A, B, clock=clock)
    lease = rescue(pool, cut(pool, "a", of=2.0))
    lease.answered(0.1)
    lease.ended(e.StreamInterrupted("Cut."))

    assert pool.first_token.usual == 0.1


def test_a_success_between_failures_forgives_them(clock: Clock) -> None:
    pool = pool_of(A, B, clock=clock)
    for _ in range(5):
        fail(pool, "a", e.BackendLost("5xx"), e.BackendLost("5xx"))
        pool.lease(GENERATION, "llama", avoid=[endpoint(pool, "b")]).ended()

    assert endpoint(pool, "a").ejection.health is Health.HEALTHY


def test_who_asks_to_be_left_alone_is_left_alone_as_long_as_there_is_another(clock: Clock) -> None:
    pool = pool_of(A, B, clock=clock)
    fail(pool, "a", e.BackendRateLimited("429", retry_after=5.0))
    meanwhile = chosen(pool)
    fail(pool, "b", e.BackendOverloaded("503", retry_after=5.0))
    both = chosen(pool)
    clock.pass_(5.0)

    assert meanwhile.keys() == {"b"}
    assert both.keys() == chosen(pool).keys() == {"a", "b"}


@pytest.mark.parametrize(
    "error", [e.BackendRateLimited("429"), e.BackendOverloaded("503"), e.ModelLoading("loading")], ids=str
)
def test_who_is_too_busy_does_not_draw_every_call_by_refusing_in_no_time(clock: Clock, error: e.BackendError) -> None:
    pool = pool_of(A, B, clock=clock)
    fail(pool, "a", error)
    meanwhile = chosen(pool)
    clock.pass_(error.retry_after or 0.0)

    assert meanwhile.keys() == {"b"}
    assert chosen(pool).keys() == {"a", "b"}


def test_while_a_tier_is_too_busy_its_fallback_serves(clock: Clock) -> None:
    pool = pool_of(A, FALLBACK, clock=clock)
    fail(pool, "a", e.BackendOverloaded("503"))
    meanwhile = chosen(pool)
    clock.pass_(1.0)

    assert meanwhile.keys() == {"fallback"}
    assert chosen(pool).keys() == {"a"}


def test_where_all_are_too_busy_all_are_asked_and_who_answers_is_preferred(clock: Clock) -> None:
    pool = pool_of(A, B, clock=clock)
    for name in ("a", "b"):
        fail(pool, name, e.BackendOverloaded("503"))
    tried = {pool.lease(GENERATION, "llama").endpoint.name for _ in range(60)}
    pool.lease(GENERATION, "llama", avoid=[endpoint(pool, "b")]).ended()

    assert tried == {"a", "b"}
    assert chosen(pool).keys() == {"a"}


def test_that_a_question_is_answered_does_not_make_room_for_a_generation(clock: Clock) -> None:
    pool = pool_of(A, B, clock=clock)
    fail(pool, "a", e.BackendOverloaded("503"))
    pool.lease(None, "llama", avoid=[endpoint(pool, "b")]).ended()

    assert chosen(pool).keys() == {"b"}


def test_while_a_model_is_loading_that_is_what_callers_hear(clock: Clock) -> None:
    pool = pool_of(A, B, clock=clock)
    fail(pool, "b", *unreachable())
    pool.probed(endpoint(pool, "a"), Readiness.LOADING)

    with pytest.raises(e.ModelLoading) as caught:
        pool.lease(GENERATION, "llama")

    assert caught.value.retry_after == 5.0


def test_a_model_that_has_loaded_is_asked(clock: Clock) -> None:
    pool = pool_of(A, clock=clock)
    pool.probed(endpoint(pool, "a"), Readiness.LOADING)
    pool.probed(endpoint(pool, "a"), Readiness.READY)

    assert chosen(pool).keys() == {"a"}


def test_probes_that_find_it_dead_eject_it_and_one_that_does_not_lets_it_try(clock: Clock) -> None:
    pool = pool_of(A, B, clock=clock)
    for _ in range(3):
        pool.probed(endpoint(pool, "a"), Readiness.DOWN)
    dead = chosen(pool)
    pool.probed(endpoint(pool, "a"), Readiness.READY)

    assert dead.keys() == {"b"}
    assert chosen(pool).keys() == {"a", "b"}
