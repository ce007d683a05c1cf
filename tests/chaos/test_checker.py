# SPDX-License-Identifier: Apache-2.0
"""The checker of the chaos run can fail: for each of its rules, histories that break it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from llm_gateway.v1.call_report_pb2 import CallReport
from llm_gateway.v1.error_pb2 import ERROR_REASON_BACKEND_LOST, ERROR_REASON_STREAM_INTERRUPTED
from llm_gateway.v1.llm_service_pb2 import ChatCompletionResponse, ChatCompletionStreamResponse
from llm_gateway.v1.message_pb2 import Message
from llm_gateway.v1.outcome_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    FINISH_REASON_TIME_LIMIT,
    Attempt,
    Choice,
    Completed,
    Delta,
    Started,
    Usage,
)
from tests.chaos.checker import RULES, violations
from tests.chaos.history import BARE, History
from tests.chaos.wishes import Promise, Rpc, Wish

if TYPE_CHECKING:
    from collections.abc import Callable

BACKENDS = {"a", "b"}
LOST = Attempt(backend="a", outcome="OUTCOME_FAILED", reason=ERROR_REASON_BACKEND_LOST)
CUT = Attempt(backend="b", outcome="OUTCOME_FAILED", reason=ERROR_REASON_STREAM_INTERRUPTED)
SERVED = Attempt(backend="b", outcome="OUTCOME_SERVED")
USAGE = Usage(prompt_tokens=9, completion_tokens=4, total_tokens=13)
WISH = Wish(
    request_id="call-1",
    model="many",
    prompt="canary",
    promise=Promise(("one two", "1 2"), ("STOP", "LENGTH"), 4),
    timeout=1.0,
)
UNARY = replace(WISH, rpc=Rpc.CHAT)
LIMITED = replace(WISH, time_limit=0.1)


def numbered(*events: dict[str, Any]) -> list[ChatCompletionStreamResponse]:
    """Events in a sequence without gaps."""
    return [ChatCompletionStreamResponse(sequence=number, **event) for number, event in enumerate(events, 1)]


def whole() -> list[dict[str, Any]]:
    """A whole answer on the second attempt."""
    return [
        {"started": Started(request_id="call-1", backend="b", attempt=2)},
        {"delta": Delta(index=0, text="one ")},
        {"delta": Delta(index=1, text="1 2", finish_reason=FINISH_REASON_LENGTH)},
        {"delta": Delta(index=0, text="two", finish_reason=FINISH_REASON_STOP)},
        {"completed": Completed(usage=USAGE, attempts=[LOST, SERVED])},
    ]


def good(**changes: Any) -> History:
    """A stream that went well."""
    given: dict[str, Any] = {"events": numbered(*whole()), "endings": [("OK", "")], "request_id": "call-1"}
    return History(**({"wish": WISH} | given | changes))


def failed(code: str = "ABORTED", reason: str = "STREAM_INTERRUPTED", **changes: Any) -> History:
    """A stream that broke off after its first delta."""
    events = changes.pop("events", numbered(*whole()[:2]))
    report = CallReport(last_sequence=len(events), usage=USAGE, attempts=[LOST, CUT])
    return good(**{"events": events, "endings": [(code, reason)], "report": report} | changes)


def refused(code: str = "UNAVAILABLE", reason: str = "BACKEND_LOST", **changes: Any) -> History:
    """A stream of which nothing came."""
    return failed(code, reason, **{"events": [], "report": CallReport(attempts=[LOST])} | changes)


def unary(**changes: Any) -> History:
    """A whole answer at once."""
    choices = [
        Choice(index=0, message=Message(content="one two"), finish_reason=FINISH_REASON_STOP),
        Choice(index=1, message=Message(content="1 2"), finish_reason=FINISH_REASON_LENGTH),
    ]
    answer: dict[str, Any] = {
        "request_id": "call-1",
        "backend": "b",
        "choices": choices,
        "usage": USAGE,
        "attempts": [LOST, SERVED],
    }
    given = changes.pop("answer", {})
    return good(**{"wish": UNARY, "events": [], "answer": ChatCompletionResponse(**(answer | given))} | changes)


def having(change: Callable[[list[dict[str, Any]]], object], **changes: Any) -> History:
    """A stream that went well but for one change to its events."""
    events = whole()
    change(events)
    return good(events=numbered(*events), **changes)


def completing(**fields: Any) -> History:
    """A stream that went well but for its end."""
    given: dict[str, Any] = {"usage": USAGE, "attempts": [LOST, SERVED]} | fields
    return having(lambda events: events.__setitem__(4, {"completed": Completed(**given)}))


def limited() -> History:
    """An answer that its caller's time limit has ended."""
    events = whole()[:2]
    events += [{"delta": Delta(index=index, finish_reason=FINISH_REASON_TIME_LIMIT)} for index in (0, 1)]
    return good(wish=LIMITED, events=numbered(*events, whole()[4]))


LAWFUL = {
    "whole": good(),
    "whole at once": unary(),
    "estimated": completing(usage=Usage(completion_tokens=3, total_tokens=3, estimated=True)),
    "time limit": limited(),
    "broke off": failed(),
    "nothing came": refused(),
    "refused": refused("RESOURCE_EXHAUSTED", "QUEUE_FULL", retry_after=True, report=None),
    "left": failed("CANCELLED", BARE, left=True, report=None, request_id=None),
    "stopped": failed(reason="CANCELLED_BY_OPERATOR", stopped=True),
    "late": failed("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", seconds=1.1),
    "late, by gRPC": failed("DEADLINE_EXCEEDED", BARE, report=None, request_id=None),
    "left before the status": good(endings=[("CANCELLED", BARE)], left=True, request_id=None),
    "late between started and delta": failed("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", events=numbered(whole()[0])),
}

