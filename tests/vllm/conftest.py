# SPDX-License-Identifier: Apache-2.0
"""A real vLLM for the whole run with a gateway in front of it for each test, and another one that tests may harm."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llm_gateway.v1 import llm_service_pb2, message_pb2
from tests.kit.gateway import RunningGateway, start_gateway
from tests.vllm.asking import GREEDY, TOKENS, story, stream_of
from tests.vllm.harm import Asked, Histories
from tests.vllm.server import OwnVllm, Vllm, own_vllm, real_vllm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SECONDS = 120


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test some time of its own; the set-up of a vLLM, which may be installed first, has its own bounds."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.timeout(SECONDS, func_only=True))


@pytest.fixture(scope="session")
def vllm() -> Iterator[Vllm]:
    """A real vLLM."""
    with real_vllm() as running:
        yield running


@pytest.fixture(scope="session")
def own() -> Iterator[OwnVllm]:
    """A vLLM of ours that was told to start, and that generates for one request at a time: others wait in it."""
    if os.environ.get("VLLM_URL"):
        pytest.skip("VLLM_URL names a server that is not ours to harm")
    with own_vllm("victim", "--max-num-seqs", "1") as own:
        yield own


@pytest.fixture(scope="session")
async def asked(own: OwnVllm, vllm: Vllm) -> Asked:
    """The vLLM that tests may harm, and one that stands by: both start at the same time."""
    async with start_gateway(vllm.url) as gateway:
        outcome = await stream_of(gateway, story(max_tokens=TOKENS, ignore_eos=True, **GREEDY))
    return Asked(own, vllm, outcome.text())


@pytest.fixture(scope="session")
def histories(asked: Asked) -> Histories:
    """What callers saw of each harm that was done to it."""
    return Histories(asked)


@pytest.fixture
async def victim(asked: Asked) -> Vllm:
    """The vLLM that tests may harm, well and idle."""
    await asked.well()
    return asked.victim.vllm


@pytest.fixture
async def gateway(vllm: Vllm) -> AsyncIterator[RunningGateway]:
    """A gateway in front of the real vLLM."""
    async with start_gateway(vllm.url) as running:
        yield running


@pytest.fixture
async def tools(vllm: Vllm) -> list[message_pb2.Tool]:
    """A function to be called, where the server reads calls at all."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    ask = {"messages": [{"role": "user", "content": "x"}], "tools": [tool], "tool_choice": "auto", "max_tokens": 1}
    status, _ = await vllm.post("/v1/chat/completions", ask)
    if status != 200:
        pytest.skip("this vLLM was started without --enable-auto-tool-choice and --tool-call-parser")
    schema = """{"type": "object", "properties": {"unit": {"type": "string", "enum": ["c", "f"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["unit", "days"],
        "additionalProperties": false}"""
    return [message_pb2.Tool(name="get_weather", description="Tells the weather.", parameters=schema, strict=True)]


@pytest.fixture
async def context_length(gateway: RunningGateway) -> int:
    """How many tokens a prompt and its answer may have."""
    listed = await gateway.stub.ListModels(llm_service_pb2.ListModelsRequest())
    return listed.models[0].context_length
