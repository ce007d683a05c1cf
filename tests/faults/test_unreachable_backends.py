# SPDX-License-Identifier: Apache-2.0
"""Rows 1 to 5: backends to which there is no connection."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.invariants import KEY, MODEL, PROMPT, SAID, UNDISTURBED, asking, key_file, scene, tried
from tests.faults.matrix import OK, Expected, attempts_of, ending_of, row
from tests.kit.calls import chat_request, read_stream
from tests.kit.gateway import config_file, stub_of
from tests.kit.processes import gateway_process
from tests.kit.proxy import Proxy
from tests.kit.sockets import connecting_to, deaf_listener
from tests.kit.tls import Authority

if TYPE_CHECKING:
    from pathlib import Path

    from llm_gateway.simulator import Simulator


@row(1)
async def test_row_01_a_refusing_replica_costs_an_attempt_and_not_the_call(
    simulator: Simulator, expected: Expected
) -> None:
    async with (
        Proxy(simulator.url) as proxy,
        scene(proxy.url, simulator.url, health=UNDISTURBED) as witness,
    ):
        await proxy.stop()
        asked = await tried(witness, ("a", "NO_HEALTHY_BACKEND"), expected)

    assert asked[-2:] == [("a", "NO_HEALTHY_BACKEND"), ("b", "")]
    assert simulator.statistics().finished == len(asked) - 1


@row(2)
async def test_row_02_when_every_replica_refuses_the_caller_is_told_soon(
    simulator: Simulator, expected: Expected
) -> None:
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(Proxy(simulator.url)) for _ in range(2)]
        witness = await stack.enter_async_context(scene(*(proxy.url for proxy in proxies), health=UNDISTURBED))
        for proxy in proxies:
            await proxy.stop()
        began = time.monotonic()
        outcome = await witness.stream()

        assert ending_of(outcome) in expected
        assert time.monotonic() - began < 10
        assert outcome.failure is not None
        assert "google.rpc.RetryInfo" in outcome.failure.details
        assert outcome.failure.trailers["grpc-retry-pushback-ms"] == "-1"
        attempts = attempts_of(outcome)
        assert len(attempts) <= 3
        assert {name for name, _ in attempts} == {"a", "b"}
        assert {reason for _, reason in attempts} == {"NO_HEALTHY_BACKEND"}

    assert simulator.statistics().requests_seen == 0


@row(3, "another replica", "alone")
async def test_row_03_a_host_that_drops_every_packet_is_given_up_by_the_connect_timer(
    simulator: Simulator, case: str, expected: Expected
) -> None:
    with deaf_listener() as port:
        others = [simulator.url] if case == "another replica" else []
        deaf = f"http://127.0.0.1:{port}"
        async with scene(deaf, *others, timeouts={"connect_ms": 100}, health=UNDISTURBED) as witness:
            await tried(witness, ("a", "NO_HEALTHY_BACKEND"), expected)

        assert connecting_to(port) <= 1  # the listener's own filler


@row(4)
async def test_row_04_a_name_that_cannot_be_resolved_is_a_backend_that_cannot_be_reached(
    expected: Expected,
) -> None:
    async with scene("http://no-such-host.invalid:8000", health=UNDISTURBED) as witness:
        outcome = await witness.stream()

    assert ending_of(outcome) in expected
    assert attempts_of(outcome)[0] == ("a", "NO_HEALTHY_BACKEND")


@pytest.fixture
async def slow_names(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names that were asked of a resolver that takes its time; other hosts are resolved as ever."""
    loop = asyncio.get_running_loop()
    resolve, asked = loop.getaddrinfo, set()

    async def getaddrinfo(host: str, *arguments: Any, **more: Any) -> Any:
        if host.startswith("slow."):
            asked.add(host)
            await asyncio.sleep(3)
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return await resolve(host, *arguments, **more)

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    return asked


@row(4)
async def test_row_04_a_resolver_that_does_not_answer_in_time_is_given_up_by_the_connect_timer(
    slow_names: set[str], expected: Expected
) -> None:
    async with scene("http://slow.invalid:8000", timeouts={"connect_ms": 100}, health=UNDISTURBED) as witness:
        outcome = await witness.stream(timeout=2.5)

    assert ending_of(outcome) in expected
    assert attempts_of(outcome) == [("a", "NO_HEALTHY_BACKEND")] * 3
    assert slow_names == {"slow.invalid"}


@row(5, "expired", "unknown authority")
async def test_row_05_a_backend_without_a_good_certificate_gets_no_prompt(
    simulator: Simulator, tmp_path: Path, case: str, expected: Expected
) -> None:
    trusted, other = Authority(tmp_path / "trusted"), Authority(tmp_path / "other")
    bad = trusted.context(days=0) if case == "expired" else other.context()
    async with (
        Proxy(simulator.url, tls=bad) as badly,
        Proxy(simulator.url, tls=trusted.context()) as well,
    ):
        with key_file() as key:
            models = [
                {"name": name, "backends": [{"name": name, "model": MODEL, "url": proxy.url, "api_key_file": str(key)}]}
                for name, proxy in {"good": well, "bad": badly}.items()
            ]
            variables = {"SSL_CERT_FILE": str(trusted.certificate), "HEALTH__PROBE_INTERVAL_MS": "60000"}
            with config_file(models) as path:
                async with gateway_process("", CONFIG_FILE=str(path), **variables) as gateway:
                    async with stub_of(gateway.address) as stub:
                        outcomes = {}
                        for name in ("good", "bad"):
                            request = chat_request(asking())
                            request.model = name
                            outcomes[name] = await read_stream(stub.ChatCompletionStream(request, timeout=30))
                    log = await gateway.rest()

    assert (ending_of(outcomes["good"]), outcomes["good"].text()) == (OK, SAID)
    assert ending_of(outcomes["bad"]) in expected
    assert badly.counts.to_backend == 0
    told = repr([outcomes["bad"].failure, outcomes["bad"].trailers]) + log
    assert "certificate" not in told.lower()
    assert (PROMPT in told, KEY in told) == (False, False)
