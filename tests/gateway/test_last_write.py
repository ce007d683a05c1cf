# SPDX-License-Identifier: Apache-2.0
"""`completed` is the one ending: what would end the call while that write still waits for its caller comes too late."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from llm_gateway.admission import Admission, Limits
from llm_gateway.app import make_router, model_specs
from llm_gateway.errors import DrainExpired
from llm_gateway.gateway import Gateway
from llm_gateway.generation import AttemptOutcome, Completed, Generation, Message, Piece
from llm_gateway.observability.call import Call
from llm_gateway.simulator import Behaviour, Fault
from llm_gateway.upstream.retry import RetryPolicy
from tests.kit.gateway import make_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from llm_gateway.gateway.relay import Event
    from llm_gateway.simulator import Simulator


def is_last(event: Event) -> bool:
    return isinstance(event, Completed)


def is_end_of_a_choice(event: Event) -> bool:
    return isinstance(event, Piece) and event.finish is not None


class DeafCaller:
    """Takes every event up to one: that write never returns."""

    def __init__(self, deaf_to: Callable[[Event], bool] = is_last) -> None:
        self._deaf_to = deaf_to
        self.events: list[Event] = []
        self.deaf = asyncio.Event()

    async def begin(self) -> None:
        """It hears that an answer comes."""

    async def write(self, event: Event) -> None:
        self.events.append(event)
        if self._deaf_to(event):
            self.deaf.set()
            await asyncio.get_running_loop().create_future()


@pytest.fixture
def admission() -> Admission:
    return Admission(Limits(max_in_flight=8))


@pytest.fixture
async def gateway(simulator: Simulator, admission: Admission) -> AsyncIterator[Gateway]:
    """A gateway below the wire."""
    settings = make_settings(simulator.url)
    router = make_router(settings)
    await router.apply(model_specs(settings), "sim")
    yield Gateway(router=router, admission=admission, retry=RetryPolicy(), max_stall=60.0)
    await router.close()


def a_call(seconds: float = 60.0) -> Call:
    return Call("r-1", "ChatCompletionStream", deadline=time.monotonic() + seconds, timeout=seconds)


def a_generation(time_limit: float | None = None) -> Generation:
    return Generation(messages=(Message(role="user", content="hello"),), time_limit=time_limit)


@pytest.mark.parametrize("time_limit", [None, 0.1], ids=["whole", "ended by its time limit"])
async def test_the_end_of_a_drains_grace_puts_no_bad_status_behind_it(
    gateway: Gateway, simulator: Simulator, admission: Admission, time_limit: float | None
) -> None:
    if time_limit is not None:
        simulator.script(Behaviour(fault=Fault.STALL, after=2))
    caller, call = DeafCaller(), a_call()
    streaming = asyncio.create_task(gateway.stream(a_generation(time_limit), call, caller))
    await caller.deaf.wait()

    admission.expire()
    await streaming

    assert isinstance(caller.events[-1], Completed)
    assert [attempt.outcome for attempt in call.attempts] == [AttemptOutcome.SERVED]


async def test_before_it_the_end_of_the_grace_is_the_ending(
    gateway: Gateway, simulator: Simulator, admission: Admission
) -> None:
    """Also where the time limit has passed, and the answer was being ended well: it was not, yet."""
    simulator.script(Behaviour(fault=Fault.STALL, after=2))
    caller, call = DeafCaller(is_end_of_a_choice), a_call()
    streaming = asyncio.create_task(gateway.stream(a_generation(time_limit=0.1), call, caller))
    await caller.deaf.wait()

    admission.expire()

    with pytest.raises(DrainExpired):
        await streaming
    assert [attempt.outcome for attempt in call.attempts] == [AttemptOutcome.CANCELLED]


async def test_a_deadline_puts_no_bad_status_behind_it(gateway: Gateway) -> None:
    caller = DeafCaller()

    await gateway.stream(a_generation(), a_call(0.5), caller)

    assert isinstance(caller.events[-1], Completed)


async def test_a_caller_who_leaves_then_is_still_one_who_left(gateway: Gateway, admission: Admission) -> None:
    caller, call = DeafCaller(), a_call()
    streaming = asyncio.create_task(gateway.stream(a_generation(), call, caller))
    await caller.deaf.wait()

    streaming.cancel()

    with pytest.raises(asyncio.CancelledError):
        await streaming
    assert admission.statistics().in_flight == 0
    assert [attempt.outcome for attempt in call.attempts] == [AttemptOutcome.SERVED]
