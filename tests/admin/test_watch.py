# SPDX-License-Identifier: Apache-2.0
"""WatchStatus: again and again, until the caller leaves or the gateway ends; and nobody waits for who does not read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from llm_gateway.codec.status import decode_watch
from llm_gateway.v1 import admin_service_pb2
from tests.kit.gateway import failure_of
from tests.kit.http2 import Kind, http2_client

if TYPE_CHECKING:
    from tests.kit.operating import Operated

SERVING, DRAINING = admin_service_pb2.GatewayStatus.PHASE_SERVING, admin_service_pb2.GatewayStatus.PHASE_DRAINING


def watching(operated: Operated, milliseconds: int = 100) -> Any:
    """A watch under way."""
    request = admin_service_pb2.WatchStatusRequest()
    request.interval.FromMilliseconds(milliseconds)
    return operated.admin.WatchStatus(request)


async def test_the_status_comes_at_once_and_then_again(operated: Operated) -> None:
    watch = watching(operated)
    async with asyncio.timeout(10):
        first, second = await watch.read(), await watch.read()
    watch.cancel()

    assert first.status.phase == second.status.phase == SERVING
    assert second.status.uptime.ToMilliseconds() - first.status.uptime.ToMilliseconds() >= 99


def test_without_an_interval_it_is_a_second() -> None:
    assert decode_watch(b"") == 1.0


@pytest.mark.parametrize("seconds", [0, 0.099, -1, 3601])
async def test_an_interval_that_is_too_short_or_too_long_is_refused(operated: Operated, seconds: float) -> None:
    watch = watching(operated, round(1000 * seconds))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watch.read()

    failure = failure_of(caught.value)
    assert (failure.code, failure.violations) == (grpc.StatusCode.INVALID_ARGUMENT, ["interval"])


async def test_it_ends_well_with_the_gateway_and_its_last_word_is_the_drain(operated: Operated) -> None:
    watch = watching(operated, 3_600_000)
    assert (await watch.read()).status.phase == SERVING

    async with asyncio.timeout(10):
        assert await operated.gateway.server.drain() == 0

    assert (await watch.read()).status.phase == DRAINING
    assert await watch.read() is grpc.aio.EOF
    assert await watch.code() is grpc.StatusCode.OK


async def test_who_does_not_read_holds_up_neither_others_nor_the_end(operated: Operated) -> None:
    assert operated.gateway.server.admin is not None
    async with http2_client(operated.gateway.server.admin.port) as deaf:
        deaf.accept_no_data()
        deaf.call("/llm_gateway.v1.AdminService/WatchStatus", admin_service_pb2.WatchStatusRequest())
        await deaf.receive_until(Kind.HEADERS)

        async with asyncio.timeout(10):
            status = await operated.status()
            exit_code = await operated.gateway.server.drain()

    assert (status.phase, exit_code) == (SERVING, 0)
