# SPDX-License-Identifier: Apache-2.0
"""A gateway as its operator has it: with AdminService and /metrics beside it, each on a free port."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
from prometheus_client.parser import text_string_to_metric_families

from llm_gateway.v1 import admin_service_pb2, admin_service_pb2_grpc
from tests.kit.calls import chat_request
from tests.kit.gateway import start_gateway, start_gateway_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from prometheus_client import Metric

    from llm_gateway.v1.admin_service_pb2 import GatewayStatus
    from tests.kit.gateway import RunningGateway

LOOPBACK = "127.0.0.1"
BESIDE: dict[str, Any] = {
    "admin": {"enabled": True, "port": 0},
    "metrics": {"enabled": True, "port": 0, "host": LOOPBACK},
}


@dataclass(frozen=True, slots=True)
class Operated:
    """A gateway under test, and its operator's means."""

    gateway: RunningGateway
    channel: grpc.aio.Channel
    admin: admin_service_pb2_grpc.AdminServiceAsyncStub

    @property
    def address(self) -> str:
        """AdminService's."""
        assert self.gateway.server.admin is not None
        return f"{LOOPBACK}:{self.gateway.server.admin.port}"

    async def status(self) -> GatewayStatus:
        return (await self.admin.GetStatus(admin_service_pb2.GetStatusRequest())).status

    async def when(self, condition: Callable[[GatewayStatus], object]) -> GatewayStatus:
        """The first status of which a condition holds."""
        async with asyncio.timeout(10):
            while not condition(status := await self.status()):  # noqa: ASYNC110 - of whose coming nobody tells
                await asyncio.sleep(0.005)
        return status

    async def cancel(self, request_id: str) -> admin_service_pb2.CancelStreamResponse:
        return await self.admin.CancelStream(admin_service_pb2.CancelStreamRequest(request_id=request_id))

    async def scrape(self) -> dict[str, Metric]:
        """The metrics by the names of their samples, as Prometheus reads them."""
        return metrics_on(await metrics_page(self.gateway))

    def call(self, request_id: str = "r-1", prompt: str = "hello", **fields: Any) -> Any:
        """A stream under way, with an id of its own; `fields` are the request's."""
        request = chat_request(prompt)
        for name, value in fields.items():
            setattr(request, name, value)
        metadata = (("x-request-id", request_id),)
        return self.gateway.stub.ChatCompletionStream(request, timeout=60, metadata=metadata)


async def metrics_page(gateway: RunningGateway) -> str:
    """What Prometheus would be given now."""
    assert gateway.server.metrics is not None
    url = f"http://{LOOPBACK}:{gateway.server.metrics.port}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return await response.text()


def metrics_on(page: str) -> dict[str, Metric]:
    """The metrics of a page by the names of their samples."""
    families = text_string_to_metric_families(page)
    return {f"{family.name}_total" if family.type == "counter" else family.name: family for family in families}


@asynccontextmanager
async def operate(url: str, **overrides: Any) -> AsyncIterator[Operated]:
    """A gateway in front of `url`; `overrides` are settings."""
    async with start_gateway(url, **(BESIDE | overrides)) as gateway, _means(gateway) as operated:
        yield operated


@asynccontextmanager
async def operate_models(models: Sequence[Mapping[str, Any]], **overrides: Any) -> AsyncIterator[Operated]:
    """A gateway with the models of a CONFIG_FILE."""
    async with start_gateway_of(models, **(BESIDE | overrides)) as gateway, _means(gateway) as operated:
        yield operated


@asynccontextmanager
async def _means(gateway: RunningGateway) -> AsyncIterator[Operated]:
    assert gateway.server.admin is not None
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{gateway.server.admin.port}") as channel:
        yield Operated(gateway, channel, admin_service_pb2_grpc.AdminServiceStub(channel))
