# SPDX-License-Identifier: Apache-2.0
"""The proxy of these tests does to connections what it says, or rows would prove less than they seem to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.kit.calls import until
from tests.kit.proxy import BLACKHOLE, RESET, Cut, Line, Proxy

if TYPE_CHECKING:
    from llm_gateway.simulator import Simulator

HEALTHY = b"GET /health HTTP/1.1\r\nhost: sim\r\nconnection: close\r\n\r\n"


async def talk(proxy: Proxy) -> bytes:
    """Ask for the health, and read until the other side ends the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        writer.write(HEALTHY)
        return await reader.read()
    finally:
        writer.transport.abort()


async def test_a_good_line_passes_everything(simulator: Simulator) -> None:
    async with Proxy(simulator.url) as proxy:
        answer = await talk(proxy)
        await until(lambda: proxy.counts.open == 0)

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert (proxy.counts.connections, proxy.counts.cuts) == (1, 0)
    assert (proxy.counts.to_backend, proxy.counts.from_backend) == (len(HEALTHY), len(answer))


async def test_a_refusing_proxy_is_back_on_its_port(simulator: Simulator) -> None:
    async with Proxy(simulator.url) as proxy:
        port = proxy.port
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await talk(proxy)
        await proxy.accept()

        assert (await talk(proxy)).startswith(b"HTTP/1.1 200 OK\r\n")
        assert proxy.port == port


@pytest.mark.parametrize(
    ("cut", "received"), [(Cut.RESET, None), (Cut.CLOSE, b"HTTP/1.1 2"), (Cut.HALF, b"HTTP/1.1 2")]
)
async def test_a_line_is_cut_after_so_many_bytes(simulator: Simulator, cut: Cut, received: bytes | None) -> None:
    async with Proxy(simulator.url) as proxy:
        proxy.script(Line(cut=cut, after=10))
        if received is None:
            with pytest.raises(ConnectionResetError):
                await talk(proxy)
        else:
            assert await talk(proxy) == received

        assert (proxy.counts.cuts, proxy.counts.from_backend) == (1, 10)
        assert (await talk(proxy)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_reset_line_never_asks_the_backend(simulator: Simulator) -> None:
    async with Proxy(simulator.url) as proxy:
        proxy.line = RESET
        with pytest.raises(ConnectionResetError):
            await talk(proxy)

    assert simulator.probes == []


@pytest.mark.parametrize("line", [BLACKHOLE, Line(cut=Cut.SILENCE, after=10)])
async def test_a_blackhole_says_nothing_and_does_not_end(simulator: Simulator, line: Line) -> None:
    async with Proxy(simulator.url) as proxy:
        proxy.line = line
        talking = asyncio.create_task(talk(proxy))
        await until(lambda: proxy.counts.cuts)

        assert not (await asyncio.wait([talking], timeout=0.05))[0]
        talking.cancel()


async def test_running_connections_are_cut_at_once(simulator: Simulator) -> None:
    async with Proxy(simulator.url) as proxy:
        proxy.hold()
        talking = asyncio.create_task(talk(proxy))
        await until(lambda: proxy.counts.open)
        proxy.cut_all()
        with pytest.raises(ConnectionResetError):
            await talking

    assert proxy.counts.from_backend == 0


async def test_what_is_held_passes_once_it_is_let_go(simulator: Simulator) -> None:
    async with Proxy(simulator.url) as proxy:
        proxy.hold()
        talking = asyncio.create_task(talk(proxy))
        await until(lambda: proxy.counts.open)
        proxy.let_go()

        assert (await talking).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_slow_line_takes_its_time(simulator: Simulator) -> None:
    async with Proxy(simulator.url) as proxy:
        loop = asyncio.get_running_loop()
        proxy.line = Line(delay=0.02, bytes_per_second=5_000)
        began = loop.time()
        answer = await talk(proxy)

        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert loop.time() - began >= 0.02 + len(answer) / 5_000
