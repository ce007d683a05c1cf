# SPDX-License-Identifier: Apache-2.0
"""The seats of one model: who sits, who waits in which order, how long a seat is held."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_gateway.generation import Priority

if TYPE_CHECKING:
    from llm_gateway.admission.ticket import Ticket

WEIGHT = 0.1
"""What the newest call counts for in the mean."""
DEVIATIONS = 2.0
"""How far above the mean a usual call may be, as TCP reckons when an answer is overdue: in mean deviations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeatStatistics:
    """A snapshot of one model: how many calls run, how many may (None: no limit of its own), how many wait."""

    limit: int | None
    in_flight: int
    queued: int
    queued_bytes: int


class Seats:
    """The seats of one model, and the calls that wait for one: first come, first served within a class."""

    __slots__ = ("_deviation", "_held", "_queues", "batch_credit", "in_flight", "limit", "mean_hold", "queued_bytes")

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.in_flight = 0
        self.queued_bytes = 0
        self.batch_credit = 0.0
        """How much of a seat its batch calls have earned by letting others go first."""
        self.mean_hold: float | None = None
        """Seconds that a seat is held, on average of late; None until one was."""
        self._deviation = 0.0
        self._held = 0
        # Ordered dicts, so that whoever leaves the queue from its middle does so in constant time.
        self._queues: dict[Priority, OrderedDict[Ticket, None]] = {priority: OrderedDict() for priority in Priority}

    @property
    def free(self) -> bool:
        """Whether the model has a seat to give; the gateway may have none."""
        return self.limit is None or self.in_flight < self.limit

    @property
    def usual_hold(self) -> float:
        """Seconds in which most calls are done; 0 until one was."""
        return 0.0 if self.mean_hold is None else self.mean_hold + DEVIATIONS * self._deviation

    @property
    def queued(self) -> int:
        """How many wait."""
        return sum(map(len, self._queues.values()))

    @property
    def idle(self) -> bool:
        """Whether nobody sits or waits here."""
        return not self.in_flight and not self.queued

    def append(self, ticket: Ticket) -> None:
        """Take the last place of its class."""
        self._queues[ticket.priority][ticket] = None
        self.queued_bytes += ticket.size

    def remove(self, ticket: Ticket) -> None:
        """Leave the queue, from whichever place."""
        del self._queues[ticket.priority][ticket]
        self.queued_bytes -= ticket.size
        if not self._queues[Priority.BATCH]:
            self.batch_credit = 0.0

    def first(self, priority: Priority) -> Ticket | None:
        """Who of a class has waited longest."""
        return next(iter(self._queues[priority]), None)

    def last(self, priority: Priority) -> Ticket:
        """Who of a class came last; somebody waits in it."""
        return next(reversed(self._queues[priority]))

    def ahead(self, priority: Priority) -> int:
        """How many go before a newcomer of a class."""
        interactive = len(self._queues[Priority.INTERACTIVE])
        return interactive if priority is Priority.INTERACTIVE else interactive + len(self._queues[Priority.BATCH])

    def held(self, seconds: float) -> None:
        """Count how long a seat was held."""
        self._held += 1
        weight = max(WEIGHT, 1 / self._held)
        mean = seconds if self.mean_hold is None else self.mean_hold
        self.mean_hold = mean + (seconds - mean) * weight
        self._deviation += (abs(seconds - mean) - self._deviation) * weight

    def statistics(self) -> SeatStatistics:
        """What is so now."""
        return SeatStatistics(
            limit=self.limit, in_flight=self.in_flight, queued=self.queued, queued_bytes=self.queued_bytes
        )
