# SPDX-License-Identifier: Apache-2.0
"""What must hold of every call, whatever went wrong: a history in, its violations out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tests.chaos.history import BARE, COMPLETED, DELTA, STARTED, History, outcome_of
from tests.chaos.wishes import CANARY

if TYPE_CHECKING:
    from collections.abc import Collection

Rule = Callable[[History], Iterator[str]]

GRACE = 2.0
"""Seconds after its limit at which a call has ended: one is promised, the other is the busy machine's."""
MOST_ATTEMPTS = 3
TIME_LIMIT = "TIME_LIMIT"
SERVED, FAILED = "SERVED", "FAILED"

REFUSED = {("RESOURCE_EXHAUSTED", reason) for reason in ("QUEUE_FULL", "QUEUE_TIMEOUT", "DEADLINE_TOO_SHORT")}
BEFORE = REFUSED | {
    ("RESOURCE_EXHAUSTED", "BACKEND_RATE_LIMITED"),
    ("UNAVAILABLE", "NO_HEALTHY_BACKEND"),
    ("UNAVAILABLE", "MODEL_LOADING"),
    ("UNAVAILABLE", "BACKEND_OVERLOADED"),
    ("UNAVAILABLE", "FIRST_TOKEN_TIMEOUT"),
    ("UNAVAILABLE", "BACKEND_LOST"),
    ("INTERNAL", "BACKEND_PROTOCOL_ERROR"),
    ("INTERNAL", "BACKEND_REFUSED"),
    ("INVALID_ARGUMENT", "INVALID_REQUEST"),
    ("NOT_FOUND", "MODEL_NOT_FOUND"),
}
"""Endings with which nothing was delivered."""
AFTER = {
    ("ABORTED", reason)
    for reason in ("STREAM_INTERRUPTED", "STREAM_STALLED", "BACKEND_ABORTED", "STREAM_CORRUPTED", "SLOW_CALLER")
}
"""Endings of answers that had begun."""
TOLD_WHEN = REFUSED | {("UNAVAILABLE", "MODEL_LOADING")}
"""Endings that say when to come again."""
LATE, LEFT, STOPPED = "DEADLINE_EXCEEDED", "CANCELLED", ("ABORTED", "CANCELLED_BY_OPERATOR")


def violations(history: History, backends: Collection[str]) -> list[str]:
    """Every rule that a call breaks; `backends` are the names that are configured, now or before."""
    found = [f"{rule.__name__}: {what}" for rule in RULES for what in rule(history)]
    unknown = {attempt.backend for attempt in history.attempts} - set(backends)
    return found + [f"backends: nobody is called {name!r}" for name in sorted(unknown)]


def one_ending(history: History) -> Iterator[str]:
    """Exactly one, by its deadline."""
    if len(history.endings) != 1:
        yield f"it has {len(history.endings)} endings"
    allowed = history.wish.limit + GRACE + history.wish.pause * len(history.events)
    if history.seconds > allowed:
        yield f"it took {history.seconds:.3f} s, and {allowed:.3f} s are allowed"


def lawful_ending(history: History) -> Iterator[str]:
    """One of the contract's table, and only where its cause is there."""
    ending = (history.code, history.reason)
    if history.ok or ending in BEFORE | AFTER:
        return
    if ending == STOPPED and history.stopped:
        return
    if history.code == LEFT and history.left:
        return
    if history.code == LATE and history.reason in {LATE, BARE}:
        return
    yield f"{' '.join(ending)} is not in the table, or has no cause"


def right_moment(history: History) -> Iterator[str]:
    """Before the first delta a status is the whole answer; behind it, it says so."""
    if (history.code, history.reason) in BEFORE and history.events:
        yield f"{history.reason} after {len(history.events)} events"
    if (history.code, history.reason) in AFTER and history.wish.rpc.streams and not history.events:
        yield f"{history.reason} before any event"


def says_when(history: History) -> Iterator[str]:
    """Who is to come again is told when."""
    if (history.code, history.reason) in TOLD_WHEN and not history.retry_after:
        yield f"{history.reason} without RetryInfo"


def shape(history: History) -> Iterator[str]:
    """started, delta …, completed; with a bad status no completed."""
    kinds = history.kinds
    if [event.sequence for event in history.events] != list(range(1, len(kinds) + 1)):
        yield "its sequence has gaps"
    if kinds and (kinds[0] != STARTED or STARTED in kinds[1:]):
        yield f"started is not the first: {kinds}"
    if kinds[1:2] == [COMPLETED] or (kinds == [STARTED] and (history.code, history.reason) in BEFORE | AFTER):
        yield "started without a delta"  # but where the call was ended from this side, between the two
    if COMPLETED in kinds[:-1] or (history.wish.rpc.streams and history.ok and kinds[-1:] != [COMPLETED]):
        yield f"completed is not the last: {kinds}"
    if COMPLETED in kinds and not _is_well(history):
        yield f"completed, and then {history.code}"
    if set(kinds) - {STARTED, DELTA, COMPLETED}:
        yield f"an unknown event: {kinds}"


