# SPDX-License-Identifier: Apache-2.0
"""Choice, failover and cancels: what is measured is what it is called."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from llm_gateway.upstream.spec import Balancing
from tests.bench import cancels
from tests.bench.choice import CASES, MODEL, Case, choices, pool_of

if TYPE_CHECKING:
    from pathlib import Path


async def test_every_choice_costs_something() -> None:
    found = await choices(count=5, repeats=2)

    assert [choice.name for choice in found] == [case.name for case in CASES]
    assert all(len(choice.micros) == 2 and min(choice.micros) > 0 for choice in found)


async def test_an_ejected_endpoint_is_not_chosen() -> None:
    pool = pool_of(Case(3, Balancing.LEAST_LOAD, ejected=1))

    chosen = {pool.lease(None, MODEL).endpoint for _ in range(100)}

    assert chosen == set(pool.endpoints[1:])


def test_moments_lie_in_order_within_the_spread() -> None:
    moments = cancels.moments(random.Random(1), 50, 2.0)

    assert moments == sorted(moments)
    assert 0 <= moments[0] < moments[-1] <= 2.0


def test_a_line_that_is_being_written_is_no_ending(tmp_path: Path) -> None:
    file = tmp_path / "endings"
    file.write_text("a 1.5\nb 2.5\nc 3.")

    assert cancels.ended(file) == {"a": 1.5, "b": 2.5}


def test_a_delay_is_from_the_cancel_to_the_end() -> None:
    assert cancels.delays({"a": 1.0, "b": 2.0}, {"b": 2.5, "a": 1.25, "other": 9.0}) == [0.25, 0.5]


def test_a_request_that_was_over_before_is_no_cancel() -> None:
    with pytest.raises(RuntimeError, match="callers left: 1"):
        cancels.delays({"a": 1.0, "b": 2.0}, {"a": 0.5, "b": 2.5})
