# SPDX-License-Identifier: Apache-2.0
"""`llm-gateway status`."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING

import grpc
from rich.console import Group
from rich.live import Live
from rich.text import Text

from llm_gateway.cli import client as wire
from llm_gateway.cli.screen import aside, complain, console, plain, say, show, table
from llm_gateway.v1.admin_service_pb2 import (
    BackendStatus,
    GatewayStatus,
    GetStatusRequest,
    RunningCall,
    WatchStatusRequest,
)
from llm_gateway.v1.generation_pb2 import Priority

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from rich.console import RenderableType

    from llm_gateway.v1.admin_service_pb2 import Seats

CANCELLED = 130
MINUTE = 60
OFF = "AdminService has a port of its own, and is off unless the gateway was started with ADMIN__ENABLED=true"
REJECTED = "the CONFIG_FILE was changed and is wrong: what was in force before stays so; the log says what is wrong"
COLOURS = {
    BackendStatus.HEALTH_HEALTHY: "green",
    BackendStatus.HEALTH_EJECTED: "red",
    BackendStatus.HEALTH_PROBATION: "yellow",
    BackendStatus.HEALTH_LOADING: "yellow",
}
MODEL_COLUMNS = ("Model", "Seats", "Queued", "Backend", "Address", "Tier", "Weight", "Health", "In flight", "Failures",
                 "Ejections", "Reports")  # fmt: skip
CALL_COLUMNS = ("Request", "RPC", "Model", "Backend", "Phase", "Age", "Tokens", "Deltas", "Attempt", "Priority")


def status(address: str, *, timeout: float, as_json: bool) -> int:
    """Show a gateway once. Gives the exit code."""
    try:
        found = asyncio.run(_get(address, timeout))
    except grpc.aio.AioRpcError as error:
        complain_of(error, address)
        return 1
    if as_json:
        say(wire.as_json(found, zeros=True))
    else:
        show(page(found))
    return 0


def watch(address: str, *, interval: float, as_json: bool) -> int:
    """Show a gateway until it ends, or until Ctrl-C. Gives the exit code."""
    try:
        asyncio.run(_watch(address, interval, as_json=as_json))
    except grpc.aio.AioRpcError as error:
        complain_of(error, address)
        return 1
    except KeyboardInterrupt:
        return CANCELLED
    aside("the gateway has ended")
    return 0


def complain_of(error: grpc.aio.AioRpcError, address: str) -> None:
    """Say what a call of AdminService met; where nobody served it, how that comes."""
    for line in wire.Failure.of(error, address).lines:
        complain(line)
    if error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED}:
        aside(OFF)


async def _get(address: str, timeout: float) -> GatewayStatus:  # noqa: ASYNC109 - the call's deadline
    async with wire.Client(address) as client:
        return (await client.admin.GetStatus(GetStatusRequest(), timeout=timeout)).status


async def _watch(address: str, interval: float, *, as_json: bool) -> None:
    request = WatchStatusRequest()
    request.interval.FromNanoseconds(round(interval * 1e9))
    screen = console()
    redraws = screen.is_terminal and not screen.is_dumb_terminal and not as_json
    live = Live(console=screen, auto_refresh=False) if redraws else None
    async with wire.Client(address) as client:
        call = client.admin.WatchStatus(request)
        try:
            with live or nullcontext():
                async for response in call:
                    if as_json:
                        say(wire.as_json(response.status, zeros=True))
                    elif live is not None:
                        live.update(page(response.status), refresh=True)
                    else:
                        screen.print(page(response.status), Text())
        finally:
            call.cancel()  # from grpcio 1.83 on, nobody else does it for a caller who leaves


def page(found: GatewayStatus) -> RenderableType:
    """A status to look at: a line about the gateway, then its models, then the calls."""
    parts: list[RenderableType] = [_headline(found)]
    if found.config_file_rejected:
        parts.append(Text(REJECTED, style="red"))
    parts += [Text(), _models(found), Text(), _calls(found)]
    return Group(*parts)


def span(duration: Duration) -> str:
    """A time as people say it: "0.4 s", "3 min 20 s", "5 h 7 min", "12 d 3 h"."""
    seconds = duration.ToNanoseconds() / 1e9
    if seconds < MINUTE:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(int(seconds), MINUTE)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _headline(found: GatewayStatus) -> Text:
    phase = GatewayStatus.Phase.Name(found.phase).removeprefix("PHASE_").lower()
    words = [f"llm-gateway {plain(found.version)}", phase, f"up {span(found.uptime)}"]
    if found.config_version:
        words.append(f"configuration {plain(found.config_version)}")
    words.append(f"{_seats(found.seats)} seats taken")
    words.append(f"{found.seats.queued} queued ({found.seats.queued_bytes:,} bytes)")
    return Text(" · ".join(words), style="bold")


def _seats(seats: Seats) -> str:
    return f"{seats.in_flight} of {seats.limit}" if seats.limit else str(seats.in_flight)


def _models(found: GatewayStatus) -> RenderableType:
    models = table(*MODEL_COLUMNS)
    for model in found.models:
        names = (model.name or "any", _seats(model.seats), str(model.seats.queued))
        for place, backend in enumerate(model.backends):
            models.add_row(*(names if place == 0 else ("", "", "")), *_backend(backend))
        if not model.backends:  # there is no address behind their names
            models.add_row(*names, "none")
    return models


def _backend(backend: BackendStatus) -> tuple[str | Text, ...]:
    health = BackendStatus.Health.Name(backend.health).removeprefix("HEALTH_").lower()
    if backend.HasField("ejected_for"):
        health += f" for {span(backend.ejected_for)}"
    return (
        backend.name,
        backend.address,
        str(backend.tier),
        str(backend.weight),
        Text(health, style=COLOURS.get(backend.health, "")),
        str(backend.in_flight),
        str(backend.consecutive_failures),
        str(backend.ejections),
        _report(backend),
    )


def _report(backend: BackendStatus) -> str:
    """How busy it is, by its own metrics."""
    if not backend.HasField("reported_running"):
        return ""
    load = f"{backend.reported_running} run, {backend.reported_waiting} wait"
    return f"{load}, {backend.reported_kv_usage:.0%} KV" if backend.HasField("reported_kv_usage") else load


def _calls(found: GatewayStatus) -> RenderableType:
    if not found.calls:
        return Text("no calls", style="dim")
    calls = table(*CALL_COLUMNS)
    for call in found.calls:
        calls.add_row(
            call.request_id,
            call.rpc,
            call.model,
            call.backend,
            RunningCall.Phase.Name(call.phase).removeprefix("PHASE_").lower().replace("_", " "),
            span(call.age),
            str(call.completion_tokens),
            str(call.deltas),
            str(call.attempt or ""),
            Priority.Name(call.priority).removeprefix("PRIORITY_").lower(),
        )
    return calls
