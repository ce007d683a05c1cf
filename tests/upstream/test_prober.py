# SPDX-License-Identifier: Apache-2.0
"""Every endpoint is asked all the time, and none of them delays another."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from llm_gateway.backends.base import Load, Readiness
from llm_gateway.generation import Model
from llm_gateway.upstream.ejection import Health
from llm_gateway.upstream.prober import ProbeIntervals, Prober
from tests.kit.calls import until
from tests.upstream.fakes import Clock, FakeBackend, backend_spec, pool_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from llm_gateway.upstream.endpoint import Endpoint

QUICK = ProbeIntervals(readiness=0.001, timeout=0.01, load=0.001)


class Hanging(FakeBackend):
    """It never says anything."""

    async def probe(self) -> Readiness:
        self.probes += 1
        await asyncio.get_running_loop().create_future()
        return Readiness.READY

    async def load(self) -> Load | None:
        await asyncio.get_running_loop().create_future()
        return None


class Buggy(FakeBackend):
    """Its driver has a bug."""

    async def probe(self) -> Readiness:
        self.probes += 1
        raise KeyError("a bug")


class Listing(FakeBackend):
    """It counts how often it was asked for its models."""

    listed = 0

    async def list_models(self) -> Sequence[Model]:
        self.listed += 1
        return await super().list_models()


@pytest.fixture
async def prober() -> AsyncIterator[Prober]:
    prober = Prober(QUICK)
    yield prober
    await prober.close()


def watched(prober: Prober, *backends: FakeBackend) -> list[Endpoint]:
    """Endpoints of one pool, watched from now on."""
    pool = pool_of(*((backend_spec(f"b{i}"), backend) for i, backend in enumerate(backends)), clock=Clock())
    for endpoint in pool.endpoints:
        prober.watch(pool, endpoint)
    return list(pool.endpoints)


@pytest.mark.parametrize(
    ("readiness", "health"),
    [(Readiness.READY, Health.HEALTHY), (Readiness.LOADING, Health.LOADING), (Readiness.DOWN, Health.EJECTED)],
)
async def test_what_a_probe_finds_decides_over_the_calls(prober: Prober, readiness: Readiness, health: Health) -> None:
    (endpoint,) = watched(prober, backend := FakeBackend(readiness=readiness))
    await until(lambda: backend.probes > 3)

    assert endpoint.ejection.health is health


async def test_one_that_does_not_answer_in_time_is_ejected_and_delays_nobody(prober: Prober) -> None:
    hanging, other = watched(prober, Hanging(), good := FakeBackend())
    await until(lambda: hanging.ejection.health is Health.EJECTED)

    assert good.probes > 3
    assert other.ejection.health is Health.HEALTHY


async def test_where_all_are_slow_to_answer_somebody_takes_the_calls(prober: Prober) -> None:
    endpoints = watched(prober, *(hanging := [Hanging(), Hanging()]))
    await until(lambda: min(backend.probes for backend in hanging) > 9)

    assert any(endpoint.takes_calls for endpoint in endpoints)
    assert not await prober.any_ready()


async def test_a_bug_does_not_end_the_probing(prober: Prober, caplog: pytest.LogCaptureFixture) -> None:
    watched(prober, backend := Buggy())
    await until(lambda: backend.probes > 3)

    assert "a probe failed on a bug" in caplog.text


@pytest.mark.parametrize(
    ("backends", "ready"),
    [
        ([Readiness.DOWN, Readiness.READY], True),
        ([Readiness.DOWN, Readiness.LOADING], False),
        ([], False),
    ],
)
async def test_whether_anybody_is_ready_is_known_once_all_were_asked(
    prober: Prober, backends: list[Readiness], ready: bool
) -> None:
    watched(prober, *(FakeBackend(readiness=readiness) for readiness in backends))

    assert await prober.any_ready() == ready


@pytest.mark.parametrize("leaving", ["weight 0", "retiring"])
async def test_that_one_is_ready_which_gets_no_calls_helps_nobody(prober: Prober, leaving: str) -> None:
    backend = FakeBackend()
    spec = backend_spec("a", weight=0 if leaving == "weight 0" else 1)
    pool = pool_of((spec, backend), clock=Clock())
    prober.watch(pool, endpoint := pool.endpoints[0])
    if leaving == "retiring":
        endpoint.retire(lambda: None)
    await until(lambda: backend.probes > 1)

    assert not await prober.any_ready()


async def test_who_waits_for_one_that_is_forgotten_waits_no_more(prober: Prober) -> None:
    (endpoint,) = watched(prober, Hanging())
    waiting = asyncio.ensure_future(prober.any_ready())
    await asyncio.sleep(0)
    prober.forget(endpoint)

    assert not await asyncio.wait_for(waiting, 5.0)


async def test_what_could_not_be_learnt_is_asked_again_until_it_is_known_and_then_no_more(prober: Prober) -> None:
    (endpoint,) = watched(prober, backend := Listing(models=None))
    await until(lambda: backend.listed > 1)
    backend.models = (Model(name="other"),)
    listed = backend.listed
    await until(lambda: backend.listed > listed + 1)
    backend.models = (Model(name="own-name", context_length=4096),)
    await until(lambda: endpoint.context_length)
    listed, probes = backend.listed, backend.probes
    await until(lambda: backend.probes > probes + 3)

    assert (endpoint.context_length, backend.listed) == (4096, listed)


async def test_new_endpoints_in_the_place_of_old_ones_are_waited_for(prober: Prober) -> None:
    (old,) = watched(prober, FakeBackend())
    await prober.any_ready()
    watched(prober, FakeBackend())
    prober.forget(old)

    assert await prober.any_ready()


async def test_what_a_backend_says_of_its_load_reaches_the_endpoint(prober: Prober) -> None:
    (endpoint,) = watched(prober, backend := FakeBackend(says=Load(running=3, waiting=2)))
    await until(lambda: endpoint.load)
    loads = [endpoint.load]
    backend.says = None
    await until(lambda: endpoint.report is None)

    assert [*loads, endpoint.load] == [7.0, 0.0]


async def test_one_that_wants_to_be_asked_less_often_is(prober: Prober) -> None:
    watched(prober, often := FakeBackend(), seldom := FakeBackend(probe_patience=1e6))
    await until(lambda: often.probes > 3)

    assert seldom.probes == 1


async def test_one_that_is_forgotten_is_asked_no_more(prober: Prober) -> None:
    (endpoint,) = watched(prober, backend := FakeBackend())
    await until(lambda: backend.probes)
    prober.forget(endpoint)
    probes = backend.probes
    await asyncio.sleep(0.005)

    assert backend.probes == probes
