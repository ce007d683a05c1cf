# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is when a seat comes free, who has no time left for one, and when it would be a newcomer's turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_gateway.generation import Priority

if TYPE_CHECKING:
    from collections.abc import Collection

    from llm_gateway.admission.seats import Seats
    from llm_gateway.admission.ticket import Ticket

ROUNDING = 1e-9


def next_in_turn(waiting: Collection[Seats], batch_share: float) -> Ticket | None:
    """Who gets the seat that is free: of those whose model has one too, whoever has waited longest.

    Interactive calls go first, but not for ever: with each seat handed out, the batch queue whose first call has
    waited longest earns its share of one, and with a whole one it goes first. The share is kept per model, for a model
    that is always full sees few of the gateway's seats, and could miss its turn each time.
    """
    interactive = _longest_waiting(waiting, Priority.INTERACTIVE)
    batch = _longest_waiting(waiting, Priority.BATCH)
    if batch is None:
        return interactive and interactive[1]
    seats, ticket = batch
    seats.batch_credit += batch_share
    if interactive is not None and seats.batch_credit < 1 - ROUNDING:
        return interactive[1]
    seats.batch_credit = max(0.0, seats.batch_credit - 1)
    return ticket


def _longest_waiting(waiting: Collection[Seats], priority: Priority) -> tuple[Seats, Ticket] | None:
    heads = ((seats, ticket) for seats in waiting if seats.free and (ticket := seats.first(priority)) is not None)
    return min(heads, key=lambda head: head[1].number, default=None)


def is_to_give_way(head: Ticket, free: int, now: float) -> bool:
    """Whether the head of a queue is to leave it because a seat would be wasted on it; `free` are the gateway's.

    A queue whose length is what deadlines allow gives each seat to somebody who has just too little time left: without
    this, under overload half of the work is done for nothing. But how long a call takes is a guess, so it is only ever
    a reason to prefer somebody else: it gives way where those behind it take every seat that is free, and where the
    newest has the time. The door goes by the mean, for it refuses for no other's good. Here it is what most calls are
    done in: who has just the mean left is cut off half of the time, while others wait who would not be.
    """
    seats = head.group
    if now >= head.watchdog.deadline:
        return True
    if seats.queued <= (free if seats.limit is None else min(free, seats.limit - seats.in_flight)):
        return False
    newest = seats.last(head.priority)
    return _is_short(head, now) and not _is_short(newest, now) and not newest.turn.done()


def can_be_served(newcomer: Ticket, wait: float, now: float) -> bool:
    """Whether there is time for the wait and then, going by the mean, for the answer."""
    return wait + _hold(newcomer, newcomer.group.mean_hold or 0.0, now) <= newcomer.watchdog.deadline - now


def _is_short(ticket: Ticket, now: float) -> bool:
    return ticket.watchdog.deadline - now < _hold(ticket, ticket.group.usual_hold, now)


def _hold(ticket: Ticket, measured: float, now: float) -> float:
    """Seconds for which a call would hold its seat: its own time limit ends it where it has one."""
    return min(measured, ticket.watchdog.soft - now)


def estimated_wait(seats: Seats, everyone: Collection[Seats], free: int, priority: Priority) -> float | None:
    """Seconds until a newcomer would have a seat; None where nothing has been measured yet.

    Both the model's seats and the gateway's (`free` of them are left) may be what is waited for: the longer wait
    counts.
    """
    waits = (_for_model(seats, priority), _for_gateway(everyone, free, priority))
    return max((wait for wait in waits if wait is not None), default=None)


def _for_model(seats: Seats, priority: Priority) -> float | None:
    if seats.limit is None or seats.mean_hold is None:
        return None
    leaving = seats.in_flight + seats.ahead(priority) + 1 - seats.limit
    return leaving * seats.mean_hold / max(1, seats.limit) if leaving > 0 else None


def _for_gateway(everyone: Collection[Seats], free: int, priority: Priority) -> float | None:
    """From the rate at which the seats of all models come free."""
    ahead = in_flight = measured = 0
    rate = 0.0
    for seats in everyone:
        waiting = seats.ahead(priority)
        # Of a model that is full, those who wait take the seats of their own model, not those of others.
        ahead += waiting if seats.limit is None else min(waiting, max(0, seats.limit - seats.in_flight))
        in_flight += seats.in_flight
        if seats.mean_hold:
            measured += seats.in_flight
            rate += seats.in_flight / seats.mean_hold
    leaving = ahead + 1 - free
    if leaving <= 0 or not measured:
        return None
    return leaving / (rate * in_flight / measured)
