# SPDX-License-Identifier: Apache-2.0
"""What is behind a name: one replica for each pod, which is asked for by the name that all of them have."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import pytest

from llm_gateway.app import make_backend
from llm_gateway.backends.base import Readiness
from llm_gateway.upstream.resolver import Refresher, resolve
from llm_gateway.upstream.spec import Address, BackendSpec
from tests.kit.gateway import make_settings
from tests.kit.scripted import ScriptedBackend, json_response
from tests.kit.tls import Authority

if TYPE_CHECKING:
    from pathlib import Path

    from llm_gateway.backends.openai import OpenAIBackend

V4, V6 = socket.AF_INET, socket.AF_INET6
NAME = "replicas.test"


class Resolver:
    """The system's; it knows one name, and what is behind it."""

    def __init__(self) -> None:
        self.found: list[tuple[socket.AddressFamily, str]] = [(V4, "127.0.0.1")]
        self.flags: list[int] = []

    def getaddrinfo(self, host: str, _: int | None, *, flags: int = 0, **__: Any) -> list[Any]:
        if host not in {NAME, *(ip for _, ip in self.found)}:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        self.flags.append(flags)
        return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (ip, 0)) for family, ip in self.found]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver.getaddrinfo)
    return resolver


async def backend_behind(url: str) -> OpenAIBackend:
    """The driver of the one replica that is behind a name."""
    (address,) = await resolve(url)
    spec = BackendSpec(name="a", urls=(url,), resolve=True)
    return make_backend(spec, address, make_settings(url))


async def test_each_address_is_a_replica_by_order_and_once(resolver: Resolver) -> None:
    resolver.found = [(V4, "10.0.0.2"), (V4, "10.0.0.1"), (V4, "10.0.0.2")]

    assert await resolve(f"http://{NAME}:8000") == [
        Address("http://10.0.0.1:8000", NAME),
        Address("http://10.0.0.2:8000", NAME),
    ]


@pytest.mark.parametrize(
    ("found", "taken"),
    [
        ([(V6, "fd00::1"), (V6, "fd00::2"), (V4, "10.0.0.1"), (V4, "10.0.0.2")], ["[fd00::1]", "[fd00::2]"]),
        ([(V4, "10.0.0.2"), (V6, "fd00::1"), (V4, "10.0.0.1"), (V6, "fd00::2")], ["10.0.0.1", "10.0.0.2"]),
    ],
    ids=["ipv6 first", "ipv4 first"],
)
async def test_a_pod_with_an_address_of_each_family_is_one_replica(
    resolver: Resolver, found: list[tuple[socket.AddressFamily, str]], taken: list[str]
) -> None:
    resolver.found = found

    assert [address.url for address in await resolve(f"http://{NAME}:8000")] == [f"http://{ip}:8000" for ip in taken]


async def test_addresses_of_a_family_that_this_machine_lacks_are_not_asked_for(resolver: Resolver) -> None:
    await resolve(f"http://{NAME}")

    assert resolver.flags == [socket.AI_ADDRCONFIG]


async def test_an_address_in_the_place_of_a_name_is_asked_for_as_it_is(resolver: Resolver) -> None:
    assert await resolve("https://[::1]") == [Address("https://[::1]:443", None)]
    assert not resolver.flags, "nobody looks it up"


async def test_a_name_that_nobody_knows_cannot_be_resolved(resolver: Resolver) -> None:
    assert resolver.found

    with pytest.raises(OSError, match="no such name"):
        await resolve("http://unknown.test")


async def test_a_replica_is_asked_for_by_the_name_and_the_port_once(resolver: Resolver) -> None:
    async with ScriptedBackend([json_response("200 OK", {})]) as server:
        server.aside.clear()  # a probe is a request like any other
        port = server.url.rpartition(":")[2]
        backend = await backend_behind(f"http://{NAME}:{port}")
        readiness = await backend.probe()
        await backend.close()

    assert readiness is Readiness.READY
    assert resolver.flags
    assert [headers["host"] for _, headers, _ in server.requests] == [f"{NAME}:{port}"]


async def test_over_tls_a_replica_has_to_prove_the_name_without_the_port(resolver: Resolver, tmp_path: Path) -> None:
    names: list[str] = []
    context = Authority(tmp_path / "authority").context(name=f"DNS:{NAME}")
    context.sni_callback = lambda _, name, __: names.append(name)
    async with ScriptedBackend([json_response("200 OK", {})], tls=context) as server:
        backend = await backend_behind(f"https://{NAME}:{server.url.rpartition(':')[2]}")
        readiness = await backend.probe()
        await backend.close()

    assert readiness is Readiness.DOWN, "nobody vouches for this authority"
    assert resolver.flags
    assert names == [NAME]


async def test_while_a_name_has_no_address_it_is_looked_up_again_soon_and_then_at_leisure() -> None:
    looked_up, found = 0, asyncio.Event()

    async def refresh() -> bool:
        nonlocal looked_up
        looked_up += 1
        if looked_up == 3:
            found.set()
        return found.is_set()

    refresher = Refresher(refresh, interval=3600, soon=0.001)
    refresher.start()
    async with asyncio.timeout(10):
        await found.wait()
    await asyncio.sleep(0.005)  # as long as it takes for several more, if it still hurried
    await refresher.stop()

    assert looked_up == 3
