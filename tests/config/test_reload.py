# SPDX-License-Identifier: Apache-2.0
"""A running gateway heeds its CONFIG_FILE."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from llm_gateway.v1.llm_service_pb2 import ListModelsRequest
from tests.kit.gateway import NO_BACKEND, config_file, start_gateway
from tests.kit.logs import captured_logs

if TYPE_CHECKING:
    from pathlib import Path

    from llm_gateway.simulator import Simulator
    from tests.kit.gateway import RunningGateway

PATIENCE = 20.0


def entry(name: str, url: str) -> dict[str, Any]:
    return {"name": name, "backends": [{"name": "a", "url": url, "model": "sim"}]}


def put(path: Path, text: str) -> None:
    """As an editor does it: whole, in one step."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.rename(path)


async def served(gateway: RunningGateway) -> list[str]:
    listed = await gateway.stub.ListModels(ListModelsRequest())
    return [model.name for model in listed.models]


async def until_served(gateway: RunningGateway, *names: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while await served(gateway) != [*names]:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.002)


async def test_what_is_right_is_served_and_what_is_wrong_changes_nothing(simulator: Simulator) -> None:
    with config_file([entry("first", simulator.url)]) as path, captured_logs() as logs:
        async with start_gateway(NO_BACKEND, config_file=path, config_poll_interval_ms=1) as gateway:
            assert await served(gateway) == ["first"]

            put(path, json.dumps({"models": [entry("second", simulator.url), entry("third", simulator.url)]}))
            await until_served(gateway, "second", "third")
            put(path, json.dumps({"models": []}))
            async with asyncio.timeout(PATIENCE):
                while "is wrong" not in logs.text:  # noqa: ASYNC110 - nobody tells of it
                    await asyncio.sleep(0.002)

            assert await served(gateway) == ["second", "third"]