BROKEN: dict[str, list[History]] = {
    "one_ending": [good(endings=[]), good(endings=[("OK", ""), ("OK", "")]), failed(seconds=3.1)],
    "lawful_ending": [
        refused("INTERNAL", "INTERNAL"),
        refused("UNAVAILABLE", BARE),
        refused("ABORTED", "QUEUE_FULL"),
        failed("CANCELLED", BARE),
        failed(reason="CANCELLED_BY_OPERATOR"),
        refused("UNAVAILABLE", "DRAINING"),
    ],
    "right_moment": [failed("UNAVAILABLE", "BACKEND_LOST"), refused("ABORTED", "STREAM_INTERRUPTED")],
    "says_when": [refused("RESOURCE_EXHAUSTED", "QUEUE_FULL"), refused("UNAVAILABLE", "MODEL_LOADING")],
    "shape": [
        good(events=numbered(*whole()[:2]) + numbered(*whole())[3:]),
        having(lambda events: events.pop(0)),
        having(lambda events: events.insert(2, events[0])),
        having(lambda events: events.insert(2, events[4])),
        having(lambda events: events.pop()),
        having(lambda events: events.insert(2, {})),
        having(lambda events: events.__delitem__(slice(1, 4))),
        failed(events=numbered(*whole())),
        failed(events=numbered(*whole()[:1])),
    ],
    "text": [
        having(lambda events: events.insert(2, events[1])),
        having(lambda events: events.pop(1)),
        having(lambda events: events[1]["delta"].MergeFrom(Delta(text="and "))),
        having(lambda events: events[3]["delta"].MergeFrom(Delta(text="tw"))),
        failed(events=numbered(whole()[0], {"delta": Delta(index=0, text="1 2")})),
        failed(events=numbered(whole()[0], {"delta": Delta(index=0, text="on\ufffd")})),
        unary(
            answer={"choices": [Choice(index=1, message=Message(content="1 2"), finish_reason=FINISH_REASON_LENGTH)]}
        ),
    ],
    "ends": [
        having(lambda events: events[3]["delta"].ClearField("finish_reason")),
        having(lambda events: events[3]["delta"].MergeFrom(Delta(finish_reason=FINISH_REASON_LENGTH))),
        having(lambda events: events[3]["delta"].MergeFrom(Delta(finish_reason=FINISH_REASON_TIME_LIMIT))),
        having(lambda events: events.insert(4, {"delta": Delta(index=1)})),
        having(lambda events: events.insert(4, {"delta": Delta(index=2, text="?")})),
        unary(answer={"choices": []}),
    ],
    "tries": [
        completing(attempts=[LOST, LOST, LOST, SERVED]),
        completing(attempts=[SERVED, SERVED]),
        completing(attempts=[LOST, CUT]),
        completing(attempts=[Attempt(backend="a", outcome="OUTCOME_FAILED"), SERVED]),
        failed(report=CallReport(last_sequence=2, usage=USAGE, attempts=[LOST, SERVED])),
    ],
    "no_retry_after_the_first_delta": [
        completing(attempts=[LOST, CUT, SERVED]),
        failed(report=CallReport(last_sequence=2, usage=USAGE, attempts=[CUT, LOST])),
    ],
    "cost": [
        having(lambda events: events[4]["completed"].ClearField("usage")),
        completing(usage=Usage(prompt_tokens=9, completion_tokens=4, total_tokens=12)),
        completing(usage=Usage(prompt_tokens=9, completion_tokens=5, total_tokens=14)),
        failed(report=CallReport(last_sequence=2, usage=Usage(prompt_tokens=9, total_tokens=9), attempts=[LOST, CUT])),
        unary(answer={"usage": None}),
    ],
    "position": [failed(report=CallReport(last_sequence=3, usage=USAGE, attempts=[LOST, CUT]))],
    "name": [
        good(request_id="call-2"),
        failed(request_id=None),
        unary(answer={"request_id": "call-2"}),
        having(lambda events: events[0]["started"].MergeFrom(Started(request_id="call-2"))),
    ],
    "secret": [failed(told="it said: canary")],
    "backends": [completing(attempts=[Attempt(backend="z", outcome="OUTCOME_CANCELLED"), SERVED])],
}


@pytest.mark.parametrize("history", LAWFUL.values(), ids=LAWFUL)
def test_a_lawful_history_breaks_no_rule(history: History) -> None:
    assert violations(history, BACKENDS) == []


@pytest.mark.parametrize(
    ("rule", "history"),
    [
        pytest.param(rule, history, id=f"{rule}_{number}")
        for rule, histories in BROKEN.items()
        for number, history in enumerate(histories)
    ],
)
def test_a_history_that_breaks_a_rule_is_found(rule: str, history: History) -> None:
    assert rule in {violation.partition(":")[0] for violation in violations(history, BACKENDS)}


def test_every_rule_has_a_history_that_breaks_it() -> None:
    assert set(BROKEN) == {rule.__name__ for rule in RULES} | {"backends"}


def test_a_history_is_shown_in_full() -> None:
    shown = str(failed(told="its status"))

    assert [
        word for word in ("call-1", "STREAM_INTERRUPTED", "its status", "one ", "last_sequence") if word not in shown
    ] == []
