# SPDX-License-Identifier: Apache-2.0
"""`llm-gateway simulate` from its start to its exit code; what it answers is tested in tests/simulator."""

from __future__ import annotations

import re
import signal
import socket
from http import HTTPStatus
from typing import Any

import pytest
from aiohttp import ClientSession

from tests.cli.program import Program, run

LISTENING = re.compile(r"listens on (http://127\.0\.0\.1:\d+), models: (.*)\n")
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}


async def listening(program: Program) -> tuple[str, str]:
    """The address and the models that a simulator says it has."""
    said = LISTENING.search(await program.until("\n"))
    assert said is not None
    return said[1], said[2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_exit_code_0(number: signal.Signals) -> None:
    async with Program("simulate", "--port", "0") as program:
        assert (await listening(program))[1] == "sim"
        program.send(number)

        assert await program.exit_code() == 0


async def test_after_sigterm_it_finishes_what_runs_and_takes_nothing_new() -> None:
    slow = {**CHAT, "max_tokens": 20, "ignore_eos": True, "stream": True}
    async with (
        Program("simulate", "--port", "0", "--pace-ms", "20", "--shutdown-timeout", "30") as program,
        ClientSession() as session,
    ):
        url, _ = await listening(program)
        running = await session.post(f"{url}/v1/chat/completions", json=slow)
        await running.content.readline()
        program.send(signal.SIGTERM)
        refused = await refusal(session, url)
        whole = await running.text()

        assert refused == "cannot schedule new futures after shutdown"
        assert (whole.count('"content"'), whole.endswith("data: [DONE]\n\n")) == (20, True)
        assert await program.exit_code() == 0


async def refusal(session: ClientSession, url: str) -> str:
    """What a new request is told, once the signal has been heeded."""
    while True:
        response = await session.post(f"{url}/v1/chat/completions", json={**CHAT, "max_tokens": 1})
        if response.status != HTTPStatus.OK:
            return str((await response.json())["error"]["message"])


async def test_a_port_that_is_taken_is_one_line_and_exit_code_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = await run("simulate", "--port", str(port))

    assert done.code == 1
    assert done.err.startswith(f"cannot listen on 127.0.0.1:{port}: ")
    assert done.err.count("\n") == 1


OPTIONS = (
    *("--model", "big", "--model", "small", "--tokens", "7", "--max-model-len", "512", "--vllm-version", "0.32.0"),
    *("--max-num-seqs", "3", "--max-num-queued-reqs", "1", "--ttft-ms", "10", "--pace-ms", "2", "--no-synchronised"),
    *("--tool-parser", "--reasoning-parser", "--request-id-headers", "--prompt-tokens-details"),
    *("--per-request-metrics", "--load-tracking", "--force-include-usage", "--sse-keep-alive-ms", "5000"),
)


async def test_its_options_are_heeded() -> None:
    async with Program("simulate", "--port", "0", *OPTIONS) as program, ClientSession() as session:
        url, models = await listening(program)
        listed = await (await session.get(f"{url}/v1/models")).json()
        version = await (await session.get(f"{url}/version")).json()
        response = await session.post(f"{url}/v1/chat/completions", json=CHAT, headers={"x-request-id": "r-1"})
        answer = await response.json()
        refused = await session.post(f"{url}/v1/chat/completions", json={**CHAT, "n": 2})

    assert models == "big, small"
    assert [(model["id"], model["max_model_len"]) for model in listed["data"]] == [("big", 512), ("small", 512)]
    assert version == {"version": "0.32.0"}
    assert response.headers["x-request-id"] == "r-1"
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0
    assert answer["usage"]["prompt_tokens_details"] is not None
    assert answer["metrics"] is not None
    assert refused.status == 503


async def test_a_key_is_asked_for() -> None:
    async with Program("simulate", "--port", "0", "--api-key", "k") as program, ClientSession() as session:
        url, _ = await listening(program)
        without = await session.get(f"{url}/v1/models")
        with_key = await session.get(f"{url}/v1/models", headers={"authorization": "Bearer k"})

    assert (without.status, with_key.status) == (401, 200)


async def test_a_key_in_the_environment_is_asked_for_too() -> None:
    key = {"VLLM_API_KEY": "k"}
    async with Program("simulate", "--port", "0", env=key) as program, ClientSession() as session:
        url, _ = await listening(program)

        assert (await session.get(f"{url}/v1/models")).status == HTTPStatus.UNAUTHORIZED
