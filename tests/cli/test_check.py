# SPDX-License-Identifier: Apache-2.0
"""`llm-gateway check`: the settings in force, the models, and which of their backends answer."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from typer.testing import CliRunner

from llm_gateway.app import model_specs
from llm_gateway.cli import app
from llm_gateway.cli.asking import ask_all
from llm_gateway.settings import variables
from llm_gateway.simulator import Options, Simulator
from tests.cli.program import Finished, run
from tests.kit.gateway import config_file, make_settings
from tests.kit.statuses import StatusServer

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY = "a-key-that-nobody-may-see"
NOBODY = "http://127.0.0.1:1"


def rows(done: Finished) -> list[list[str]]:
    """The cells of the table of models, as far as they are not empty, without its headings."""
    return [line.split() for line in done.out.split("\n\n")[1].splitlines()[1:]]


async def check(*models: Mapping[str, Any], arguments: tuple[str, ...] = (), **env: Any) -> Finished:
    """Check a CONFIG_FILE with these models."""
    with config_file(models) as path:
        return await run("check", *arguments, CONFIG_FILE=str(path), **env)


async def test_a_backend_that_answers_is_exit_code_0(simulator: Simulator) -> None:
    done = await run("check", VLLM_URL=simulator.url)

    assert (done.code, done.err) == (0, "")
    assert rows(done) == [["any", "vllm", "vllm", simulator.url, "0", "1", "yes", "sim"]]


async def test_every_setting_is_listed_with_its_value(simulator: Simulator) -> None:
    done = await run("check", VLLM_URL=simulator.url, TIMEOUTS__IDLE_MS="1234")

    rows = [line.split() for line in done.out.split("\n\n")[0].splitlines()[1:]]
    assert [row[0] for row in rows] == [name for name, _, _ in variables()]
    assert ["TIMEOUTS__IDLE_MS", "1234"] in rows


async def test_nobody_at_the_address_is_exit_code_1() -> None:
    done = await run("check", VLLM_URL=NOBODY)

    assert done.code == 1
    assert rows(done) == [["any", "vllm", "vllm", NOBODY, "0", "1", "no"]]
    assert done.err.splitlines() == [
        f"vllm at {NOBODY}: NO_HEALTHY_BACKEND: The backend cannot be reached.",
        "any model: no backend that gets calls answers",
    ]


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
        settings = make_settings(f"http://127.0.0.1:{port}")
        asking = asyncio.ensure_future(ask_all(model_specs(settings), settings))
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
    assert f"vllm at {simulator.url}: it is down\n" in done.err


@pytest.mark.parametrize("well", [{}, {"/health": 200}], ids=["about its health", "about its models"])
async def test_a_backend_that_says_nothing_is_waited_for_as_long_as_a_probe(well: Mapping[str, int]) -> None:
    async with StatusServer(None, others=well) as silent:
        done = await run("check", VLLM_URL=silent.url, HEALTH__PROBE_TIMEOUT_MS="100")

    assert done.code == 1
    assert ": it did not answer within 0.1 s (HEALTH__PROBE_TIMEOUT_MS)\n" in done.err


async def test_the_words_of_a_backend_do_not_reach_the_terminal_as_its_commands() -> None:
    async with StatusServer(200, {"data": [{"id": "\x1b[31mred\x1b]0;title\x07"}]}) as server:
        done = await check({"name": "m", "backends": [{"name": "a", "url": server.url}]})

    assert rows(done)[0][-1] == "[31mred]0;title"
    assert "\x1b" not in done.err


async def test_a_backend_that_refuses_our_key_is_exit_code_1() -> None:
    async with Simulator(Options(api_key="another")) as guarded:
        done = await run("check", VLLM_URL=guarded.url, VLLM_API_KEY=KEY)

    assert done.code == 1
    assert done.err.startswith(f"vllm at {guarded.url}: BACKEND_REFUSED: ")


async def test_every_address_of_every_backend_is_asked_and_one_is_enough(simulator: Simulator) -> None:
    port = simulator.url.rpartition(":")[2]
    done = await check(
        {
            "name": "llama",
            "aliases": ["chat", "other"],
            "backends": [
                {"name": "a", "url": [NOBODY, simulator.url], "model": "sim"},
                {"name": "b", "url": f"dns+http://127.0.0.1:{port}", "priority": 2, "weight": 3, "dialect": "generic"},
            ],
        }
    )

    assert done.code == 0
    assert rows(done) == [
        ["llama", "chat,", "other", "a", "vllm", NOBODY, "0", "1", "no"],
        ["llama", "chat,", "other", "a", "vllm", simulator.url, "0", "1", "yes", "sim"],
        ["llama", "chat,", "other", "b", "generic", simulator.url, "2", "3", "yes", "sim"],
    ]
    assert f"b at {simulator.url}: it does not list llama among its models\n" in done.err


async def test_a_model_without_a_backend_that_answers_is_exit_code_1(simulator: Simulator) -> None:
    done = await check(
        {"name": "sim", "backends": [{"name": "a", "url": simulator.url}]},
        {
            "name": "llama",
            "backends": [
                {"name": "a", "url": NOBODY},
                {"name": "b", "url": simulator.url, "model": "sim", "weight": 0},
            ],
        },
    )

    assert done.code == 1
    assert done.err.endswith("\nllama: no backend that gets calls answers\n")
    assert [row[-1] for row in rows(done)] == ["sim", "no", "sim"]


async def test_a_backend_that_lists_no_models_answers_all_the_same() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        done = await check({"name": "m", "backends": [{"name": "a", "url": url, "dialect": "generic"}]})

    assert (done.code, done.err) == (0, "")


async def test_a_name_that_nobody_knows_is_said() -> None:
    done = await check({"name": "m", "backends": [{"name": "a", "url": "dns+http://nowhere.invalid:8000"}]})

    assert done.code == 1
    assert "a at http://nowhere.invalid:8000: nobody knows an address behind this name\n" in done.err


async def test_a_file_that_is_wrong_is_exit_code_2() -> None:
    done = await check({"name": "m", "backend": []})

    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines() == [
        "models[0].backends (line 1): is missing",
        "models[0].backend (line 1): there is no such field; did you mean backends?",
    ]


async def test_a_default_model_that_the_file_does_not_have_is_exit_code_2(simulator: Simulator) -> None:
    done = await check({"name": "sim", "backends": [{"name": "a", "url": simulator.url}]}, DEFAULT_MODEL="llama")

    assert (done.code, done.err) == (2, "DEFAULT_MODEL: is not among the models of CONFIG_FILE\n")


async def test_a_file_goes_before_the_address_and_that_is_said(simulator: Simulator) -> None:
    done = await check({"name": "sim", "backends": [{"name": "a", "url": simulator.url}]}, VLLM_URL=NOBODY)

    assert (done.code, done.err) == (0, "VLLM_URL: is not used, for CONFIG_FILE names the backends\n")


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
async def test_a_key_that_the_file_names_is_used_and_never_shown(form: tuple[str, ...]) -> None:
    async with Simulator(Options(api_key=KEY)) as guarded:
        entry = {"name": "a", "url": guarded.url, "api_key_env": "SOME_KEY"}
        done = await check({"name": "sim", "backends": [entry]}, arguments=form, SOME_KEY=KEY)

    assert done.code == 0
    assert KEY not in done.out + done.err


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
async def test_a_key_is_used_and_never_shown(form: tuple[str, ...]) -> None:
    async with Simulator(Options(api_key=KEY)) as guarded:
        done = await run("check", *form, VLLM_URL=guarded.url, VLLM_API_KEY=KEY)

    assert done.code == 0
    assert "VLLM_API_KEY" in done.out
    assert KEY not in done.out + done.err


async def test_json_has_the_settings_and_the_findings(simulator: Simulator) -> None:
    entry = {"name": "a", "url": simulator.url, "model": "llama"}
    done = await check({"name": "m", "backends": [entry]}, arguments=("--json",), PORT="6000")

    found = json.loads(done.out)
    assert found["settings"]["PORT"] == "6000"
    assert found["notes"] == []
    assert len(found["config_version"]) == 12
    backend = {
        "name": "a",
        "dialect": "vllm",
        "url": simulator.url,
        "model": "llama",
        "tier": 0,
        "weight": 1,
        "answers": True,
        "readiness": "ready",
        "models": ["sim"],
        "faults": ["it does not list llama among its models"],
    }
    assert found["models"] == [{"name": "m", "aliases": [], "answers": True, "backends": [backend]}]


async def test_a_default_model_that_is_not_served_is_said(simulator: Simulator) -> None:
    done = await run("check", VLLM_URL=simulator.url, DEFAULT_MODEL="llama")

    assert done.code == 0
    assert done.err == "DEFAULT_MODEL: llama is not served\n"


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
def test_wrong_settings_are_exit_code_2(form: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, ["check", *form], env={"PORT": "70000"})

    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("PORT: ")
