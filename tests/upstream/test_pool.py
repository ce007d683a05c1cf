# SPDX-License-Identifier: Apache-2.0
"""Which endpoint a call goes to, and what is learnt from how it went."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from llm_gateway import errors as e
from llm_gateway.backends.base import Readiness
from llm_gateway.generation import Generation, Message
from llm_gateway.upstream.ejection import Health
from llm_gateway.upstream.spec import Balancing
from tests.upstream.fakes import Clock, FakeBackend, backend_spec, pool_of

if TYPE_CHECKING:
    from llm_gateway.upstream.endpoint import Endpoint
    from llm_gateway.upstream.pool import Pool

A, B, C = backend_spec("a"), backend_spec("b"), backend_spec("c")
FALLBACK = backend_spec("fallback", tier=1)
GENERATION = Generation(messages=(Message(role="user", content="hello"),), size=100)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def endpoint(pool: Pool, name: str) -> Endpoint:
    return next(endpoint for endpoint in pool.endpoints if endpoint.name == name)


def chosen(pool: Pool, calls: int = 60) -> Counter[str]:
    """How often each endpoint is chosen for calls that end at once."""
    names: Counter[str] = Counter()
    for _ in range(calls):
        lease = pool.lease(GENERATION, "llama")
        names[lease.endpoint.name] += 1
        lease.ended()
    return names


def fail(pool: Pool, name: str, *errors: e.GatewayError) -> None:
    """Attempts at an endpoint that end with these."""
    others = [other for other in pool.endpoints if other.name != name]
    for error in errors:
        pool.lease(GENERATION, "llama", avoid=others).ended(error)


def unreachable(times: int = 2) -> list[e.GatewayError]:
    return [e.NoHealthyBackend("Refused.")] * times


# ------------------------------------------------------------------------------------------------------- the choice


def test_the_calls_are_spread(clock: Clock) -> None:
    assert chosen(pool_of(A, B, clock=clock)).keys() == {"a", "b"}


def test_a_call_goes_to_who_has_less_to_do(clock: Clock) -> None:
    pool = pool_of(A, B, clock=clock)
    busy = [pool.lease(GENERATION, "llama", avoid=[endpoint(pool, "b")]) for _ in range(3)]

    assert [pool.lease(GENERATION, "llama").endpoint.name for _ in range(3)] == ["b"] * 3
    for lease in busy:
        lease.ended()


def test_a_large_prompt_is_more_work_than_a_small_one(clock: Clock) -> None:
    pool = pool_of(A, B, clock=clock)
    pool.lease(Generation(size=1_000_000), "llama", avoid=[endpoint(pool, "b")])

    assert [pool.lease(GENERATION, "llama").endpoint.name for _ in range(5)] == ["b"] * 5


def test_the_backends_own_name_for_the_model_is_what_it_is_asked_for(clock: Clock) -> None:
    assert pool_of(A, clock=clock).lease(GENERATION, "llama").model == "own-name"


def test_a_backend_without_a_name_of_its_own_is_asked_for_the_callers(clock: Clock) -> None:
    pool = pool_of(backend_spec("a", model=None), clock=clock)

    assert pool.lease(GENERATION, "whatever").model == "whatever"


def test_a_fallback_tier_gets_nothing_while_the_first_has_somebody(clock: Clock) -> None:
    pool = pool_of(A, B, FALLBACK, clock=clock)
    fail(pool, "a", *unreachable())

    assert chosen(pool).keys() == {"b"}


def test_a_fallback_tier_takes_over_when_the_first_is_ejected(clock: Clock) -> None:
    pool = pool_of(A, FALLBACK, clock=clock)
    fail(pool, "a", *unreachable())

    assert chosen(pool).keys() == {"fallback"}


def test_a_backend_of_weight_0_gets_no_new_calls(clock: Clock) -> None:
    pool = pool_of(A, backend_spec("drained", weight=0), clock=clock)

    assert chosen(pool).keys() == {"a"}


def test_another_attempt_avoids_those_that_were_tried(clock: Clock) -> None:
    pool = pool_of(A, B, C, FALLBACK, clock=clock)
    tried = [endpoint(pool, "a"), endpoint(pool, "b"), endpoint(pool, "c")]

    assert pool.lease(GENERATION, "llama", avoid=tried[:2]).endpoint.name == "c"
    assert pool.lease(GENERATION, "llama", avoid=tried).endpoint.name == "fallback"
    assert pool.has_other(GENERATION, tried)
    assert not pool.has_other(GENERATION, pool.endpoints)


@pytest.mark.parametrize("balancing", [Balancing.SESSION, Balancing.PREFIX])
def test_a_session_or_a_prefix_stays_where_it_is(clock: Clock, balancing: Balancing) -> None:
    pool = pool_of(*(backend_spec(f"b{i}") for i in range(8)), clock=clock, balancing=balancing)
    system = Message(role="system", content="You are terse.")

    def names(key: str) -> set[str]:
        picked = set()
        for turn in range(10):
            messages = (system, Message(role="user", content=key * 600), Message(role="user", content=str(turn)))
            lease = pool.lease(Generation(session_id=key, messages=messages), "llama")
            picked.add(lease.endpoint.name)
            lease.ended()
        return picked

    homes = [names(key) for key in "pqrstuvw"]

    assert all(len(home) == 1 for home in homes)
    assert len(set.union(*homes)) > 1


def test_a_call_without_a_session_goes_to_who_has_less_to_do(clock: Clock) -> None:
    pool = pool_of(A, B, clock=clock, balancing=Balancing.SESSION)

    assert chosen(pool).keys() == {"a", "b"}


# ------------------------------------------------------------------------------------------- what a dialect cannot do


def test_a_request_goes_to_a_backend_that_can_honour_it(clock: Clock) -> None:
    refusing = FakeBackend("a", refuses=e.UnsupportedParameter.of("params.top_k", "is unknown there"))
    pool = pool_of((A, refusing), B, clock=clock)

    assert chosen(pool).keys() == {"b"}


def test_a_request_that_none_can_honour_is_refused(clock: Clock) -> None:
    refusal = e.UnsupportedParameter.of("params.top_k", "is unknown there")
    pool = pool_of((A, FakeBackend("a", refuses=refusal)), clock=clock)

    with pytest.raises(e.UnsupportedParameter) as caught:
        pool.lease(GENERATION, "llama")

    assert caught.value is refusal


def test_that_who_could_honour_it_is_ejected_does_not_make_it_the_callers_fault(clock: Clock) -> None:
    refusing = FakeBackend("a", refuses=e.UnsupportedParameter.of("params.top_k", "is unknown there"))
    pool = pool_of((A, refusing), B, clock=clock)
    fail(pool, "b", *unreachable())

    with pytest.raises(e.NoHealthyBackend):
        pool.lease(GENERATION, "llama")


# ------------------------------------------------------------------------------------------------- what is learnt


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


def test_a_wait_that_nobody_asked_for_is_not_heeded(clock: Clock) -> None:
    pool = pool_of(A, B, clock=clock)
    fail(pool, "a", e.BackendOverloaded("503"))

    assert chosen(pool).keys() == {"a", "b"}


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


# ----------------------------------------------------------------------------------- who waits for a dead endpoint


def waiting(pool: Pool, name: str) -> tuple[list[e.GatewayError], object]:
    """A lease whose first token has not come; what it is told."""
    told: list[e.GatewayError] = []
    lease = pool.lease(GENERATION, "llama", avoid=[other for other in pool.endpoints if other.name != name])
    lease.on_lost = told.append
    return told, lease


def kill(pool: Pool, name: str) -> None:
    for _ in range(3):
        pool.probed(endpoint(pool, name), Readiness.DOWN)


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


def test_an_answer_that_has_begun_is_left_to_its_own_timer(clock: Clock) -> None:
    pool = pool_of(A, B, clock=clock)
    told, lease = waiting(pool, "a")
    lease.answered()  # type: ignore[attr-defined]
    kill(pool, "a")

    assert not told


# ------------------------------------------------------------------------------------------------------- the books


@pytest.mark.parametrize("error", [None, e.BackendLost("5xx"), asyncio.CancelledError()], ids=str)
def test_what_a_call_has_taken_is_given_back_however_it_ends(clock: Clock, error: BaseException | None) -> None:
    pool = pool_of(A, clock=clock)
    leases = [pool.lease(GENERATION, "llama") for _ in range(3)]
    loads = [endpoint(pool, "a").load > 3.0]
    for lease in leases:
        lease.ended(error)
        lease.ended(error)

    assert loads == [True]
    assert (endpoint(pool, "a").in_flight, endpoint(pool, "a").load, endpoint(pool, "a").waiting) == (0, 0.0, set())


def test_a_pool_that_was_emptied_says_that_there_is_nobody(clock: Clock) -> None:
    pool = pool_of(A, clock=clock)
    pool.update(pool.spec, ())

    with pytest.raises(e.NoHealthyBackend):
        pool.lease(GENERATION, "llama")
