# SPDX-License-Identifier: Apache-2.0
"""What a backend that refuses connections costs a caller, whose call goes to another one before its first token."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

from tests.bench import processes
from tests.bench.grpc_client import GrpcClient
from tests.bench.streams import MODEL, Ask
from tests.bench.workloads import in_turns
from tests.kit.sockets import closed_port

WHOLE, HALF = "whole", "half"
"""Two models of one gateway: one backend that works; one that refuses, and that one as its fallback."""
FILE = "failover.json"
WARM_TURNS = 10
AGAIN_AND_AGAIN: Final = {
    # Every call is to meet the refusal, not the first few only.
    "EJECTION__LOCAL_FAILURES": "1000000",
    "EJECTION__ANSWER_FAILURES": "1000000",
    "RETRY__BUDGET_FLOOR": "1000000",
    "RETRY__BUDGET_PERCENT": "100",
    "HEALTH__PROBE_INTERVAL_MS": "86400000",
    "HEALTH__LOAD_INTERVAL_MS": "0",
}


@dataclass(frozen=True, slots=True)
class Failover:
    """Seconds to the first token, calls in turns."""

    alone: list[float]
    """In front of the good backend alone."""
    refused: list[float]
    """Of calls that met the refusal first."""


async def failover(*, turns: int) -> Failover:
    """Measure calls of both kinds."""
    async with AsyncExitStack() as stack:
        refusing = stack.enter_context(closed_port())
        backend = stack.enter_context(processes.simulator())
        file = stack.enter_context(processes.scratch_folder()) / FILE
        file.write_text(json.dumps(configuration(backend.url, f"http://127.0.0.1:{refusing}")))
        gateway = stack.enter_context(processes.gateway_with(file, AGAIN_AND_AGAIN))
        client = GrpcClient(gateway.port)
        stack.push_async_callback(client.close)
        callers = [(client, Ask(2, model=WHOLE)), (client, Ask(2, model=HALF))]
        await in_turns(callers, turns=WARM_TURNS)
        alone, refused = await in_turns(callers, turns=turns)
    rescued = sum(stream.attempts == 2 for stream in refused)
    if rescued != turns or any(stream.attempts != 1 for stream in alone):
        raise RuntimeError(f"only {rescued} of {turns} calls met the refusal, and once: nothing was measured")
    return Failover(*([stream.first_token for stream in streams] for streams in (alone, refused)))


def configuration(good: str, bad: str) -> dict[str, Any]:
    """The models' file, in the part of YAML that is JSON."""
    working = {"name": "good", "dialect": "vllm", "url": good, "model": MODEL}
    refusing = {"name": "bad", "dialect": "vllm", "url": bad, "model": MODEL, "priority": 0}
    fallback = working | {"name": "fallback", "priority": 1}
    return {"models": [{"name": WHOLE, "backends": [working]}, {"name": HALF, "backends": [refusing, fallback]}]}
