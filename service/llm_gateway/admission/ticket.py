# SPDX-License-Identifier: Apache-2.0
"""One call that runs or waits, and how many may."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llm_gateway.generation import Priority

if TYPE_CHECKING:
    import asyncio

    from llm_gateway.admission.seats import Seats
    from llm_gateway.deadline import Watchdog
    from llm_gateway.errors import GatewayError
    from llm_gateway.observability.call import Call

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many calls run and wait in the whole gateway. Times are in seconds.

    `batch_share` is the part of the seats handed out that goes to batch calls, at least, while one of them waits.
    """

    max_in_flight: int = 1024
    max_queued: int = 256
    max_queued_bytes: int = 64 * MEBIBYTE
    max_wait: float = 10.0
    batch_share: float = 0.1


@dataclass(slots=True, eq=False)
class Ticket:
    """One call at the door: the gateway fills it in, the Admission keeps it until the call leaves.

    `model` is the group whose seats it takes, a model by its configured name or all questions; `seats` how many that
    group has (None: as many as the gateway), `size` the bytes of the request. Ended while it waits as while it runs, by
    its watchdog's `interrupt`.
    """

    call: Call
    watchdog: Watchdog
    model: str = ""
    seats: int | None = None
    priority: Priority = Priority.INTERACTIVE
    size: int = 0
    queued: bool = field(default=False, init=False)

    # The rest is the Admission's own: since when it has a seat; in which group; and for one that waits, its place in
    # the order of all, and on what it waits: the result is None for a seat, else why there is none.
    seated: float | None = field(default=None, init=False, repr=False)
    group: Seats = field(init=False, repr=False)
    number: int = field(init=False, repr=False)
    turn: asyncio.Future[GatewayError | None] = field(init=False, repr=False)
