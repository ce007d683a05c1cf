# SPDX-License-Identifier: Apache-2.0
"""CancelStream: an operator ends a call, wherever it is; its caller is told, and its backend is left."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import pytest

from llm_gateway.simulator import Behaviour, Fault
from llm_gateway.v1 import admin_service_pb2
from llm_gateway.v1 import llm_service_pb2 as pb
from tests.kit.calls import read_stream, until
from tests.kit.gateway import failure_of
from tests.kit.logs import captured_logs
from tests.kit.operating import operate

if TYPE_CHECKING:
    from llm_gateway.simulator import Simulator
    from tests.kit.gateway import Failure
    from tests.kit.operating import Operated

RunningCall = admin_service_pb2.RunningCall
ENDED = (grpc.StatusCode.ABORTED, "CANCELLED_BY_OPERATOR")


async def in_phase(operated: Operated, phase: admin_service_pb2.RunningCall.Phase, count: int = 1) -> None:
    """Wait until so many calls are in a phase."""
    await operated.when(lambda now: sum(call.phase == phase for call in now.calls) == count)


async def refusal(operated: Operated, request_id: str) -> Failure:
    """Why nothing can be ended by this id."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await operated.cancel(request_id)
    return failure_of(caught.value)


async def test_a_stream_ends_with_what_it_has_and_its_backend_is_left(operated: Operated, stalled: Simulator) -> None:
    call = operated.call("r-7")
    await in_phase(operated, RunningCall.PHASE_STREAMING)

    answer = await operated.cancel("r-7")
    outcome = await read_stream(call)
    await stalled.wait_for(lambda now: now.aborted == 1 and now.running == 0)

    assert outcome.failure is not None
    assert (outcome.failure.code, outcome.failure.reason) == ENDED
    assert outcome.failure.report.usage.completion_tokens == 3
    assert (answer.call.request_id, answer.call.phase, answer.ended) == ("r-7", RunningCall.PHASE_STREAMING, 1)


async def test_a_call_ends_before_its_first_token_too(operated: Operated, simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.STALL))
    request, metadata = pb.GenerateRequest(prompt="hello"), (("x-request-id", "u"),)
    call = operated.gateway.stub.Generate(request, timeout=60, metadata=metadata)
    await simulator.wait_for(lambda now: Fault.STALL in now.faults)

    answer = await operated.cancel("u")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    await simulator.wait_for(lambda now: now.aborted == 1)

    failure = failure_of(caught.value)
    assert (failure.code, failure.reason) == ENDED
    assert answer.call.phase == RunningCall.PHASE_FIRST_TOKEN


async def test_who_waits_for_a_seat_is_ended_there_and_never_reaches_a_backend(stalled: Simulator) -> None:
    async with operate(stalled.url, admission={"max_in_flight": 1}) as operated:
        running = operated.call("runs")
        await in_phase(operated, RunningCall.PHASE_STREAMING)
        waiting = operated.call("waits")
        await in_phase(operated, RunningCall.PHASE_QUEUED)

        answer = await operated.cancel("waits")
        outcome = await read_stream(waiting)
        left = [call.request_id for call in (await operated.status()).calls]
        running.cancel()

    assert outcome.failure is not None
    assert (outcome.failure.code, outcome.failure.reason) == ENDED
    assert answer.call.phase == RunningCall.PHASE_QUEUED
    assert left == ["runs"]
    assert len(stalled.requests) == 1


async def test_all_calls_of_one_id_end(operated: Operated, stalled: Simulator) -> None:
    calls = [operated.call("twice"), operated.call("twice"), operated.call("other")]
    await in_phase(operated, RunningCall.PHASE_STREAMING, 3)

    answer = await operated.cancel("twice")
    outcomes = [await read_stream(call) for call in calls[:2]]
    left = [call.request_id for call in (await operated.status()).calls]
    calls[2].cancel()

    assert answer.ended == 2
    assert [outcome.failure and outcome.failure.reason for outcome in outcomes] == ["CANCELLED_BY_OPERATOR"] * 2
    assert left == ["other"]


async def test_during_a_drain_a_call_can_be_ended_that_would_hold_it_up(operated: Operated, stalled: Simulator) -> None:
    call = operated.call("long")
    await in_phase(operated, RunningCall.PHASE_STREAMING)
    draining = asyncio.create_task(operated.gateway.server.drain())

    await operated.cancel("long")
    outcome = await read_stream(call)

    assert outcome.failure is not None
    assert outcome.failure.reason == "CANCELLED_BY_OPERATOR"
    assert await draining == 0


async def test_a_call_that_is_not_there_is_not_found(operated: Operated) -> None:
    failure = await refusal(operated, "nobody")

    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "CALL_NOT_FOUND")


async def test_an_id_is_needed(operated: Operated) -> None:
    failure = await refusal(operated, "")

    assert (failure.code, failure.violations) == (grpc.StatusCode.INVALID_ARGUMENT, ["request_id"])


async def test_both_sides_of_it_are_in_the_log(operated: Operated, stalled: Simulator) -> None:
    with captured_logs() as logs:
        call = operated.call("r-7")
        await in_phase(operated, RunningCall.PHASE_STREAMING)
        await operated.cancel("r-7")
        await read_stream(call)
        await until(lambda: len(logs.calls) > 1 and "CancelStream" in {line["rpc"] for line in logs.calls})
        told = {line["rpc"]: line for line in logs.calls}
        [word] = [line for line in logs.lines if line["message"] == "an operator ended a call"]

    assert told["CancelStream"]["status"] == "OK"
    assert told["ChatCompletionStream"]["reason"] == "CANCELLED_BY_OPERATOR"
    assert (word["cancelled_request_id"], word["ended"]) == ("r-7", 1)
