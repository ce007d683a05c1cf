# SPDX-License-Identifier: Apache-2.0
"""What the chaos run's reader of the log finds in it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import pytest

from llm_gateway.config_watcher import WRONG
from tests.chaos.history import BARE, History
from tests.chaos.log import Log
from tests.chaos.wishes import Promise, Wish

if TYPE_CHECKING:
    from tests.kit.processes import GatewayProcess

WISH = Wish(request_id="call-1", model="many", prompt="canary", promise=Promise((), (), 0))
GOOD = {"request_id": "call-1", "status": "OK", "reason": None}
LOST = {"request_id": "call-1", "status": "UNAVAILABLE", "reason": "BACKEND_LOST"}
ONCE = [("OK", "")]


@pytest.fixture
def log() -> Log:
    """A log whose lines the test gives."""
    return Log(cast("GatewayProcess", None))


def access(**fields: Any) -> str:
    """The line of a call."""
    return json.dumps({"logger": "llm_gateway.access", "level": "INFO", "message": "call", "rpc": "Generate"} | fields)


def logged(**fields: Any) -> str:
    """Another line."""
    return json.dumps({"logger": "llm_gateway.app", "level": "INFO", "message": "starting"} | fields)


@pytest.mark.parametrize(
    "line",
    [
        access(**GOOD),
        access(**(GOOD | {"level": "ERROR"})),
        logged(),
        logged(level="ERROR", message=WRONG),
        "E0000 chttp2_transport.cc: what gRPC says",
    ],
)
def test_a_lawful_line_is_nothing_to_complain_of(log: Log, line: str) -> None:
    log.take(line)

    assert log.complaints() == []


@pytest.mark.parametrize(
    "lines",
    [
        [access(**GOOD), access(**GOOD)],
        [access(**GOOD, metadata={"key": "canary-key"})],
        ["what gRPC says of the canary"],
        [logged(level="ERROR", message="a call failed on a bug")],
        ["Traceback (most recent call last):"],
    ],
    ids=["twice", "secret", "secret_of_grpc", "bug", "traceback"],
)
def test_what_is_wrong_with_a_log_is_said_once(log: Log, lines: list[str]) -> None:
    for line in lines:
        log.take(line)

    assert len(log.complaints()) == 1
    assert log.complaints() == []


@pytest.mark.parametrize(
    ("history", "lines", "found"),
    [
        (History(WISH, endings=ONCE), [GOOD], []),
        (History(WISH, endings=ONCE), [LOST], ["log: it says ('UNAVAILABLE', 'BACKEND_LOST')"]),
        (History(WISH, endings=ONCE), [], ["log: there is no line of this call"]),
        (History(WISH, endings=[("CANCELLED", BARE)], left=True), [], []),
        (History(WISH, endings=[("CANCELLED", BARE)], left=True), [GOOD], []),
        (History(WISH, endings=[("DEADLINE_EXCEEDED", BARE)]), [LOST], []),
    ],
    ids=["agreed", "another_ending", "no_line", "left_on_its_way", "left_too_late", "late_by_grpc"],
)
async def test_the_log_is_held_against_what_the_callers_saw(
    log: Log, history: History, lines: list[dict[str, Any]], found: list[str]
) -> None:
    for line in lines:
        log.take(access(**line))

    assert [what for _, what in await log.violations([history], 0.01)] == found


def test_only_calls_of_callers_are_counted(log: Log) -> None:
    log.take(access(**GOOD))
    log.take(access(**(GOOD | {"rpc": "GetStatus"})))

    assert log.calls == 1
