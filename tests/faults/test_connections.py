# SPDX-License-Identifier: Apache-2.0
"""Pings, frozen callers and old connections: options of the server whose effect shows only in time, scaled down.

Nothing here depends on how long something takes, only on that it comes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from llm_gateway.simulator import Behaviour, Fault
from llm_gateway.v1 import llm_service_pb2 as pb
from tests.kit.calls import chat_request, read_stream, until
from tests.kit.gateway import start_gateway
from tests.kit.http2 import ACK, ENHANCE_YOUR_CALM, NO_ERROR, Kind, http2_client
from tests.kit.processes import caller_process

if TYPE_CHECKING:
    from llm_gateway.simulator import Simulator

STREAM = "/llm_gateway.v1.LLMService/ChatCompletionStream"
PINGS_OFTEN = {"keepalive_time_ms": 100, "keepalive_timeout_ms": 60_000}
NOTICES_SOON = {"keepalive_time_ms": 100, "keepalive_timeout_ms": 500}


async def test_a_silent_caller_is_pinged_again_and_again(simulator: Simulator) -> None:
    """Without a call on its connection, and without any data in between: a long prefill sends none."""
    async with start_gateway(simulator.url, server=PINGS_OFTEN) as gateway, http2_client(gateway.server.port) as client:
        for _ in range(5):
            ping = await client.receive_until(Kind.PING)
            while ping.flags & ACK:
                ping = await client.receive_until(Kind.PING)
            client.send(Kind.PING, ping.payload, flags=ACK)


async def test_a_caller_who_answers_no_ping_is_found_gone(simulator: Simulator) -> None:
    """Its kernel acknowledges what it is sent; only the missing answer tells that nobody is there."""
    simulator.script(Behaviour(fault=Fault.STALL, after=2))
    async with start_gateway(simulator.url, server=NOTICES_SOON) as gateway:
        async with http2_client(gateway.server.port) as client:
            client.call(STREAM, chat_request())
            await simulator.wait_for(lambda now: Fault.STALL in now.faults)

            await client.closed()

        await simulator.wait_for(lambda now: now.aborted == 1 and now.running == 0)
        await until(lambda: gateway.server.in_flight == 0)


async def test_a_frozen_caller_is_found_gone(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.STALL, after=2))
    async with start_gateway(simulator.url, server=NOTICES_SOON) as gateway, caller_process(gateway.address) as caller:
        assert (await caller.line()).strip() == "started"

        caller.send(signal.SIGSTOP)

        await simulator.wait_for(lambda now: now.aborted == 1 and now.running == 0, timeout=10)
        await until(lambda: gateway.server.in_flight == 0)


async def test_a_connection_whose_packets_are_lost_is_given_up_after_the_timeout(simulator: Simulator) -> None:
    """gRPC leaves that to the kernel; packets cannot be lost here, so this looks at what the kernel was told."""
    async with start_gateway(simulator.url, server={"keepalive_timeout_ms": 7_654}) as gateway:
        await gateway.stub.ListModels(pb.ListModelsRequest())

        assert 7_654 in user_timeouts(gateway.server.port)


def user_timeouts(port: int) -> set[int]:
    """TCP_USER_TIMEOUT of this process's sockets on a port, in milliseconds."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if str(link.readlink()).startswith("socket:"):
                with socket.socket(fileno=os.dup(int(link.name))) as sock:
                    if sock.family in {socket.AF_INET, socket.AF_INET6} and sock.getsockname()[1] == port:
                        found.add(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
    return found


async def test_a_caller_may_ping_as_often_as_it_is_allowed_to(simulator: Simulator) -> None:
    async with (
        start_gateway(simulator.url, server={"min_ping_interval_ms": 20}) as gateway,
        http2_client(gateway.server.port) as client,
    ):
        for number in range(8):
            await asyncio.sleep(0.05)
            client.send(Kind.PING, number.to_bytes(8, "big"))
            pong = await client.receive_until(Kind.PING, flags=ACK)
            assert pong.payload == number.to_bytes(8, "big")

        client.send(Kind.PING, bytes(8), times=4)
        goodbye = await client.receive_until(Kind.GOAWAY)

    assert goodbye.error_code == ENHANCE_YOUR_CALM


async def test_an_old_connection_is_ended_without_hurting_its_streams(simulator: Simulator) -> None:
    simulator.script(Behaviour(tokens=40, pace=0.02))
    async with (
        start_gateway(simulator.url, server={"max_connection_age_ms": 100}) as gateway,
        http2_client(gateway.server.port) as client,
    ):
        number = client.call(STREAM, chat_request())
        goodbye = await client.receive_until(Kind.GOAWAY)
        assert simulator.statistics().running == 1
        await client.receive_end(number)

    assert goodbye.error_code == NO_ERROR
    assert simulator.statistics().finished == 1


async def test_a_channel_goes_on_over_the_end_of_its_connections(simulator: Simulator) -> None:
    async with start_gateway(simulator.url, server={"max_connection_age_ms": 50}) as gateway:
        simulator.script(*[Behaviour(tokens=10, pace=0.01)] * 8)
        calls = []
        for _ in range(8):
            calls.append(gateway.stub.ChatCompletionStream(chat_request(), timeout=60))
            await asyncio.sleep(0.03)
        outcomes = [await read_stream(call) for call in calls]

    assert [outcome.failure for outcome in outcomes] == [None] * 8