def text(history: History) -> Iterator[str]:
    """What was delivered is what was to be sent, from its beginning; what is whole is all of it."""
    for index, promised in enumerate(history.wish.promise.texts):
        delivered = history.text(index)
        if not promised.startswith(delivered):
            yield f"choice {index} was to be {promised!r} and is {delivered!r}"
        elif history.ok and history.finishes(index) != [TIME_LIMIT] and delivered != promised:
            yield f"choice {index} is whole by its status, and lacks {promised[len(delivered) :]!r}"


def ends(history: History) -> Iterator[str]:
    """Every choice of a whole answer has its one end, nothing comes behind it, and nobody else's choice is there."""
    ended: set[int] = set()
    for delta in history.deltas:
        if delta.index in ended:
            yield f"choice {delta.index} went on after its end"
        if delta.finish_reason:
            ended.add(delta.index)
    choices = len(history.wish.promise.texts)
    pieces = history.deltas if history.answer is None else history.answer.choices
    if any(piece.index >= choices for piece in pieces):
        yield f"there are more than {choices} choices"
    for index, promised in enumerate(history.wish.promise.finishes):
        found = history.finishes(index)
        allowed = {promised} | ({TIME_LIMIT} if history.wish.time_limit is not None else set())
        if (history.ok or found) and (len(found) != 1 or found[0] not in allowed):
            yield f"choice {index} was to end with {' or '.join(sorted(allowed))}: {found}"


def tries(history: History) -> Iterator[str]:
    """A few attempts at most; what failed says why, and only the last one served: then all is well."""
    outcomes = [outcome_of(attempt) for attempt in history.attempts]
    if len(outcomes) > MOST_ATTEMPTS:
        yield f"{len(outcomes)} attempts"
    if SERVED in outcomes[:-1] or (SERVED in outcomes and not _is_well(history)):
        yield f"{history.code} after {outcomes}"
    if history.ok and outcomes[-1:] != [SERVED] and history.wish.time_limit is None:
        yield f"OK, and nobody served: {outcomes}"
    if any((outcome_of(attempt) == FAILED) != bool(attempt.reason) for attempt in history.attempts):
        yield f"an attempt that failed has a reason, and no other: {history.attempts}"


def no_retry_after_the_first_delta(history: History) -> Iterator[str]:
    """The attempt that began to deliver is the last one."""
    started, summary = history.started, history.summary
    if started is None or summary is None:
        return
    if started.attempt < len(summary.attempts):
        yield f"attempt {started.attempt} of {len(summary.attempts)} delivered"
    last = summary.attempts[-1].backend if summary.attempts else started.backend
    if started.backend and started.backend != last:
        yield f"{started.backend} began to deliver, and {last} was tried last"


def cost(history: History) -> Iterator[str]:
    """What was delivered is accounted for: by the backend's count, or by an estimate that says so."""
    usage = history.usage
    if usage is None:
        if history.ok:
            yield "OK without usage"
        return
    if usage.total_tokens != usage.prompt_tokens + usage.completion_tokens:
        yield f"a sum that is none: {usage}"
    if any(map(history.text, range(len(history.wish.promise.texts)))) and not usage.completion_tokens:
        yield "text, and no tokens"
    whole = [history.finishes(index) for index in range(len(history.wish.promise.texts))]
    right = history.wish.promise.tokens
    if history.ok and not usage.estimated and [TIME_LIMIT] not in whole and usage.completion_tokens != right:
        yield f"{usage.completion_tokens} tokens, and the backend has counted {right}"


def position(history: History) -> Iterator[str]:
    """The report of a stream that failed says how far it got."""
    if history.report is None or not history.wish.rpc.streams:
        return
    if history.report.last_sequence != len(history.events):
        yield f"the report says {history.report.last_sequence} events, and {len(history.events)} came"


def name(history: History) -> Iterator[str]:
    """A call has its caller's own id, wherever it is named."""
    started = history.started
    named = [history.request_id, started and started.request_id, history.answer and history.answer.request_id]
    own = history.wish.request_id
    if others := [other for other in named if other and other != own]:
        yield f"{own} is called {others}"
    if history.request_id is None and history.reason != BARE and not history.left:
        yield "no x-request-id in the trailers"


def secret(history: History) -> Iterator[str]:
    """Nothing of the prompt, the answer or a key is in a status or in metadata."""
    if CANARY in history.told:
        yield f"something confidential is told: {history.told}"


def _is_well(history: History) -> bool:
    """Whether the gateway may have said OK: to a caller who did not wait for it, gRPC says something else."""
    return history.ok or history.reason == BARE


RULES: tuple[Rule, ...] = (
    one_ending,
    lawful_ending,
    right_moment,
    says_when,
    shape,
    text,
    ends,
    tries,
    no_retry_after_the_first_delta,
    cost,
    position,
    name,
    secret,
)
