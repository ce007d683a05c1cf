# SPDX-License-Identifier: Apache-2.0
"""The routes around generation, and the window a test has into the server."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest
from aiohttp import ClientError, ClientSession

from llm_gateway.simulator import NOT_SIMULATED, Options, Simulator, run
from tests.simulator import asking, recorded


async def test_every_served_name_is_listed() -> None:
    async with Simulator(Options(models=("big", "small"), max_model_len=99)) as simulator:
        _, body = await asking.get(simulator, "/v1/models")

    listed = [(model["id"], model["max_model_len"]) for model in json.loads(body)["data"]]
    assert listed == [("big", 99), ("small", 99)]


@pytest.mark.parametrize("path", ["/health", "/ping"])
async def test_a_dead_engine_shows_in_the_health(path: str) -> None:
    async with Simulator() as simulator:
        alive = await asking.get(simulator, path)
        simulator.healthy = False
        dead = await asking.get(simulator, path)

    assert (alive, dead) == ((200, b""), (503, b""))


async def test_the_version_is_that_of_the_options() -> None:
    async with Simulator(Options(version="0.32.0")) as simulator:
        assert await asking.get(simulator, "/version") == (200, b'{"version":"0.32.0"}')


@pytest.mark.parametrize(("tracking", "expected"), [(True, b'{"server_load":1}'), (False, b'{"server_load":0}')])
async def test_load_counts_only_if_it_is_tracked(tracking: bool, expected: bytes) -> None:
    async with Simulator(Options(load_tracking=tracking)) as simulator:
        task = asyncio.create_task(asking.raw(simulator, asking.chat("[[sim fault=stall]]", stream=True)))
        await simulator.wait_for(lambda now: now.running == 1)
        _, body = await asking.get(simulator, "/load")
        task.cancel()

    assert expected == body


async def test_a_slash_too_many_is_redirected() -> None:
    async with Simulator() as simulator:
        status, _ = await asking.get(simulator, "/v1/models/")

    assert status == 307


@pytest.mark.parametrize("path", [path for path in NOT_SIMULATED if path.startswith("/")])
async def test_what_is_not_simulated_is_not_found(path: str) -> None:
    async with Simulator() as simulator:
        assert await asking.post(simulator, path, {}) == (404, b'{"detail":"Not Found"}')


async def test_metrics_have_the_names_and_labels_of_vllm() -> None:
    async with Simulator(Options(models=("tiny",))) as simulator:
        _, page = await asking.get(simulator, "/metrics")

    known = recorded.answer("default", "metrics").body.decode().splitlines()
    series = {line.rpartition(" ")[0] for line in known} | {line for line in known if line.startswith("# TYPE")}
    shown = [line for line in page.decode().splitlines() if not line.startswith("# HELP")]
    assert [line for line in shown if line not in series and line.rpartition(" ")[0] not in series] == []


async def test_metrics_follow_what_happens() -> None:
    async with Simulator() as simulator:
        await asking.answer(simulator, asking.chat(max_tokens=3))
        task = asyncio.create_task(asking.raw(simulator, asking.chat("[[sim fault=stall]]", stream=True, n=2)))
        await simulator.wait_for(lambda now: now.running == 1)
        _, page = await asking.get(simulator, "/metrics")
        task.cancel()

    values = dict(line.rsplit(" ", 1) for line in page.decode().splitlines() if not line.startswith("#"))
    labels = 'engine="0",model_name="sim"'
    assert values[f"vllm:num_requests_running{{{labels}}}"] == "2.0"
    assert values[f"vllm:prompt_tokens_total{{{labels}}}"] == "25.0"
    assert values[f"vllm:generation_tokens_total{{{labels}}}"] == "3.0"
    assert values['vllm:request_success_total{engine="0",finished_reason="length",model_name="sim"}'] == "1.0"


async def test_requests_are_remembered_with_headers_in_lower_case() -> None:
    async with Simulator(Options(api_key="secret")) as simulator:
        await asking.post(simulator, asking.CHAT, {"a": 1}, {"X-Vllm-Priority": "7"})
        await asking.post(simulator, "/simulator/script", [])
        await asking.get(simulator, "/v1/models")

        [received] = simulator.requests
        [probe] = simulator.probes

    assert (received.path, received.headers["x-vllm-priority"], received.body) == (asking.CHAT, "7", {"a": 1})
    assert (probe.path, probe.body) == ("/v1/models", None)


async def test_statistics_can_be_read_over_http() -> None:
    async with Simulator() as simulator:
        await asking.post(simulator, asking.CHAT, asking.chat("[[sim fault=http]]"))
        _, body = await asking.get(simulator, "/simulator/statistics")

    statistics = json.loads(body)
    assert statistics["requests_seen"] == 1
    assert statistics["faults"] == {"http": 1}


async def test_repeated_prompts_are_found_in_the_prefix_cache() -> None:
    body = asking.chat("word " * 200, max_tokens=1)
    async with Simulator(Options(prompt_tokens_details=True)) as simulator:
        details = [(await asking.answer(simulator, body))["usage"]["prompt_tokens_details"] for _ in range(2)]

    assert [found["cached_tokens"] for found in details] == [0, 384]
    assert [found["created_cache_tokens"] for found in details] == [384, 0]


async def test_an_idle_stop_leaves_no_connection() -> None:
    async with Simulator() as simulator:
        task = asyncio.create_task(asking.raw(simulator, asking.chat("[[sim fault=stall]]", stream=True)))
        await simulator.wait_for(lambda now: now.running == 1)

    with suppress(ConnectionError):
        assert b"[DONE]" not in await task
    assert simulator.statistics().connections == 0


async def test_it_serves_until_it_is_cancelled(unused_tcp_port: int) -> None:
    serving = asyncio.create_task(run(Options(port=unused_tcp_port)))
    url = f"http://127.0.0.1:{unused_tcp_port}/health"
    async with ClientSession() as session:
        while True:
            with suppress(ClientError):
                async with session.get(url) as response:
                    status = response.status
                break
            await asyncio.sleep(0.001)
    serving.cancel()

    assert status == 200
    with pytest.raises(asyncio.CancelledError):
        await serving
