# SPDX-License-Identifier: Apache-2.0
"""Seats for running calls, and a bounded queue before them.

One rule keeps it simple: whenever a seat may have come free, it is handed out until nobody who waits could take one.
So a newcomer who finds a seat free overtakes nobody, and takes it without waiting. A seat handed to somebody who waits
is theirs from that moment, before their task runs again; if they have left by then, they hand it on.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from llm_gateway.admission.seats import Seats, SeatStatistics
from llm_gateway.admission.turns import estimated_wait, next_in_turn
from llm_gateway.deadline import TimeLimitReached
from llm_gateway.errors import (
    DeadlineExceeded,
    DeadlineTooShort,
    DrainExpired,
    Draining,
    GatewayError,
    QueueFull,
    QueueTimeout,
)
from llm_gateway.generation import FinishReason, Priority

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llm_gateway.admission.pressure import Pressure
    from llm_gateway.admission.ticket import Limits, Ticket
    from llm_gateway.errors import Rejected

MIN_RETRY_AFTER = 0.1
MAX_RETRY_AFTER = 60.0
MAX_IDLE_MODELS = 256
LEFT = "CANCELLED"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionStatistics:
    """A snapshot: how many calls run and wait, whether anybody new is let in, and what became of them all.

    `admitted` counts those who got a seat, `rejected` those who were refused on arrival, `evicted` those who waited and
    got none; both by reason. `shed` of the rejected were refused because the gateway itself is short of something.
    """

    in_flight: int = 0
    max_in_flight: int
    queued: int = 0
    queued_bytes: int = 0
    draining: bool = False
    admitted: int = 0
    shed: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    evicted: Mapping[str, int] = field(default_factory=dict)


class Admission:
    """Seats for running calls, in the whole gateway and per model. It limits concurrency, not rates.

    `drain` closes the door for good and empties the queue; `drained` waits until the last one has left, and `expire`
    ends those who stay. `clock` must agree with time.monotonic, by which watchdogs go.
    """

    def __init__(
        self, limits: Limits, *, pressure: Pressure | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = limits
        self._pressure = pressure
        self._clock = clock
        self._calls: dict[Ticket, None] = {}
        self._models: dict[str, Seats] = {}
        self._waiting: set[Seats] = set()
        self._in_flight = 0
        self._queued = 0
        self._queued_bytes = 0
        self._number = 0
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()
        self._admitted = 0
        self._shed = 0
        self._rejected: Counter[str] = Counter()
        self._evicted: Counter[str] = Counter()

    def admit(self, ticket: Ticket) -> Admitted:
        """Hold a seat within the context, after waiting for one where there is none.

        Raises Draining, QueueFull, QueueTimeout, DeadlineTooShort, or what else ended the wait: the caller's soft
        limit, an interruption, a cancellation. The watchdog is left open.
        """
        return Admitted(self, ticket)

    def drain(self) -> None:
        """Let nobody new in, from now on, and send away who waits."""
        self._draining = True
        for ticket in [ticket for ticket in self._calls if ticket.queued]:
            self._evict(ticket, _draining())

    async def drained(self) -> None:
        """Wait until no call runs."""
        await self._empty.wait()

    def expire(self) -> None:
        """End the calls that still run, for the grace of the drain is over."""
        for ticket in tuple(self._calls):
            if ticket.seated is not None:
                ticket.watchdog.interrupt(
                    DrainExpired("The gateway is shutting down and could not wait for the answer's end.")
                )

    def calls(self) -> Sequence[Ticket]:
        """The calls that run or wait, those who came first first."""
        return tuple(self._calls)

    def find(self, request_id: str) -> Sequence[Ticket]:
        """The calls of this id that run or wait, the oldest first: callers may give one id to several."""
        return tuple(ticket for ticket in self._calls if ticket.call.request_id == request_id)

    def statistics(self) -> AdmissionStatistics:
        """What is so now."""
        return AdmissionStatistics(
            in_flight=self._in_flight,
            max_in_flight=self._limits.max_in_flight,
            queued=self._queued,
            queued_bytes=self._queued_bytes,
            draining=self._draining,
            admitted=self._admitted,
            shed=self._shed,
            rejected=dict(self._rejected),
            evicted=dict(self._evicted),
        )

    def model_statistics(self, model: str) -> SeatStatistics:
        """What is so now with the seats of one model."""
        return (self._models.get(model) or Seats(None)).statistics()

    # ------------------------------------------------------------------------------------------- who comes and goes

    def take(self, ticket: Ticket) -> bool:
        """Take a seat that is free; False where there is none. Raises Draining or QueueFull."""
        if self._draining:
            raise self._refused(_draining())
        if self._pressure is not None and (reason := self._pressure.reason()) is not None:
            self._shed += 1
            raise self._refused(QueueFull(reason))
        seats = ticket.group = self._models.get(ticket.model) or self._new_model(ticket)
        if seats.limit != ticket.seats:  # the configuration was changed; perhaps there are seats for who waits
            seats.limit = ticket.seats
            self._hand_out()
        if self._in_flight >= self._limits.max_in_flight or not seats.free:
            return False
        self._calls[ticket] = None
        self._empty.clear()
        self._seat(ticket)
        self._admitted += 1
        return True

    async def wait(self, ticket: Ticket) -> None:
        """Wait in the queue until there is a seat."""
        self._check_queue(ticket)
        turn = ticket.turn = asyncio.get_running_loop().create_future()
        self._calls[ticket] = None
        self._empty.clear()
        try:
            with ticket.watchdog as watchdog:
                watchdog.expect(self._clock() + self._limits.max_wait, partial(self._waited_too_long, ticket))
                self._enqueue(ticket)
                refusal = await turn
            if refusal is not None:
                raise refusal  # noqa: TRY301 - whatever ends the wait is counted in one place
        except DeadlineExceeded:
            error = self._too_late(ticket)
            self._give_up(ticket, error)
            raise error from None
        except BaseException as error:
            self._give_up(ticket, error)
            raise
        self._admitted += 1

    def leave(self, ticket: Ticket) -> None:
        """Give the seat back, and to whom it is due."""
        assert ticket.seated is not None, "it holds a seat"  # noqa: S101 - narrows the type
        ticket.group.held(self._clock() - ticket.seated)
        self._unseat(ticket)

    def _seat(self, ticket: Ticket) -> None:
        ticket.seated = self._clock()
        ticket.group.in_flight += 1
        self._in_flight += 1

    def _unseat(self, ticket: Ticket) -> None:
        ticket.seated = None
        ticket.group.in_flight -= 1
        self._in_flight -= 1
        self._forget(ticket)
        if self._queued:
            self._hand_out()

    def _forget(self, ticket: Ticket) -> None:
        del self._calls[ticket]
        if not self._calls:
            self._empty.set()

    def _new_model(self, ticket: Ticket) -> Seats:
        if len(self._models) >= MAX_IDLE_MODELS:  # callers may name what they like
            self._models = {model: seats for model, seats in self._models.items() if not seats.idle}
        seats = self._models[ticket.model] = Seats(ticket.seats)
        return seats

    # --------------------------------------------------------------------------------------------------- the queue

    def _enqueue(self, ticket: Ticket) -> None:
        self._number += 1
        ticket.number = self._number
        ticket.queued = True
        self._queued += 1
        self._queued_bytes += ticket.size
        ticket.group.append(ticket)
        self._waiting.add(ticket.group)

    def _dequeue(self, ticket: Ticket) -> None:
        seats = ticket.group
        ticket.queued = False
        self._queued -= 1
        self._queued_bytes -= ticket.size
        seats.remove(ticket)
        if not seats.queued:
            self._waiting.discard(seats)

    def _hand_out(self) -> None:
        """Give the free seats to those who wait, until nobody who waits could take one."""
        while self._queued and self._in_flight < self._limits.max_in_flight:
            for seats in tuple(self._waiting):
                if seats.free:
                    self._drop_late(seats)
            ticket = next_in_turn(self._waiting, self._limits.batch_share)
            if ticket is None:
                return
            self._dequeue(ticket)
            self._seat(ticket)
            ticket.turn.set_result(None)

    def _drop_late(self, seats: Seats) -> None:
        """Take from the heads of the queues who has left, and who has too little time left to use a seat."""
        for priority in Priority:
            while (ticket := seats.first(priority)) is not None:
                if ticket.turn.done():
                    self._dequeue(ticket)
                elif self._is_late(ticket):
                    self._evict(ticket, self._too_late(ticket))
                else:
                    break

    def _is_late(self, ticket: Ticket) -> bool:
        """Whether a seat would be wasted on it. Where nobody else waits for the seat, it may try.

        A queue whose length is what deadlines allow gives each seat to somebody who has just too little time left:
        without this, under overload half of the work is done for nothing.
        """
        left = ticket.watchdog.deadline - self._clock()
        return left <= 0 or (ticket.group.queued > 1 and left < ticket.group.usual_hold)

    def _evict(self, ticket: Ticket, error: GatewayError) -> None:
        self._dequeue(ticket)
        if not ticket.turn.done():
            ticket.turn.set_result(error)

    def _give_up(self, ticket: Ticket, error: BaseException) -> None:
        """Leave without having run: from the queue, or from a seat that was handed over at the same moment."""
        self._evicted[_reason(error)] += 1
        if ticket.seated is not None:
            self._unseat(ticket)
            return
        if ticket.queued:
            self._dequeue(ticket)
        self._forget(ticket)

    # ------------------------------------------------------------------------------------------------ who is refused

    def _check_queue(self, ticket: Ticket) -> None:
        """Raises QueueFull, or DeadlineTooShort where the call could not be served in time."""
        limits = self._limits
        if self._queued >= limits.max_queued or self._queued_bytes + ticket.size > limits.max_queued_bytes:
            raise self._refused(
                QueueFull("Every seat is taken and the queue is full.", retry_after=self._retry_after(ticket))
            )
        wait = self._estimated_wait(ticket)
        if wait is not None and wait + (ticket.group.mean_hold or 0.0) > ticket.watchdog.deadline - self._clock():
            raise self._refused(
                DeadlineTooShort(
                    "Every seat is taken and none is expected to come free in time for the deadline.",
                    retry_after=_bounded(wait),
                )
            )

    def _refused(self, error: Rejected) -> Rejected:
        self._rejected[error.reason] += 1
        return error

    def _estimated_wait(self, ticket: Ticket) -> float | None:
        free = self._limits.max_in_flight - self._in_flight
        return estimated_wait(ticket.group, self._models.values(), free, ticket.priority)

    def _retry_after(self, ticket: Ticket) -> float | None:
        wait = self._estimated_wait(ticket)
        return None if wait is None else _bounded(wait)

    def _waited_too_long(self, ticket: Ticket) -> QueueTimeout:
        return QueueTimeout("No seat came free in time.", retry_after=self._retry_after(ticket))

    def _too_late(self, ticket: Ticket) -> DeadlineTooShort:
        return DeadlineTooShort("No seat came free in time for the deadline.", retry_after=self._retry_after(ticket))

    def __repr__(self) -> str:
        return (
            f"<Admission: {self._in_flight} of {self._limits.max_in_flight} in flight, {self._queued} queued, "
            f"draining={self._draining}>"
        )


class Admitted:
    """The context in which a call holds its seat. A class, and not a generator: every call goes through it."""

    __slots__ = ("_admission", "_ticket")

    def __init__(self, admission: Admission, ticket: Ticket) -> None:
        self._admission = admission
        self._ticket = ticket

    async def __aenter__(self) -> None:
        if not self._admission.take(self._ticket):
            await self._admission.wait(self._ticket)

    async def __aexit__(self, *_: object) -> None:
        self._admission.leave(self._ticket)


def _bounded(wait: float) -> float:
    return min(MAX_RETRY_AFTER, max(MIN_RETRY_AFTER, wait))


def _draining() -> Draining:
    return Draining("The gateway is shutting down.")


def _reason(error: BaseException) -> str:
    """The one word for why somebody who waited got no seat."""
    if isinstance(error, GatewayError):
        return error.reason
    return FinishReason.TIME_LIMIT.value if isinstance(error, TimeLimitReached) else LEFT
