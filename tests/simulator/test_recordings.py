# SPDX-License-Identifier: Apache-2.0
"""Every recorded request, replayed, gives the answer that vLLM gave, but for ids, times and the model's words."""

from __future__ import annotations

import pytest
from aiohttp import ClientSession

from llm_gateway.simulator import Options, Simulator
from tests.simulator import recorded
from tests.simulator.masking import masked
from tests.simulator.recorded import Exchange

_ALL = [(folder, name) for folder in recorded.OPTIONS for name in recorded.names(folder)]


def _options(folder: str, name: str) -> Options:
    return recorded.FORCED_USAGE if name == "force_usage" else recorded.OPTIONS[folder]


async def _replay(simulator: Simulator, folder: str, name: str) -> Exchange:
    sent = recorded.request(folder, name)
    async with ClientSession() as session:
        url = simulator.url + sent.path
        async with session.request(sent.method, url, headers=sent.headers, data=sent.body) as response:
            headers = {key.lower(): value for key, value in response.headers.items()}
            return Exchange(name, response.status, headers, await response.read())


@pytest.mark.parametrize(("folder", "name"), _ALL, ids=lambda value: value)
async def test_a_replayed_request_is_answered_as_vllm_answered_it(folder: str, name: str) -> None:
    async with Simulator(_options(folder, name)) as simulator:
        replayed = await _replay(simulator, folder, name)

    assert masked(recorded.answer(folder, name)) == masked(replayed)
