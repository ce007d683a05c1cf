# SPDX-License-Identifier: Apache-2.0
"""`llm-gateway check`: the settings in force, and whether the backend answers."""

from __future__ import annotations

import asyncio
import gc
import json

import aiohttp
import pytest
from typer.testing import CliRunner

from llm_gateway.cli import app
from llm_gateway.cli.check import ask_backend
from llm_gateway.settings import variables
from llm_gateway.simulator import Options, Simulator
from tests.cli.program import run
from tests.kit.gateway import make_settings

KEY = "a-key-that-nobody-may-see"


async def test_a_backend_that_answers_is_exit_code_0(simulator: Simulator) -> None:
    done = await run("check", VLLM_URL=simulator.url)

    assert done.code == 0
    assert done.out.endswith(f"\n{simulator.url} is healthy\nserves sim\n")
    assert done.err == ""


async def test_every_setting_is_listed_with_its_value(simulator: Simulator) -> None:
    done = await run("check", VLLM_URL=simulator.url, TIMEOUTS__IDLE_MS="1234")

    rows = [line.split() for line in done.out.split("\n\n")[0].splitlines()[1:]]
    assert [row[0] for row in rows] == [name for name, _, _ in variables()]
    assert ["TIMEOUTS__IDLE_MS", "1234"] in rows


async def test_nobody_at_the_address_is_exit_code_1() -> None:
    done = await run("check", VLLM_URL="http://127.0.0.1:1")

    assert done.code == 1
    assert done.out.endswith("http://127.0.0.1:1 is not healthy\n")
    assert done.err == "NO_HEALTHY_BACKEND: The backend cannot be reached.\n"


async def test_whoever_breaks_off_leaves_no_connections() -> None:
    """Ctrl-C, while the backend is healthy so far and thinks about its models."""
    asked = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()
        writer.close()

    before = sessions()
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        asking = asyncio.create_task(ask_backend(make_settings(f"http://127.0.0.1:{port}")))
        await asked.wait()

        asking.cancel()
        await asyncio.wait([asking])

    assert [session for session in sessions() if session not in before and not session.closed] == []


def sessions() -> list[aiohttp.ClientSession]:
    """Every HTTP session of this process, as far as it is not collected yet; one left open would warn only then."""
    return [found for found in gc.get_objects() if isinstance(found, aiohttp.ClientSession)]


async def test_a_backend_that_is_not_well_is_exit_code_1(simulator: Simulator) -> None:
    simulator.healthy = False

    done = await run("check", VLLM_URL=simulator.url)

    assert done.code == 1
    assert f"{simulator.url} is not healthy\n" in done.out


async def test_a_backend_that_refuses_our_key_is_exit_code_1() -> None:
    async with Simulator(Options(api_key="another")) as guarded:
        done = await run("check", VLLM_URL=guarded.url, VLLM_API_KEY=KEY)

    assert done.code == 1
    assert done.err.startswith("BACKEND_REFUSED: ")


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
async def test_a_key_is_used_and_never_shown(form: tuple[str, ...]) -> None:
    async with Simulator(Options(api_key=KEY)) as guarded:
        done = await run("check", *form, VLLM_URL=guarded.url, VLLM_API_KEY=KEY)

    assert done.code == 0
    assert "VLLM_API_KEY" in done.out
    assert KEY not in done.out + done.err


async def test_json_has_the_settings_and_the_findings(simulator: Simulator) -> None:
    done = await run("check", "--json", VLLM_URL=simulator.url, PORT="6000")

    found = json.loads(done.out)
    assert found["settings"]["PORT"] == "6000"
    assert found["backend"] == {
        "url": simulator.url,
        "answers": True,
        "healthy": True,
        "models": ["sim"],
        "error": None,
    }


async def test_a_default_model_that_is_not_served_is_said(simulator: Simulator) -> None:
    done = await run("check", VLLM_URL=simulator.url, DEFAULT_MODEL="llama")

    assert done.code == 0
    assert done.err == "DEFAULT_MODEL: llama is not served\n"


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
def test_wrong_settings_are_exit_code_2(form: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, ["check", *form], env={"PORT": "70000"})

    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("PORT: ")
