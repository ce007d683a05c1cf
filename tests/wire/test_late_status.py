# SPDX-License-Identifier: Apache-2.0
"""A status that comes when its caller has just left."""

from __future__ import annotations

import asyncio
import json
import random
from typing import TYPE_CHECKING

import grpc

from tests.kit.calls import chat_request
from tests.kit.gateway import stub_of
from tests.kit.processes import gateway_process

if TYPE_CHECKING:
    from llm_gateway.simulator import Simulator

ROUNDS, AT_ONCE = 8, 40


async def test_a_status_for_which_nobody_waits_any_more_is_no_bug(simulator: Simulator) -> None:
    """Ours leaves just before the deadline, at which gRPC ends the call itself: in another process, they meet."""
    async with gateway_process(simulator.url, SERVER__DRAIN_DELAY_MS="0") as gateway, stub_of(gateway.address) as stub:

        async def ask() -> grpc.StatusCode:
            request = chat_request("[[sim fault=stall]]")
            return await stub.ChatCompletionStream(request, timeout=random.uniform(0.02, 0.2)).code()

        for _ in range(ROUNDS):
            assert {*await asyncio.gather(*(ask() for _ in range(AT_ONCE)))} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        await simulator.wait_for(lambda now: now.running == now.waiting == 0)
        lines = (await gateway.rest()).splitlines()

    records = [json.loads(line) for line in lines if line.startswith("{")]
    assert [record for record in records if record["level"] == "ERROR"] == []
    assert "DEADLINE_EXCEEDED" in {record.get("status") for record in records}
