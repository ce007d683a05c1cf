# SPDX-License-Identifier: Apache-2.0
"""What is counted of a call: once when it comes, once when it ends, by words that are known beforehand."""

from __future__ import annotations

from llm_gateway.generation import Attempt, AttemptOutcome, Usage
from llm_gateway.observability.call import Call
from llm_gateway.observability.journal import Journal, Phase


def ended(**fields: object) -> Call:
    """A call whose status is known."""
    call = Call("r-1", "Generate", deadline=0.0, timeout=1.0)
    for name, value in fields.items():
        setattr(call, name, value)
    return call


def test_a_new_gateway_is_starting_and_has_counted_nothing() -> None:
    journal = Journal()

    assert journal.phase is Phase.STARTING
    assert journal.uptime >= 0
    assert not journal.began + journal.ended + journal.attempts + journal.tokens


def test_a_call_is_counted_where_it_begins_and_by_how_it_ended() -> None:
    journal = Journal()
    for call in (ended(status="OK"), ended(status="ABORTED", reason="SLOW_CALLER"), ended(status="OK")):
        journal.call_begins(call)
        journal.call_ends(call)

    assert journal.began == {"Generate": 3}
    assert journal.ended == {("Generate", "OK", ""): 2, ("Generate", "ABORTED", "SLOW_CALLER"): 1}


def test_a_call_that_ended_without_a_status_is_counted_all_the_same() -> None:
    journal = Journal()
    journal.call_ends(ended())

    assert journal.ended == {("Generate", "UNKNOWN", ""): 1}


def test_every_attempt_is_counted_under_the_name_that_is_configured() -> None:
    journal = Journal()
    attempts = [
        Attempt("a@10.0.0.1:8000", AttemptOutcome.FAILED, "BACKEND_LOST", 0.1),
        Attempt("a@10.0.0.2:8000", AttemptOutcome.SERVED, None, 0.1),
        Attempt("b", AttemptOutcome.CANCELLED, None, 0.1),
    ]
    journal.call_ends(ended(status="OK", attempts=attempts))

    assert journal.attempts == {
        ("a", "FAILED", "BACKEND_LOST"): 1,
        ("a", "SERVED", ""): 1,
        ("b", "CANCELLED", ""): 1,
    }


def test_tokens_add_up_over_the_calls() -> None:
    journal = Journal()
    for _ in range(2):
        journal.call_ends(ended(status="OK", usage=Usage(prompt_tokens=3, completion_tokens=5)))

    assert journal.tokens == {"prompt": 6, "completion": 10}
