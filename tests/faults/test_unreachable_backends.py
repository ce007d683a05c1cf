# SPDX-License-Identifier: Apache-2.0
"""Rows 1 to 5: backends to which there is no connection."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from tests.faults.invariants import CANARY, MODEL, SAID, UNDISTURBED, asking, key_file, scene, tried
from tests.faults.matrix import OK, Expected, attempts_of, ending_of, row
from tests.kit.calls import chat_request, read_stream, until
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
            await until(lambda: connecting_to(port) == 0)


@row(4)
async def test_row_04_a_name_that_cannot_be_resolved_is_a_backend_that_cannot_be_reached(
    expected: Expected,
) -> None:
    async with scene("http://no-such-host.invalid:8000", health=UNDISTURBED) as witness:
        outcome = await witness.stream()

    assert ending_of(outcome) in expected
    assert attempts_of(outcome)[0] == ("a", "NO_HEALTHY_BACKEND")


SLOW_NAMES = """
import os
import socket
import time

resolve = socket.getaddrinfo


def getaddrinfo(host, *arguments, **more):
    if str(host).startswith("slow-"):
        with open(os.environ["ASKED"], "a") as asked:
            print(host, file=asked)
        time.sleep(3600)
    return resolve(host, *arguments, **more)


socket.getaddrinfo = getaddrinfo
"""
"""The sitecustomize of a process in which lookups of some names hang, as in C: nobody can end them."""
SLOW = [f"slow-{number}.invalid" for number in range(40)]
"""More than any pool of threads has."""


@row(4)
async def test_row_04_a_resolver_that_does_not_answer_is_given_up_by_the_connect_timer_and_delays_nobody_else(
    simulator: Simulator, tmp_path: Path, expected: Expected
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_NAMES)
    asked = tmp_path / "asked"
    slow = [{"name": name, "url": f"http://{name}:8000"} for name in SLOW]
    well = {"name": "well", "url": simulator.url.replace("127.0.0.1", "localhost")}
    models = [{"name": "slow", "backends": slow}, {"name": MODEL, "backends": [well]}]
    hanging = {"PYTHONPATH": str(tmp_path), "ASKED": str(asked)}
    timers = {"TIMEOUTS__CONNECT_MS": "500", "HEALTH__PROBE_INTERVAL_MS": "200", "SERVER__DRAIN_DELAY_MS": "0"}
    with config_file(models) as path:
        async with (
            gateway_process("", CONFIG_FILE=str(path), **hanging, **timers) as gateway,
            stub_of(gateway.address) as stub,
        ):
            outcomes = {}
            for model in ("slow", MODEL):
                request = chat_request(asking())
                request.model = model
                outcomes[model] = await read_stream(stub.ChatCompletionStream(request, timeout=20))
            began = time.monotonic()
            await gateway.rest()

            assert await gateway.exit_code() == 0
            assert time.monotonic() - began < 10
    assert ending_of(outcomes["slow"]) in expected
    assert (ending_of(outcomes[MODEL]), outcomes[MODEL].text()) == (OK, SAID)
    assert sorted(asked.read_text().split()) == sorted(SLOW), "each is looked up, and once"


@row(5, "expired", "unknown authority", together=True)
async def test_row_05_a_backend_without_a_good_certificate_gets_no_prompt(
    simulator: Simulator, tmp_path: Path, expected: Expected
) -> None:
    trusted, other = Authority(tmp_path / "trusted"), Authority(tmp_path / "other")
    contexts = {
        "good": trusted.context(),
        "expired": trusted.context(days=0),
        "unknown authority": other.context(),
    }
    async with AsyncExitStack() as stack:
        key = stack.enter_context(key_file())
        proxies = {
            case: await stack.enter_async_context(Proxy(simulator.url, tls=tls)) for case, tls in contexts.items()
        }
        path = stack.enter_context(config_file([model_at(case, proxy.url, key) for case, proxy in proxies.items()]))
        variables = {"SSL_CERT_FILE": str(trusted.certificate), "HEALTH__PROBE_INTERVAL_MS": "60000"}
        gateway = await stack.enter_async_context(gateway_process("", CONFIG_FILE=str(path), **variables))
        stub = await stack.enter_async_context(stub_of(gateway.address))
        outcomes = {}
        for case in contexts:
            request = chat_request(asking())
            request.model = case.replace(" ", "-")
            outcomes[case] = await read_stream(stub.ChatCompletionStream(request, timeout=30))
        log = await gateway.rest()

    well = outcomes.pop("good")
    assert (ending_of(well), well.text()) == (OK, SAID)
    for case, outcome in outcomes.items():
        assert ending_of(outcome) in expected.of(case)
        assert proxies[case].counts.to_backend == 0
        told = repr([outcome.failure, outcome.trailers])
        assert ("certificate" in told.lower(), CANARY in told + log) == (False, False)


def model_at(name: str, url: str, key: Path) -> dict[str, Any]:
    """A model with one backend, in a CONFIG_FILE."""
    backend = {"name": "a", "model": MODEL, "url": url, "api_key_file": str(key)}
    return {"name": name.replace(" ", "-"), "backends": [backend]}
