# SPDX-License-Identifier: Apache-2.0
"""AdminService between the wire and the gateway's own words: what an operator asks for, and what they are shown."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_gateway import __version__
from llm_gateway.codec.requests import parse
from llm_gateway.codec.responses import duration
from llm_gateway.errors import InvalidRequest
from llm_gateway.generation import AttemptOutcome, Priority
from llm_gateway.v1 import admin_service_pb2 as pb
from llm_gateway.v1 import generation_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llm_gateway.admission import Admission, Pressure, SeatStatistics, Ticket
    from llm_gateway.observability.call import Call
    from llm_gateway.observability.journal import ConfigStatistics, Journal
    from llm_gateway.upstream.router import EndpointStatistics, ModelStatistics, Router

SERVICE = pb.DESCRIPTOR.services_by_name["AdminService"].full_name
MAX_MESSAGE_BYTES = 4096
MAX_COUNT = 2**32 - 1
"""The most that a uint32 holds; what a backend says of itself may be more."""
MIN_INTERVAL, DEFAULT_INTERVAL, MAX_INTERVAL = 0.1, 1.0, 3600.0
PRIORITIES = {
    Priority.INTERACTIVE: generation_pb2.PRIORITY_INTERACTIVE,
    Priority.BATCH: generation_pb2.PRIORITY_BATCH,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Who knows what is so now. Asked when somebody wants to see it, and not before: what runs pays nothing for it."""

    router: Router
    admission: Admission
    pressure: Pressure
    journal: Journal
    config: Callable[[], ConfigStatistics]


def encode_status(sources: Sources) -> bytes:
    """The answer to GetStatus."""
    return pb.GetStatusResponse(status=_status(sources)).SerializeToString()


def encode_watched(sources: Sources) -> bytes:
    """One answer to WatchStatus."""
    return pb.WatchStatusResponse(status=_status(sources)).SerializeToString()


def encode_cancelled(tickets: Sequence[Ticket]) -> bytes:
    """The answer to CancelStream: the calls that are to be ended, the oldest first."""
    return pb.CancelStreamResponse(call=_call(tickets[0]), ended=len(tickets)).SerializeToString()


def decode_get(data: bytes) -> None:
    """GetStatus, which asks for nothing in particular. Raises InvalidRequest or MessageTooLarge, like the others."""
    parse(pb.GetStatusRequest, data, MAX_MESSAGE_BYTES)


def decode_watch(data: bytes) -> float:
    """WatchStatus: the seconds between two looks."""
    request = parse(pb.WatchStatusRequest, data, MAX_MESSAGE_BYTES)
    if not request.HasField("interval"):
        return DEFAULT_INTERVAL
    interval = request.interval.seconds + request.interval.nanos / 1e9
    if not MIN_INTERVAL <= interval <= MAX_INTERVAL:
        raise InvalidRequest.of("interval", f"must be from {MIN_INTERVAL:g} s to {MAX_INTERVAL:g} s")
    return interval


def decode_cancel(data: bytes) -> str:
    """CancelStream: the request id of the calls to be ended."""
    request_id = parse(pb.CancelStreamRequest, data, MAX_MESSAGE_BYTES).request_id
    if not request_id:
        raise InvalidRequest.of("request_id", "must not be empty")
    return request_id


def _status(sources: Sources) -> pb.GatewayStatus:
    admission, config = sources.admission.statistics(), sources.config()
    return pb.GatewayStatus(
        version=__version__,
        phase=f"PHASE_{sources.journal.phase}",
        uptime=duration(sources.journal.uptime),
        config_version=config.version,
        config_file_rejected=not config.last_reload_ok,
        seats=pb.Seats(
            limit=_count(admission.max_in_flight),
            in_flight=admission.in_flight,
            queued=admission.queued,
            queued_bytes=admission.queued_bytes,
        ),
        models=[_model(model, sources.admission.model_statistics(model.name)) for model in sources.router.statistics()],
        calls=[_call(ticket) for ticket in sources.admission.calls()],
    )


def _call(ticket: Ticket) -> pb.RunningCall:
    call = ticket.call
    usage = call.usage if call.spent is None else call.spent()
    return pb.RunningCall(
        request_id=call.request_id,
        rpc=call.rpc,
        model=_text(ticket.model or call.model or ""),
        backend=call.backend or "",
        phase=_phase(ticket),
        age=duration(time.monotonic() - call.stopwatch.started),
        deltas=call.stopwatch.arrivals,
        attempt=_attempt(call),
        priority=PRIORITIES[ticket.priority],
        completion_tokens=_count(usage.completion_tokens),
    )


def _model(model: ModelStatistics, seats: SeatStatistics) -> pb.ModelStatus:
    return pb.ModelStatus(
        name=model.name,
        aliases=model.aliases,
        seats=pb.Seats(
            limit=_count(model.seats or 0),
            in_flight=seats.in_flight,
            queued=seats.queued,
            queued_bytes=seats.queued_bytes,
        ),
        backends=[_backend(endpoint) for endpoint in model.endpoints],
    )


def _backend(endpoint: EndpointStatistics) -> pb.BackendStatus:
    report = endpoint.report
    return pb.BackendStatus(
        name=endpoint.name,
        address=endpoint.address,
        dialect=endpoint.dialect,
        tier=endpoint.tier,
        weight=endpoint.weight,
        health=f"HEALTH_{endpoint.health.name}",
        in_flight=endpoint.in_flight,
        consecutive_failures=endpoint.consecutive_failures,
        ejections=endpoint.ejections,
        ejected_for=duration(endpoint.ejected_for),
        reported_running=_count(report.running) if report else None,
        reported_waiting=_count(report.waiting) if report else None,
        reported_kv_usage=report.kv_usage if report else None,
    )


def _phase(ticket: Ticket) -> pb.RunningCall.Phase:
    if ticket.queued:
        return pb.RunningCall.PHASE_QUEUED
    return pb.RunningCall.PHASE_STREAMING if ticket.call.stopwatch.arrivals else pb.RunningCall.PHASE_FIRST_TOKEN


def _attempt(call: Call) -> int:
    """The number of the attempt that is under way, or that comes next; of an answer that is whole, the last one's."""
    if call.backend is None:
        return 0
    ended = len(call.attempts)
    return ended if ended and call.attempts[-1].outcome is AttemptOutcome.SERVED else ended + 1


def _count(number: int) -> int:
    return min(number, MAX_COUNT)


def _text(text: str) -> str:
    """A backend's word as a string of the wire, which knows no halves of characters."""
    return text.encode(errors="replace").decode()
