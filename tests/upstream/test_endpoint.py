# SPDX-License-Identifier: Apache-2.0
"""How much is outstanding on an endpoint, by our own count and by its own word."""

from __future__ import annotations

import pytest

from llm_gateway.backends.base import Load, Readiness
from llm_gateway.upstream.endpoint import PROMPT_BYTES, Endpoint, work_of
from tests.upstream.fakes import Clock, backend_spec, endpoint_of


@pytest.fixture
def endpoint() -> Endpoint:
    return endpoint_of(backend_spec("a"), clock=Clock())


def test_a_call_is_one_and_a_large_prompt_is_more() -> None:
    assert [work_of(0), work_of(PROMPT_BYTES), work_of(3 * PROMPT_BYTES)] == [1.0, 2.0, 4.0]


def test_no_dust_of_additions_stays(endpoint: Endpoint) -> None:
    works = [work_of(size) for size in (1, 7, 1_000, 33_333)]
    for work in works:
        endpoint.begin(work)
    for work in works:
        endpoint.end(work)

    assert endpoint.load == 0.0


def test_what_others_send_counts_and_our_own_does_not_count_twice(endpoint: Endpoint) -> None:
    for _ in range(3):
        endpoint.begin(1.0)
    endpoint.reported(Load(running=5, waiting=0))

    assert endpoint.load == 5.0


def test_who_waits_weighs_more_than_who_runs(endpoint: Endpoint) -> None:
    loads = []
    for load in (Load(running=4, waiting=0), Load(running=2, waiting=2)):
        endpoint.reported(load)
        loads.append(endpoint.load)

    assert loads[0] < loads[1]


def test_a_cache_that_is_nearly_full_weighs(endpoint: Endpoint) -> None:
    loads = []
    for usage in (0.5, 0.8, 0.9, 1.0):
        endpoint.reported(Load(running=1, waiting=0, kv_usage=usage))
        loads.append(endpoint.load)

    assert loads == pytest.approx([1.0, 1.0, 6.0, 11.0])


def test_one_that_says_nothing_any_more_is_not_held_to_its_last_word(endpoint: Endpoint) -> None:
    endpoint.reported(Load(running=9, waiting=9))
    endpoint.reported(None)

    assert endpoint.load == 0.0


def test_a_word_that_is_old_is_not_believed(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint.reported(Load(running=9, waiting=9))
    fresh = endpoint.load
    monkeypatch.setattr("llm_gateway.upstream.endpoint.REPORT_TTL", 0.0)

    assert (fresh > 0, endpoint.load) == (True, 0.0)


def test_an_endpoint_of_weight_0_is_nobody() -> None:
    drained = endpoint_of(backend_spec("a", weight=0), clock=Clock())
    well = drained.takes_calls, drained.healthy
    for readiness in [Readiness.DOWN] * 3 + [Readiness.READY]:
        drained.ejection.probed(readiness, spared=True)

    assert drained.ejection.better_than_nobody
    assert (*well, drained.better_than_nobody) == (False, False, False)


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_a_retired_endpoint_says_when_its_last_call_has_ended(endpoint: Endpoint, calls: int) -> None:
    said: list[int] = []
    for _ in range(calls):
        endpoint.begin(1.0)
    assert not endpoint.retiring
    endpoint.retire(lambda: said.append(endpoint.in_flight))
    assert endpoint.retiring
    for _ in range(calls):
        endpoint.end(1.0)

    assert said == [0]
