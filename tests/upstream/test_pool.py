# SPDX-License-Identifier: Apache-2.0
"""Which endpoint a call goes to, and that what it has taken is given back."""

from __future__ import annotations

import asyncio

import pytest

from llm_gateway import errors as e
from llm_gateway.backends.base import Readiness
from llm_gateway.generation import Generation, Message
from llm_gateway.upstream.spec import Balancing
from tests.upstream.fakes import Clock, FakeBackend, backend_spec, pool_of
from tests.upstream.pooling import FALLBACK, GENERATION, A, B, C, chosen, endpoint, fail, unreachable


@pytest.fixture
def clock() -> Clock:
    return Clock()


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


def test_a_backend_of_weight_0_is_nobody_to_go_to_and_says_nothing_for_the_others(clock: Clock) -> None:
    refusing = FakeBackend("a", refuses=e.UnsupportedParameter.of("params.top_k", "is unknown there"))
    pool = pool_of((A, refusing), backend_spec("drained", weight=0), clock=clock)

    assert not pool.has_other(GENERATION, [endpoint(pool, "a")])
    with pytest.raises(e.UnsupportedParameter):
        pool.lease(GENERATION, "llama")


@pytest.mark.parametrize("weight", [0, 1])
def test_that_a_backend_of_weight_0_is_loading_keeps_nobody_waiting(clock: Clock, weight: int) -> None:
    pool = pool_of(A, backend_spec("b", weight=weight), clock=clock)
    pool.probed(endpoint(pool, "b"), Readiness.LOADING)
    fail(pool, "a", *unreachable())

    with pytest.raises(e.ModelLoading if weight else e.NoHealthyBackend):
        pool.lease(GENERATION, "llama")


def test_while_all_is_well_a_choice_reads_no_clock() -> None:
    class Counting(Clock):
        reads = 0

        def __call__(self) -> float:
            self.reads += 1
            return super().__call__()

    pool = pool_of(A, B, clock=(clock := Counting()))
    chosen(pool, 1)
    reads = clock.reads
    chosen(pool, 10)

    assert pool.has_other(GENERATION, [endpoint(pool, "a")])
    assert clock.reads == reads


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
