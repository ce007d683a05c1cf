# SPDX-License-Identifier: Apache-2.0
"""What those are told who get no seat: why, and when to come again. `wait` is what a newcomer is expected to wait."""

from __future__ import annotations

from llm_gateway.deadline import TimeLimitReached
from llm_gateway.errors import DeadlineTooShort, Draining, GatewayError, QueueFull, QueueTimeout
from llm_gateway.generation import FinishReason

MIN_RETRY_AFTER = 0.1
MAX_RETRY_AFTER = 60.0
LEFT = "CANCELLED"


def draining() -> Draining:
    """Nobody new comes in any more."""
    return Draining("The gateway is shutting down.")


def queue_full(wait: float | None) -> QueueFull:
    """There is no place left to wait in."""
    return QueueFull("Every seat is taken and the queue is full.", retry_after=_bounded(wait))


def not_in_time(wait: float | None) -> DeadlineTooShort:
    """On arrival: the wait would take the time that the call needs."""
    return DeadlineTooShort(
        "Every seat is taken and none is expected to come free in time for the deadline.", retry_after=_bounded(wait)
    )


def too_late(wait: float | None) -> DeadlineTooShort:
    """In the queue: the wait has taken it."""
    return DeadlineTooShort("No seat came free in time for the deadline.", retry_after=_bounded(wait))


def waited_too_long(wait: float | None) -> QueueTimeout:
    """Nobody waits longer, whatever their deadline."""
    return QueueTimeout("No seat came free in time.", retry_after=_bounded(wait))


def reason_of(error: BaseException) -> str:
    """The one word for why somebody who waited got no seat."""
    if isinstance(error, GatewayError):
        return error.reason
    return FinishReason.TIME_LIMIT.value if isinstance(error, TimeLimitReached) else LEFT


def _bounded(wait: float | None) -> float | None:
    return None if wait is None else min(MAX_RETRY_AFTER, max(MIN_RETRY_AFTER, wait))
