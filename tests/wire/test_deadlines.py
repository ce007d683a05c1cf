# SPDX-License-Identifier: Apache-2.0
"""Every call ends: by the caller's deadline or by the gateway's limit, whichever is first, and with the details."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_status import rpc_status

from llm_gateway.simulator import Behaviour, Fault
from llm_gateway.v1 import call_report_pb2, outcome_pb2
from tests.kit.calls import chat_request, stream, unary, until
from tests.kit.gateway import Failure, RunningGateway, start_gateway
from tests.kit.sockets import deaf_listener

if TYPE_CHECKING:
    from llm_gateway.simulator import Simulator

LIMITS_MS = (100, 1_000, 10_000)
"""A limit that passes before the call got where it should get stuck shows nothing: then the next one is tried."""
POINTS = {
    "waiting for headers": (Behaviour(fault=Fault.SLOW_HEADER), 0),
    "before the first event": (Behaviour(fault=Fault.STALL), 0),
    "after the role": (Behaviour(fault=Fault.STALL, role_first=True), 0),
    "in mid-stream": (Behaviour(fault=Fault.STALL, after=2), 2),
}


async def failure_at(simulator: Simulator, behaviour: Behaviour, *, unary_call: bool, **settings: Any) -> Failure:
    """How a call ends that gets stuck, by TIMEOUT_MS: the caller's own deadline is far away."""
    for limit in LIMITS_MS:
        simulator.script(behaviour)
        async with start_gateway(simulator.url, timeout_ms=limit, **settings) as gateway:
            ended = await unary(gateway) if unary_call else (await stream(gateway)).failure
            await until(lambda: gateway.server.in_flight == 0)
        if behaviour.fault in simulator.statistics().faults:
            assert isinstance(ended, Failure)
            return ended
    raise AssertionError("the call never got stuck")


@pytest.mark.parametrize("unary_call", [False, True], ids=["stream", "unary"])
@pytest.mark.parametrize(("behaviour", "tokens"), POINTS.values(), ids=POINTS.keys())
async def test_the_limit_ends_a_call_with_the_details_and_frees_the_backend(
    simulator: Simulator, behaviour: Behaviour, tokens: int, unary_call: bool
) -> None:
    failure = await failure_at(simulator, behaviour, unary_call=unary_call)

    assert (failure.code, failure.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    assert failure.report.usage.completion_tokens == tokens
    assert [attempt.outcome for attempt in failure.report.attempts] == [outcome_pb2.Attempt.OUTCOME_CANCELLED]
    await simulator.wait_for(lambda now: now.aborted >= 1 and now.running == now.waiting == 0)


async def test_the_usage_of_a_call_that_was_cut_is_marked_as_an_estimate(simulator: Simulator) -> None:
    failure = await failure_at(simulator, Behaviour(fault=Fault.STALL, after=3), unary_call=False)

    usage = failure.report.usage
    assert usage.estimated
    assert usage.prompt_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + 3


async def test_the_report_of_a_call_that_was_cut_has_the_number_of_its_last_event(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.STALL, after=3))
    async with start_gateway(simulator.url, timeouts={"idle_ms": 100}) as gateway:
        outcome = await stream(gateway)

    assert outcome.failure is not None
    assert outcome.events[-1].sequence == outcome.failure.report.last_sequence


async def test_a_call_without_a_deadline_ends_by_the_gateways_limit(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.STALL))
    async with start_gateway(simulator.url, timeout_ms=100) as gateway:
        call = gateway.stub.ChatCompletionStream(chat_request())

        assert await call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        status = rpc_status.from_call(await ended(call))

    assert status is not None
    assert any(detail.Is(call_report_pb2.CallReport.DESCRIPTOR) for detail in status.details)


