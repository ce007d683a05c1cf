# SPDX-License-Identifier: Apache-2.0
"""A running gateway heeds its CONFIG_FILE."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from llm_gateway.simulator import Behaviour, Fault
from llm_gateway.v1.llm_service_pb2 import ListModelsRequest
from tests.kit.calls import stream, until
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


async def test_who_waits_for_a_seat_gets_one_of_those_that_a_model_is_given(simulator: Simulator) -> None:
    simulator.script(*[Behaviour(fault=Fault.STALL, after=1)] * 3)
    with config_file([entry("llama", simulator.url) | {"max_in_flight": 1}]) as path:
        async with start_gateway(NO_BACKEND, config_file=path, config_poll_interval_ms=1) as gateway:
            calls = [asyncio.create_task(stream(gateway)) for _ in range(3)]
            await until(lambda: gateway.server.queued == 2)
            put(path, json.dumps({"models": [entry("llama", simulator.url) | {"max_in_flight": 3}]}))
            await until(lambda: gateway.server.in_flight == 3)
            queued = gateway.server.queued
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

            assert queued == 0
