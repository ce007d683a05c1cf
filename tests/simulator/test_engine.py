# SPDX-License-Identifier: Apache-2.0
"""Who runs, who waits, who is turned away, and that nobody's seat is lost."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from aiohttp import ClientSession

from llm_gateway.simulator import Behaviour, Fault, Options, Simulator
from llm_gateway.simulator.engine import Steps
from tests.simulator import asking

_STALL = Behaviour(fault=Fault.STALL)
_STREAM = asking.chat(stream=True)


async def _leave(task: asyncio.Task[bytes]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_has_no_seat_waits_and_then_runs() -> None:
    async with Simulator(Options(max_num_seqs=1)) as simulator:
        simulator.script(_STALL)
        first = asyncio.create_task(asking.raw(simulator, _STREAM))
        await simulator.wait_for(lambda now: now.running == 1)
        second = asyncio.create_task(asking.raw(simulator, _STREAM))
        statistics = await simulator.wait_for(lambda now: now.waiting == 1)

        await _leave(first)

        assert b"[DONE]" in await second
        assert statistics.running == 1


async def test_headers_come_before_a_seat() -> None:
    async with Simulator(Options(max_num_seqs=1)) as simulator, ClientSession() as session:
        simulator.script(_STALL)
        first = asyncio.create_task(asking.raw(simulator, _STREAM))
        await simulator.wait_for(lambda now: now.running == 1)

        async with session.post(simulator.url + asking.CHAT, json=_STREAM) as response:
            assert response.status == 200
            assert simulator.statistics().waiting == 1

        await _leave(first)


async def test_a_client_that_leaves_the_queue_leaves_it_whole() -> None:
    async with Simulator(Options(max_num_seqs=1)) as simulator:
        simulator.script(_STALL)
        first = asyncio.create_task(asking.raw(simulator, _STREAM))
        await simulator.wait_for(lambda now: now.running == 1)
        second = asyncio.create_task(asking.raw(simulator, _STREAM))
        await simulator.wait_for(lambda now: now.waiting == 1)

        await _leave(second)
        await simulator.wait_for(lambda now: now.aborted == 1)
        await _leave(first)

        statistics = await simulator.wait_for(lambda now: now.aborted == 2)
        assert (statistics.running, statistics.waiting) == (0, 0)


async def test_more_than_the_limit_is_turned_away_and_counted() -> None:
    async with Simulator(Options(max_num_seqs=1, max_num_queued_reqs=1)) as simulator:
        simulator.script(_STALL)
        first = asyncio.create_task(asking.raw(simulator, _STREAM))
        await simulator.wait_for(lambda now: now.running == 1)

        status, body = await asking.post(simulator, asking.CHAT, asking.chat())
        _, metrics = await asking.get(simulator, "/metrics")
        await _leave(first)

    assert status == 503
    assert json.loads(body)["error"]["type"] == "Service Unavailable"
    assert b'vllm:admission_rejections_total{model_name="sim",reason="max_num_queued_reqs"} 1.0' in metrics


async def test_the_limit_counts_choices() -> None:
    async with Simulator(Options(max_num_queued_reqs=2)) as simulator:
        status, _ = await asking.post(simulator, asking.CHAT, asking.chat(n=3))

    assert status == 503


async def test_more_choices_than_seats_are_served_alone() -> None:
    async with Simulator(Options(max_num_seqs=2)) as simulator:
        answer = await asking.answer(simulator, asking.chat(n=3, max_tokens=1))

    assert len(answer["choices"]) == 3


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_is_noticed_at_once(stream: bool) -> None:
    async with Simulator(Options(pace=0.01)) as simulator:
        task = asyncio.create_task(asking.raw(simulator, asking.chat(stream=stream, ignore_eos=True)))
        await simulator.wait_for(lambda now: now.running == 1)

        await _leave(task)

        statistics = await simulator.wait_for(lambda now: now.aborted == 1)
        assert (statistics.running, statistics.finished) == (0, 0)


async def test_a_client_that_does_not_read_is_waited_for() -> None:
    async with Simulator(Options(max_model_len=200_000)) as simulator:
        reader, writer = await asyncio.open_connection(simulator.options.host, simulator.port, limit=1024)
        writer.write(asking.request_bytes(asking.chat(stream=True, ignore_eos=True, max_tokens=100_000)))
        await simulator.wait_for(lambda now: now.running == 1)

        status, _ = await asking.get(simulator, "/health")

        assert status == 200
        assert simulator.statistics().running == 1
        writer.close()
        await simulator.wait_for(lambda now: now.aborted == 1)
        assert reader is not None


async def test_all_who_wait_for_a_step_take_it_together() -> None:
    steps = Steps(0.005)
    waiting = {asyncio.create_task(steps.next()) for _ in range(3)}

    awake, asleep = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)

    assert (len(awake), len(asleep)) == (3, 0)


async def test_one_who_leaves_before_a_step_keeps_nobody_from_it() -> None:
    steps = Steps(0.005)
    leaver, stayer = (asyncio.create_task(steps.next()) for _ in range(2))
    await asyncio.sleep(0)

    leaver.cancel()
    await stayer

    assert leaver.cancelled()


@pytest.mark.parametrize("synchronised", [True, False])
async def test_a_whole_answer_takes_the_time_of_its_tokens(synchronised: bool) -> None:
    async with Simulator(Options(pace=0.01, time_to_first_token=0.01, synchronised=synchronised)) as simulator:
        began = time.monotonic()
        for stream in (True, False):
            await asking.raw(simulator, asking.chat(max_tokens=3, stream=stream))

    assert time.monotonic() - began > 0.04


async def test_comments_fill_a_silence_if_the_server_sends_them() -> None:
    async with Simulator(Options(sse_keep_alive=0.005, time_to_first_token=0.03)) as simulator:
        raw = await asking.raw(simulator, asking.chat(stream=True, max_tokens=2))

    assert raw.index(b": keep-alive\n\n") < raw.index(b'"role"')
    assert b"[DONE]" in raw


async def test_waiting_for_what_never_comes_ends_with_the_counts() -> None:
    async with Simulator() as simulator:
        with pytest.raises(TimeoutError, match="requests_seen=0"):
            await simulator.wait_for(lambda now: now.requests_seen == 1, 0.001)


async def test_every_request_ends_in_one_count() -> None:
    async with Simulator() as simulator:
        for body in (asking.chat(), asking.chat(temperature=-1), _STREAM, asking.chat(model="nope")):
            await asking.post(simulator, asking.CHAT, body)

        statistics = await simulator.wait_for(lambda now: now.finished == 4)

    assert (statistics.requests_seen, statistics.running, statistics.waiting, statistics.aborted) == (4, 0, 0, 0)


async def test_connections_are_counted_while_they_are_open() -> None:
    async with Simulator() as simulator:
        _, writer = await asyncio.open_connection(simulator.options.host, simulator.port)
        opened = await simulator.wait_for(lambda now: now.connections == 1)
        writer.close()
        closed = await simulator.wait_for(lambda now: now.connections == 0)

    assert (opened.connections, closed.connections) == (1, 0)
