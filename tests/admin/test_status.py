# SPDX-License-Identifier: Apache-2.0
"""GetStatus: what runs, what waits, which backends get calls."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from llm_gateway import __version__
from llm_gateway.admission import Ticket
from llm_gateway.backends.base import Load
from llm_gateway.codec.status import MAX_COUNT, _backend, _call
from llm_gateway.deadline import Watchdog
from llm_gateway.observability.call import Call
from llm_gateway.simulator import Behaviour, Fault, Simulator
from llm_gateway.upstream.ejection import Health
from llm_gateway.upstream.router import EndpointStatistics
from llm_gateway.v1 import admin_service_pb2, generation_pb2
from llm_gateway.v1 import llm_service_pb2 as pb
from tests.kit.calls import stream
from tests.kit.gateway import NO_BACKEND, config_file
from tests.kit.operating import operate, operate_models

if TYPE_CHECKING:
    from tests.kit.gateway import RunningGateway
    from tests.kit.operating import Operated

RunningCall, BackendStatus, GatewayStatus = (
    admin_service_pb2.RunningCall,
    admin_service_pb2.BackendStatus,
    admin_service_pb2.GatewayStatus,
)


def backend(url: str, name: str = "a", **fields: Any) -> dict[str, Any]:
    return {"name": name, "dialect": "vllm", "url": url, "model": "sim", **fields}


async def test_an_idle_gateway_says_who_it_is_and_how_much_it_can_take(operated: Operated) -> None:
    status = await operated.status()

    assert (status.version, status.phase) == (__version__, GatewayStatus.PHASE_SERVING)
    assert status.uptime.ToNanoseconds() > 0
    assert (status.seats.limit, status.seats.in_flight, status.seats.queued) == (1024, 0, 0)
    assert (status.config_version, status.config_file_rejected) == ("", False)
    assert list(status.calls) == []


async def test_without_a_file_there_is_one_model_without_a_name(operated: Operated, simulator: Simulator) -> None:
    [model] = (await operated.status()).models

    assert (model.name, model.seats.limit) == ("", 0)
    [backend] = model.backends
    assert (backend.name, backend.address, backend.dialect) == ("vllm", simulator.url, "vllm")
    assert backend.health == BackendStatus.HEALTH_HEALTHY
    assert not backend.HasField("ejected_for")


async def test_a_running_stream_is_shown_with_its_age_phase_and_tokens(operated: Operated, stalled: Simulator) -> None:
    call = operated.call("r-7")
    status = await operated.when(lambda now: now.calls and now.calls[0].completion_tokens == 3)
    [shown] = status.calls
    call.cancel()

    assert (shown.request_id, shown.rpc, shown.model) == ("r-7", "ChatCompletionStream", "sim")
    assert (shown.backend, shown.attempt, shown.phase) == ("vllm", 1, RunningCall.PHASE_STREAMING)
    assert 1 <= shown.deltas <= 3
    assert shown.age.ToNanoseconds() > 0
    assert shown.priority == generation_pb2.PRIORITY_INTERACTIVE
    assert status.seats.in_flight == status.models[0].seats.in_flight == status.models[0].backends[0].in_flight == 1


async def test_before_the_first_token_it_is_waited_for(operated: Operated, simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.STALL))
    call = operated.call(priority=generation_pb2.PRIORITY_BATCH)
    await simulator.wait_for(lambda now: Fault.STALL in now.faults)
    [shown] = (await operated.status()).calls
    call.cancel()

    assert (shown.phase, shown.deltas, shown.completion_tokens) == (RunningCall.PHASE_FIRST_TOKEN, 0, 0)
    assert shown.priority == generation_pb2.PRIORITY_BATCH


async def test_a_unary_call_is_shown_like_a_stream(operated: Operated, stalled: Simulator) -> None:
    request = pb.GenerateRequest(prompt="hello")
    call = operated.gateway.stub.Generate(request, timeout=60)
    [shown] = (await operated.when(lambda now: now.calls and now.calls[0].deltas)).calls
    call.cancel()

    assert (shown.rpc, shown.phase) == ("Generate", RunningCall.PHASE_STREAMING)


async def test_who_waits_for_a_seat_is_shown_behind_who_has_one(stalled: Simulator) -> None:
    async with operate(stalled.url, admission={"max_in_flight": 1}) as operated:
        calls = [operated.call("first")]
        await operated.when(lambda now: now.seats.in_flight)
        calls.append(operated.call("second", "a longer prompt"))
        status = await operated.when(lambda now: now.seats.queued)
        for call in calls:
            call.cancel()

    assert [call.request_id for call in status.calls] == ["first", "second"]
    waiting = status.calls[1]
    assert (waiting.phase, waiting.backend, waiting.attempt) == (RunningCall.PHASE_QUEUED, "", 0)
    assert (status.seats.limit, status.seats.in_flight, status.seats.queued) == (1, 1, 1)
    assert status.seats.queued_bytes == status.models[0].seats.queued_bytes > 0
    assert status.models[0].seats.queued == 1


async def test_a_call_that_is_tried_again_says_where_and_for_which_time(simulator: Simulator) -> None:
    async with Simulator() as other:
        simulator.script(Behaviour(fault=Fault.HTTP, status=500))
        other.script(Behaviour(fault=Fault.STALL, after=1))
        models = [{"name": "m", "backends": [backend(simulator.url), backend(other.url, "b", priority=1)]}]
        async with operate_models(models) as operated:
            call = operated.call()
            [shown] = (await operated.when(lambda now: now.calls and now.calls[0].deltas)).calls
            call.cancel()

    assert (shown.model, shown.backend, shown.attempt) == ("m", "b", 2)


async def test_models_are_shown_as_they_are_configured(simulator: Simulator) -> None:
    models: list[dict[str, Any]] = [
        {"name": "n", "backends": [backend(simulator.url, weight=3)], "max_in_flight": 7},
        {"name": "m", "aliases": ["x", "y"], "backends": [backend(simulator.url, "z"), backend(simulator.url, "a")]},
    ]
    async with operate_models(models) as operated:
        status = await operated.status()

    assert status.config_version
    assert [(model.name, list(model.aliases), model.seats.limit) for model in status.models] == [
        ("m", ["x", "y"], 0),
        ("n", [], 7),
    ]
    assert [backend.name for backend in status.models[0].backends] == ["a", "z"]
    assert [backend.weight for backend in status.models[1].backends] == [3]


async def test_an_ejected_backend_says_for_how_long_and_how_often(simulator: Simulator) -> None:
    models = [{"name": "m", "backends": [backend(simulator.url), backend(NO_BACKEND, "lost", priority=1)]}]
    async with operate_models(models, health={"probe_interval_ms": 5}) as operated:
        status = await operated.when(lambda now: now.models[0].backends[1].health == BackendStatus.HEALTH_EJECTED)

    [well, lost] = status.models[0].backends
    assert (well.health, well.ejections, well.tier) == (BackendStatus.HEALTH_HEALTHY, 0, 0)
    assert (lost.name, lost.ejections, lost.tier) == ("lost", 1, 1)
    assert lost.ejected_for.ToNanoseconds() > 0


async def test_what_a_backend_reports_of_itself_is_shown(simulator: Simulator) -> None:
    async with operate(simulator.url, health={"load_interval_ms": 5}) as operated:
        status = await operated.when(lambda now: now.models[0].backends[0].HasField("reported_running"))

    [reporting] = status.models[0].backends
    assert (reporting.reported_running, reporting.reported_waiting) == (0, 0)
    assert reporting.HasField("reported_kv_usage")


def test_no_report_of_a_backend_is_too_much_for_the_wire() -> None:
    shown = _backend(
        EndpointStatistics(
            name="a", address="http://a", dialect="vllm", tier=0, weight=1, health=Health.HEALTHY, in_flight=0,
            consecutive_failures=0, ejections=0, ejected_for=None, report=Load(10**300, 10**300, None),
        )
    )  # fmt: skip

    assert (shown.reported_running, shown.reported_waiting) == (MAX_COUNT, MAX_COUNT)
    assert not shown.HasField("reported_kv_usage")


async def test_one_call_with_a_model_that_no_string_can_hold_does_not_hide_the_others() -> None:
    call = Call("r-1", "Generate", deadline=0.0, timeout=1.0)
    call.model = "a\ud800b"

    assert _call(Ticket(call, Watchdog(0.0))).model == "a?b"


async def test_a_file_that_was_broken_since_is_said(simulator: Simulator) -> None:
    models = [{"name": "m", "backends": [backend(simulator.url)]}]
    with config_file(models) as path:
        async with operate(NO_BACKEND, config_file=path, config_poll_interval_ms=5) as operated:
            before = await operated.status()
            path.write_text("models: none", encoding="utf-8")
            after = await operated.when(lambda now: now.config_file_rejected)

    assert not before.config_file_rejected
    assert after.config_version == before.config_version
    assert [model.name for model in after.models] == ["m"]


async def test_what_has_ended_is_not_shown(operated: Operated) -> None:
    await stream(operated.gateway)
    status = await operated.when(lambda now: not now.seats.in_flight)

    assert list(status.calls) == []


async def test_it_is_off_unless_it_is_switched_on(gateway: RunningGateway) -> None:
    assert (gateway.server.admin, gateway.server.metrics) == (None, None)


async def test_a_drain_is_shown_until_its_end(stalled: Simulator) -> None:
    async with operate(stalled.url) as operated:
        call = operated.call()
        await operated.when(lambda now: now.seats.in_flight)
        draining = asyncio.create_task(operated.gateway.server.drain())
        status = await operated.when(lambda now: now.phase == GatewayStatus.PHASE_DRAINING)
        call.cancel()
        await draining

    assert [call.request_id for call in status.calls] == ["r-1"]
