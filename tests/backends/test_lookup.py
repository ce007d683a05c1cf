# SPDX-License-Identifier: Apache-2.0
"""Names are looked up once at a time, and a lookup that hangs is nobody's trouble but theirs who ask for that name."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from llm_gateway.backends.http import HttpClient
from llm_gateway.backends.lookup import UNDER_WAY, look_up
from llm_gateway.errors import NoHealthyBackend
from llm_gateway.upstream.resolver import resolve
from tests.kit.calls import until
from tests.kit.scripted import STREAM_HEAD, ScriptedBackend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

V4, V6 = socket.AF_INET, socket.AF_INET6
FOUND = ((V6, "fd00::1"), (V4, "10.0.0.1"))


class System:
    """The system's resolver: names that begin with "slow" hang until the gate opens, and "unknown" are not known."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gate = threading.Event()

    def getaddrinfo(self, name: str, *_: Any, **__: Any) -> list[Any]:
        self.asked.append(name)
        if name.startswith("slow"):
            self.gate.wait()
        if "unknown" in name:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (ip, 0)) for family, ip in FOUND]

    def at_rest(self) -> bool:
        """Whether no lookup of this test is under way; one of an earlier test's may well be."""
        return UNDER_WAY.keys().isdisjoint(self.asked)


@pytest.fixture
async def system(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[System]:
    system = System()
    monkeypatch.setattr(socket, "getaddrinfo", system.getaddrinfo)
    yield system
    system.gate.set()
    await until(system.at_rest)


async def left(name: str) -> None:
    """Ask for a name that hangs, and leave."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await look_up(name)


async def test_every_address_behind_a_name_is_found_in_the_order_of_the_system(system: System) -> None:
    assert await look_up("a.test") == FOUND
    assert system.asked == ["a.test"]


async def test_however_many_ask_for_a_name_it_is_looked_up_once(system: System) -> None:
    asking = [asyncio.create_task(look_up("slow.test")) for _ in range(20)]
    await until(lambda: system.asked)
    system.gate.set()

    assert await asyncio.gather(*asking) == [FOUND] * 20
    assert system.asked == ["slow.test"]


async def test_who_leaves_ends_the_lookup_for_nobody_else(system: System) -> None:
    staying = asyncio.create_task(look_up("slow.test"))
    for _ in range(5):
        await left("slow.test")
    system.gate.set()

    assert await staying == FOUND
    assert system.asked == ["slow.test"]


async def test_what_was_found_is_for_those_who_waited_and_the_next_one_asks_anew(system: System) -> None:
    await look_up("a.test")
    await look_up("a.test")

    assert system.asked == ["a.test"] * 2


async def test_many_names_that_hang_keep_no_other_name_waiting(system: System) -> None:
    before = threading.active_count()
    for _ in range(3):
        await asyncio.gather(*(left(f"slow-{number}.test") for number in range(50)))

    assert await look_up("a.test") == FOUND
    assert threading.active_count() - before <= 50 + 1, "a thread for each name; the last one may still be leaving"
    assert sorted(set(system.asked)) == sorted(system.asked)


async def test_a_failure_is_told_to_all_who_wait_and_kept_for_nobody(system: System) -> None:
    asking = [asyncio.create_task(look_up("slow-unknown.test")) for _ in range(3)]
    await left("slow-unknown.test")
    system.gate.set()
    failures = await asyncio.gather(*asking, return_exceptions=True)

    assert [str(failure) for failure in failures] == [f"[Errno {socket.EAI_NONAME}] no such name"] * 3
    with pytest.raises(socket.gaierror):
        await look_up("slow-unknown.test")
    assert len(system.asked) == 2


@pytest.mark.parametrize(
    ("address", "found"),
    [("127.0.0.1", (V4, "127.0.0.1")), ("0:0::1", (V6, "::1")), ("fe80::1%eth0", (V6, "fe80::1%eth0"))],
)
async def test_an_address_is_itself_and_costs_no_thread(
    system: System, monkeypatch: pytest.MonkeyPatch, address: str, found: tuple[socket.AddressFamily, str]
) -> None:
    monkeypatch.delattr(threading.Thread, "start")

    assert await look_up(address) == (found,)
    assert not system.asked


async def test_a_lookup_that_outlives_its_loop_tells_nobody(system: System, caplog: pytest.LogCaptureFixture) -> None:
    await asyncio.to_thread(asyncio.run, left("slow.test"))
    system.gate.set()
    await until(system.at_rest)

    assert await look_up("slow.test") == FOUND, "the next loop asks anew"
    assert not caplog.records


async def test_a_machine_without_a_thread_to_spare_finds_no_name_until_it_has_one(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as short:
        short.setattr(threading.Thread, "start", refuse)
        with pytest.raises(OSError, match="no thread"):
            await look_up("a.test")

    assert await look_up("a.test") == FOUND
    assert system.asked == ["a.test"]


async def test_a_connection_gives_a_lookup_up_by_its_timer_and_shares_it_with_whoever_asks_for_replicas(
    system: System,
) -> None:
    replicas = asyncio.create_task(resolve("http://slow.test:8000"))
    client = HttpClient("http://slow.test:8000", headers={}, connect_timeout=0.001)
    for _ in range(3):
        with pytest.raises(NoHealthyBackend):
            await client.send("GET", "/health")
    await client.close()
    system.gate.set()

    assert [address.url for address in await replicas] == ["http://[fd00::1]:8000"]
    assert system.asked == ["slow.test"]


async def test_requests_share_what_was_found_and_only_some_connections_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    getaddrinfo = socket.getaddrinfo

    def counted(name: str, *arguments: Any, **more: Any) -> Any:
        asked.append(name)
        return getaddrinfo(name, *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", counted)
    async with ScriptedBackend([STREAM_HEAD]) as backend:  # it closes each connection
        client = HttpClient(backend.url.replace("127.0.0.1", "localhost"), headers={}, connect_timeout=5.0)
        for _ in range(5):
            async with await client.send("POST", "/v1/chat/completions") as exchange:
                await exchange.read_all(100)
        await client.close()

    assert (len(backend.requests), asked) == (5, ["localhost"])
