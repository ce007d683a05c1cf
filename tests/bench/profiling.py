# SPDX-License-Identifier: Apache-2.0
"""Where the gateway's time goes: cProfile over one workload, sorted by a function's own time."""

from __future__ import annotations

import pstats
from typing import TYPE_CHECKING, Final

from tests.bench import processes
from tests.bench.grpc_client import GrpcClient
from tests.bench.workloads import Target, paced, requests, unpaced

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from tests.bench.workloads import Cost

FILE = "gateway.pstats"
LINES = 45

WORKLOADS: Final[dict[str, Callable[[Target], Coroutine[Any, Any, Cost]]]] = {
    "paced": lambda target: paced(target, streams=128, seconds=5.0),
    "unpaced": lambda target: unpaced(target, streams=32, tokens=5000),
    "requests": lambda target: requests(target, count=2000),
}


async def profile(workload: str) -> None:
    """Run one workload against a gateway under cProfile, and print what it found."""
    path = processes.SCRATCH / FILE
    processes.settle()
    with processes.simulator() as backend, processes.gateway(backend, profile=path) as gateway:
        client = GrpcClient(gateway.port)
        try:
            cost = await WORKLOADS[workload](Target("gateway", gateway, client))
        finally:
            await client.close()
    statistics = pstats.Stats(str(path))
    statistics.strip_dirs().sort_stats("tottime").print_stats(LINES)
    print(f"{cost.micros:.1f} µs per unit over {cost.units:.0f} units, the profiler's own cost included; {path}")  # noqa: T201 - its output
