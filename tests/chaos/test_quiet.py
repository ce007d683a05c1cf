# SPDX-License-Identifier: Apache-2.0
"""What the chaos run takes for quiet, and for a growth of memory."""

from __future__ import annotations

from typing import Any

import pytest

from llm_gateway.v1.admin_service_pb2 import BackendStatus, GatewayStatus, ModelStatus, RunningCall, Seats
from tests.chaos.quiet import GROWTH, Unquiet, confirm_counted, confirm_idle, grew

PAGE = """# TYPE llm_gateway_calls_started counter
llm_gateway_calls_started_total{rpc="Generate"} 2.0
llm_gateway_calls_started_total{rpc="GetStatus"} 7.0
# TYPE llm_gateway_calls counter
llm_gateway_calls_total{code="OK",reason="",rpc="Generate"} 1.0
llm_gateway_calls_total{code="CANCELLED",reason="",rpc="Generate"} 1.0
"""


def status(**fields: Any) -> GatewayStatus:
    """A gateway with one model."""
    backends = [BackendStatus(name="a", in_flight=fields.pop("in_flight", 0))]
    return GatewayStatus(models=[ModelStatus(name="m", backends=backends)], **fields)


def test_a_gateway_at_rest_is_idle() -> None:
    confirm_idle(status(seats=Seats(limit=48)))


@pytest.mark.parametrize(
    "fields",
    [
        {"calls": [RunningCall(request_id="call-1")]},
        {"seats": Seats(in_flight=1)},
        {"seats": Seats(queued=1)},
        {"seats": Seats(queued_bytes=1)},
        {"in_flight": 1},
    ],
)
def test_what_runs_or_waits_is_not_idle(fields: dict[str, Any]) -> None:
    with pytest.raises(Unquiet, match="not idle"):
        confirm_idle(status(**fields))


def test_every_call_has_begun_and_ended_once_and_is_in_the_log() -> None:
    confirm_counted(PAGE, 2)


@pytest.mark.parametrize(
    ("page", "lines"),
    [(PAGE, 1), (PAGE, 3), (PAGE.replace("2.0", "3.0"), 2), (PAGE.replace(" 1.0", " 2.0"), 2)],
    ids=["a_line_missing", "a_line_too_many", "one_that_has_not_ended", "one_that_ended_twice"],
)
def test_calls_that_were_not_counted_are_missed(page: str, lines: int) -> None:
    with pytest.raises(Unquiet, match="calls began"):
        confirm_counted(page, lines)


def test_memory_that_levels_off_has_not_grown() -> None:
    assert grew([60_000_000, 80_000_000, 90_000_000, 91_000_000, *[92_000_000, 91_000_000] * 6]) == []


def test_memory_that_grows_all_the_time_has() -> None:
    step = GROWTH // 8

    assert len(grew([90_000_000 + step * number for number in range(24)])) == 1


def test_a_single_peak_is_no_growth() -> None:
    assert grew([*[90_000_000] * 15, 90_000_000 + 4 * GROWTH]) == []


def test_of_a_few_samples_nobody_can_tell() -> None:
    assert grew([0, GROWTH * 2, GROWTH * 4]) == []