async def test_the_limit_holds_while_the_gateway_connects() -> None:
    with deaf_listener() as port:
        async with start_gateway(f"http://127.0.0.1:{port}", timeout_ms=50, default_model="sim") as gateway:
            outcome = await stream(gateway)

    assert outcome.failure is not None
    assert outcome.failure.reason == "DEADLINE_EXCEEDED"
    assert [a.outcome for a in outcome.failure.report.attempts] == [outcome_pb2.Attempt.OUTCOME_CANCELLED]


async def test_the_limit_holds_while_the_gateway_finds_the_model() -> None:
    with deaf_listener() as port:
        async with start_gateway(f"http://127.0.0.1:{port}", timeout_ms=50) as gateway:
            outcome = await stream(gateway)

    assert outcome.failure is not None
    assert outcome.failure.reason == "DEADLINE_EXCEEDED"


async def test_no_attempt_is_made_that_could_not_begin_before_the_deadline(simulator: Simulator) -> None:
    """Rather than to wait in vain, the call ends at once with what went wrong."""
    simulator.script(Behaviour(fault=Fault.HTTP, status=503, headers={"Retry-After": "20"}))
    async with start_gateway(simulator.url, timeout_ms=10_000, retry={"max_backoff_ms": 60_000}) as gateway:
        outcome = await stream(gateway)

    assert outcome.failure is not None
    assert outcome.failure.reason == "BACKEND_OVERLOADED"
    assert simulator.statistics().requests_seen == 1


async def test_the_callers_own_deadline_is_met_early_enough_for_the_details_to_arrive(
    gateway: RunningGateway, simulator: Simulator
) -> None:
    """`stream` takes no bare status, which is what a deadline that passes on the caller's side would give."""
    simulator.script(Behaviour(fault=Fault.STALL, after=2))

    outcome = await stream(gateway, timeout=1.0)

    assert outcome.failure is not None
    assert outcome.failure.reason == "DEADLINE_EXCEEDED"
    assert outcome.text() == " one night"
    assert outcome.failure.report.usage.completion_tokens == 2


@pytest.mark.parametrize("rpc", ["ChatCompletion", "ChatCompletionStream"])
async def test_a_deadline_of_a_millisecond_hangs_nothing(
    gateway: RunningGateway, simulator: Simulator, rpc: str
) -> None:
    simulator.script(Behaviour(fault=Fault.STALL))

    call = getattr(gateway.stub, rpc)(chat_request(), timeout=0.001)

    assert await call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: gateway.server.in_flight == 0)
    await simulator.wait_for(lambda now: now.running == now.waiting == 0)


async def test_an_answer_that_ends_with_its_deadline_has_one_ending(
    gateway: RunningGateway, simulator: Simulator
) -> None:
    """Either `completed`, or a status of the gateway's; what the caller's own clock decides is bare and not ours."""
    simulator.script(*[Behaviour(tokens=10, pace=0.005)] * 20)

    endings = await asyncio.gather(*(_ending(gateway, 0.040 + 0.001 * number) for number in range(20)))

    dishonest = {("completed", "DEADLINE_EXCEEDED"), ("delta", "OK"), ("started", "OK"), ("nothing", "OK")}
    assert not dishonest & set(endings)
    await until(lambda: gateway.server.in_flight == 0)
    await simulator.wait_for(lambda now: now.running == now.waiting == 0)


async def _ending(gateway: RunningGateway, deadline: float) -> tuple[str, str]:
    """The last event and the status; "bare" if the deadline passed on this side."""
    call = gateway.stub.ChatCompletionStream(chat_request(), timeout=deadline)
    last = "nothing"
    try:
        async for event in call:
            last = event.WhichOneof("event") or ""
    except grpc.aio.AioRpcError as error:
        rich = any(key == "grpc-status-details-bin" for key, _ in error.trailing_metadata())
        return last, error.code().name if rich else "bare"
    return last, "OK"


async def ended(call: grpc.aio.Call) -> Any:
    """A call in the shape that grpc_status reads."""
    return grpc.aio.AioRpcError(
        await call.code(), await call.initial_metadata(), await call.trailing_metadata(), await call.details()
    )
