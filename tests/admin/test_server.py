# SPDX-License-Identifier: Apache-2.0
"""The operator's port: beside the callers' one, like it in everything else, and closed with it."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from llm_gateway.server import PortInUseError
from llm_gateway.v1 import admin_service_pb2, admin_service_pb2_grpc, llm_service_pb2_grpc
from llm_gateway.v1 import llm_service_pb2 as pb
from tests.cli.program import Program, run
from tests.kit.gateway import NO_BACKEND, failure_of, start_gateway
from tests.kit.operating import LOOPBACK

if TYPE_CHECKING:
    from tests.kit.operating import Operated

SERVICE = "llm_gateway.v1.AdminService"


async def test_each_service_is_on_its_own_port_only(operated: Operated) -> None:
    callers, operators = operated.gateway.channel, operated.channel
    strayed: list[Any] = [
        admin_service_pb2_grpc.AdminServiceStub(callers).GetStatus(admin_service_pb2.GetStatusRequest()),
        llm_service_pb2_grpc.LLMServiceStub(operators).ListModels(pb.ListModelsRequest()),
    ]

    assert [await call.code() for call in strayed] == [grpc.StatusCode.UNIMPLEMENTED] * 2


async def test_it_listens_on_loopback_and_nowhere_else(operated: Operated) -> None:
    port = int(operated.address.rpartition(":")[2])

    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.2", port)


async def test_it_describes_itself(operated: Operated) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(cast("Any", operated.channel))
    call = stub.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    await call.done_writing()
    listed = await call.read()

    assert {service.name for service in listed.list_services_response.service} == {
        SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection",
    }  # fmt: skip


async def test_it_answers_probes(operated: Operated) -> None:
    stub: Any = health_pb2_grpc.HealthStub(operated.channel)
    found = await stub.Check(health_pb2.HealthCheckRequest(service="readiness"))

    assert found.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("method", ["GetStatus", "WatchStatus", "CancelStream"])
@pytest.mark.parametrize(
    ("data", "reason"), [(b"\xff", "INVALID_REQUEST"), (b"\x00" * 5000, "MESSAGE_TOO_LARGE")], ids=["broken", "large"]
)
async def test_what_is_no_request_gets_a_typed_error(operated: Operated, method: str, data: bytes, reason: str) -> None:
    channel: Any = operated.channel
    path = f"/{SERVICE}/{method}"
    answer = channel.unary_stream(path)(data).read() if method == "WatchStatus" else channel.unary_unary(path)(data)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer

    assert failure_of(caught.value).reason == reason


@pytest.mark.parametrize("group", ["admin", "metrics"])
async def test_a_port_that_is_taken_ends_the_start(group: str) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        beside: dict[str, Any] = {group: {"enabled": True, "port": port, "host": LOOPBACK}}
        with pytest.raises(PortInUseError, match=f"127.0.0.1:{port}") as caught:
            async with start_gateway(NO_BACKEND, **beside):
                pass

    assert caught.value.setting == f"{group.upper()}__PORT"


async def test_which_setting_chooses_another_port_is_said() -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        done = await run("serve", PORT="0", ADMIN__ENABLED="true", ADMIN__PORT=str(port), LOG_LEVEL="warning")

    assert done.code == 1
    assert (
        done.err == f"cannot listen on 127.0.0.1:{port}; is another gateway running? ADMIN__PORT chooses another port\n"
    )


async def test_both_ports_are_closed_with_the_gateway(operated: Operated) -> None:
    server = operated.gateway.server
    assert server.admin is not None
    assert server.metrics is not None

    await server.drain()

    for port in (server.admin.port, server.metrics.port):
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(LOOPBACK, port)


async def test_an_open_scrape_does_not_delay_the_end(operated: Operated) -> None:
    assert operated.gateway.server.metrics is not None
    _, writer = await asyncio.open_connection(LOOPBACK, operated.gateway.server.metrics.port)
    writer.write(b"GET /metr")

    async with asyncio.timeout(10):
        await operated.gateway.server.drain()
    writer.close()


async def test_a_process_shows_itself_while_it_drains() -> None:
    env = {"PORT": "0", "SERVER__HOST": LOOPBACK, "ADMIN__ENABLED": "true", "ADMIN__PORT": "0"}
    async with Program("serve", env=env | {"SERVER__DRAIN_DELAY_MS": "60000"}) as gateway:
        line = await gateway.until('"listening"')
        address = line.split('"listening for the operator"')[1].split('"address":"')[1].split('"')[0]
        gateway.terminate()
        await gateway.until('"draining"')
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = admin_service_pb2_grpc.AdminServiceStub(channel)
            status = (await stub.GetStatus(admin_service_pb2.GetStatusRequest())).status
        gateway.terminate()

        assert await gateway.exit_code() == 0
        assert status.phase == admin_service_pb2.GatewayStatus.PHASE_DRAINING


async def test_nothing_but_metrics_is_served_to_prometheus(operated: Operated) -> None:
    assert operated.gateway.server.metrics is not None
    port = operated.gateway.server.metrics.port
    async with aiohttp.ClientSession() as session, session.get(f"http://{LOOPBACK}:{port}/") as response:
        assert response.status == 404
