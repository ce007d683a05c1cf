# SPDX-License-Identifier: Apache-2.0
"""Asks a gateway how it is, as probes do."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def status_of(channel: grpc.aio.Channel, name: str) -> int:
    """What Check says of a name."""
    stub: Any = health_pb2_grpc.HealthStub(channel)  # the package's types know no aio
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
    return int(answer.status)


async def becomes(channel: grpc.aio.Channel, name: str, status: int) -> None:
    """Watch a name until it has a status."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=name))
    async with asyncio.timeout(20):
        while (await watch.read()).status != status:
            pass
    watch.cancel()


@asynccontextmanager
async def always_serving(channel: grpc.aio.Channel, *names: str, every: float = 0.05) -> AsyncIterator[list[int]]:
    """Asks for these names again and again meanwhile; gives what was said."""
    said = [await status_of(channel, name) for name in names]

    async def ask() -> None:
        while True:
            await asyncio.sleep(every)
            said.extend([await status_of(channel, name) for name in names])

    asking = asyncio.create_task(ask())
    try:
        yield said
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert set(said) == {SERVING}
