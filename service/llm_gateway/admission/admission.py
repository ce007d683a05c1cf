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

from llm_gateway.admission.refusals import draining, not_in_time, queue_full, reason_of, too_late, waited_too_long
from llm_gateway.admission.seats import Seats, SeatStatistics
from llm_gateway.admission.turns import can_be_served, estimated_wait, is_to_give_way, next_in_turn
from llm_gateway.errors import DeadlineExceeded, DrainExpired, QueueFull
from llm_gateway.generation import Priority

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llm_gateway.admission.pressure import Pressure
    from llm_gateway.admission.ticket import Limits, Ticket
    from llm_gateway.errors import DeadlineTooShort, GatewayError, QueueTimeout, Rejected

MAX_IDLE_MODELS = 256
"""From so many on, those that nobody uses are forgotten: a configuration that changes leaves names behind."""


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
            self._evict(ticket, draining())

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

    def resize(self, model: str, seats: int | None) -> None:
        """Give a model so many seats from now on: new ones to those who wait; nobody who runs loses theirs."""
        group = self._models.get(model)
        if group is not None and group.limit != seats:
            group.limit = seats
            self._hand_out()

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
            raise self._refused(draining())
        if self._pressure is not None and (reason := self._pressure.reason()) is not None:
            self._shed += 1
            raise self._refused(QueueFull(reason))
        seats = ticket.group = self._models.get(ticket.model) or self._new_model(ticket)
        self.resize(ticket.model, ticket.seats)
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
        if len(self._models) >= MAX_IDLE_MODELS:
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
            for seats in [seats for seats in self._waiting if seats.free]:
                self._drop_late(seats)
            ticket = next_in_turn(self._waiting, self._limits.batch_share)
            if ticket is None:
                return
            self._dequeue(ticket)
            self._seat(ticket)
            ticket.turn.set_result(None)

    def _drop_late(self, seats: Seats) -> None:
        """Take from the heads of the queues who has left, and who has too little time left to use a seat."""
        free, now = self._limits.max_in_flight - self._in_flight, self._clock()
        for priority in Priority:
            while (ticket := seats.first(priority)) is not None:
                if ticket.turn.done():
                    self._dequeue(ticket)
                elif is_to_give_way(ticket, free, now):
                    self._evict(ticket, self._too_late(ticket))
                else:
                    break

    def _evict(self, ticket: Ticket, error: GatewayError) -> None:
        self._dequeue(ticket)
        if not ticket.turn.done():
            ticket.turn.set_result(error)

    def _give_up(self, ticket: Ticket, error: BaseException) -> None:
        """Leave without having run: from the queue, or from a seat that was handed over at the same moment."""
        self._evicted[reason_of(error)] += 1
        if ticket.seated is not None:
            self._unseat(ticket)
            return
        if ticket.queued:
            self._dequeue(ticket)
        self._forget(ticket)

    # ------------------------------------------------------------------------------------------------ who is refused

    def _check_queue(self, ticket: Ticket) -> None:
        """Raises QueueFull, or DeadlineTooShort where the call could not be served in time.

        Nobody is refused because the estimate is longer than anybody may wait: it is made of means, and who waits for
        one of few seats that are held for long may well be lucky; and it does not know of the share of batch calls.
        """
        limits = self._limits
        wait = self._estimated_wait(ticket)
        if self._queued >= limits.max_queued or self._queued_bytes + ticket.size > limits.max_queued_bytes:
            raise self._refused(queue_full(wait))
        if wait is not None and not can_be_served(ticket, wait, self._clock()):
            raise self._refused(not_in_time(wait))

    def _refused(self, error: Rejected) -> Rejected:
        self._rejected[error.reason] += 1
        return error

    def _estimated_wait(self, ticket: Ticket) -> float | None:
        free = self._limits.max_in_flight - self._in_flight
        return estimated_wait(ticket.group, self._models.values(), free, ticket.priority)

    def _waited_too_long(self, ticket: Ticket) -> QueueTimeout:
        return waited_too_long(self._estimated_wait(ticket))

    def _too_late(self, ticket: Ticket) -> DeadlineTooShort:
        return too_late(self._estimated_wait(ticket))

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
