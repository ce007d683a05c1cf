# SPDX-License-Identifier: Apache-2.0
"""`llm-gateway models` and `llm-gateway demo`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.cli.program import run
from tests.kit.gateway import start_gateway
from tests.kit.statuses import StatusServer

if TYPE_CHECKING:
    from tests.kit.gateway import RunningGateway


async def test_models_are_a_table(gateway: RunningGateway) -> None:
    done = await run("models", "--address", gateway.address)

    assert done.code == 0
    assert [line.split() for line in done.out.splitlines()] == [
        ["Model", "Aliases", "Context", "Adapts", "Owner", "Default"],
        ["sim", "2,048", "vllm", "yes"],
    ]


async def test_the_words_of_a_backend_do_not_reach_the_terminal_as_its_commands() -> None:
    evil = "\x1b[31mred\x1b]0;title\x07"
    listed = {"data": [{"id": f"{evil}1", "parent": f"{evil}2", "owned_by": f"{evil}3"}]}
    async with StatusServer(200, listed) as server, start_gateway(server.url) as gateway:
        done = await run("models", "--address", gateway.address)

    assert done.out.splitlines()[1].split() == [f"[31mred]0;title{number}" for number in (1, 2, 3)]


async def test_the_address_comes_from_the_workers_environment(gateway: RunningGateway) -> None:
    done = await run("models", "--json", LLM_GATEWAY_ADDR=gateway.address)

    assert done.code == 0
    assert json.loads(done.out) == {
        "models": [{"name": "sim", "context_length": 2048, "owned_by": "vllm", "is_default": True}]
    }


async def test_a_gateway_without_a_backend_is_one_line_and_exit_code_1() -> None:
    async with start_gateway("http://127.0.0.1:1") as lonely:
        done = await run("models", "--address", lonely.address)

    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(
        "UNAVAILABLE NO_HEALTHY_BACKEND: The backend cannot be reached. Try again in 1 s. (request "
    )
    assert done.err.count("\n") == 1
