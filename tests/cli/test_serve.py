# SPDX-License-Identifier: Apache-2.0
"""`llm-gateway serve` from its start to its exit code."""

from __future__ import annotations

import json
import signal
import socket

import pytest

from tests.cli.program import Program, run
from tests.kit.gateway import NO_BACKEND, config_file

LOCAL = {"PORT": "0", "SERVER__HOST": "127.0.0.1", "SERVER__DRAIN_DELAY_MS": "0"}


async def test_wrong_settings_are_a_line_each_and_exit_code_2() -> None:
    done = await run("serve", PORT="many", VLLM_URL="vllm:8000", TIMEOUTS__IDEL_MS="1")

    assert done.code == 2
    assert done.out == ""
    assert sorted(line.partition(":")[0] for line in done.err.splitlines()) == [
        "PORT",
        "TIMEOUTS__IDEL_MS",
        "VLLM_URL",
    ]


async def test_a_wrong_file_is_a_line_for_each_fault_and_exit_code_2() -> None:
    with config_file([{"name": "a b", "backends": [{"name": "a"}]}]) as path:
        done = await run("serve", CONFIG_FILE=str(path), LOG_LEVEL="error")

    assert done.code == 2
    assert [line.partition(" ")[0] for line in done.err.splitlines()] == ["models[0].name", "models[0].backends[0].url"]


async def test_a_setting_that_has_no_effect_is_logged() -> None:
    with config_file([{"name": "m", "backends": [{"name": "a", "url": NO_BACKEND}]}]) as path:
        async with Program("serve", env=LOCAL | {"CONFIG_FILE": str(path), "VLLM_URL": NO_BACKEND}) as gateway:
            lines = await gateway.until('"listening"')
            gateway.terminate()
            await gateway.exit_code()

    assert "VLLM_URL: is not used" in lines


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_an_idle_gateway_with_exit_code_0(number: signal.Signals) -> None:
    async with Program("serve", env=LOCAL) as gateway:
        await gateway.until('"listening"')
        gateway.send(number)

        assert await gateway.exit_code() == 0
        assert '"draining"' in gateway.output


async def test_logs_are_json_where_nobody_looks() -> None:
    async with Program("serve", env=LOCAL) as gateway:
        line = await gateway.until('"listening"')
        gateway.terminate()
        await gateway.exit_code()

        assert json.loads(line.splitlines()[0])["message"] == "starting"


async def test_logs_are_text_on_a_terminal() -> None:
    async with Program("serve", terminal=True, env=LOCAL) as gateway:
        text = await gateway.until("listening address=127.0.0.1:")
        gateway.terminate()
        await gateway.exit_code()

        assert "{" not in text


async def test_the_form_of_the_logs_can_be_chosen() -> None:
    async with Program("serve", env=LOCAL | {"LOG_FORMAT": "text"}) as gateway:
        await gateway.until("listening address=")
        gateway.terminate()

        assert await gateway.exit_code() == 0


async def test_a_port_that_is_taken_is_one_line_and_exit_code_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = await run("serve", PORT=str(port), SERVER__HOST="127.0.0.1", LOG_LEVEL="warning")

    assert done.code == 1
    assert done.err == f"cannot listen on 127.0.0.1:{port}; is another gateway running? PORT chooses another port\n"
