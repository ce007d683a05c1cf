# SPDX-License-Identifier: Apache-2.0
"""Each option of the server is seen to take effect: gRPC ignores a misspelt one in silence.

What can only be seen by waiting, pings and ages, is in `tests/faults/test_connections.py`.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import grpc
import pytest

from llm_gateway.server import PortInUseError, ServerOptions, channel_options
from llm_gateway.settings import ServerSettings, Settings
from llm_gateway.v1 import llm_service_pb2 as pb
from llm_gateway.v1 import llm_service_pb2_grpc
from tests.kit.calls import chat_request, stream, unary
from tests.kit.gateway import Failure, start_gateway
from tests.kit.http2 import (
    ENHANCE_YOUR_CALM,
    MAX_CONCURRENT_STREAMS,
    MAX_HEADER_LIST_SIZE,
    Kind,
    http2_client,
)
from tests.kit.scripted import DONE, STREAM_HEAD, ScriptedBackend, chunk, usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llm_gateway.simulator import Simulator
    from tests.kit.gateway import RunningGateway

LIMIT = 10_000
SEEN = {
    "grpc.max_receive_message_length", "grpc.max_metadata_size", "grpc.absolute_max_metadata_size",
    "grpc.max_concurrent_streams", "grpc.http2.min_ping_interval_without_data_ms", "grpc.so_reuseport",
}  # fmt: skip
SEEN_BY_WAITING = {
    "grpc.keepalive_time_ms", "grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms",
    "grpc.keepalive_permit_without_calls", "grpc.max_connection_age_ms",
}  # fmt: skip


def test_every_option_has_a_test_that_sees_its_effect() -> None:
    options = {name for name, _ in channel_options(ServerOptions(max_connection_age=1.0))}

    assert options == SEEN | SEEN_BY_WAITING


# -------------------------------------------------------------------------------------------------------------- sizes


def request_of(size: int) -> pb.ChatCompletionRequest:
    """A request of exactly so many bytes."""
    request = chat_request("")
    while (missing := size - request.ByteSize()) > 0:
        request.messages[0].content += "x" * missing
        if request.ByteSize() > size:
            request.messages[0].content = request.messages[0].content[: size - request.ByteSize()]
    assert request.ByteSize() == size
    return request


@pytest.fixture
async def small(simulator: Simulator) -> AsyncIterator[RunningGateway]:
    """A gateway that takes small requests."""
    async with start_gateway(simulator.url, server={"max_message_bytes": LIMIT}) as running:
        yield running


async def test_a_request_as_large_as_the_limit_is_taken(small: RunningGateway) -> None:
    """It is the backend that finds it too long."""
    call = small.stub.ChatCompletion(request_of(LIMIT))

    assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_larger_request_is_refused_with_the_details(small: RunningGateway) -> None:
    failure = await unary(small, "x" * LIMIT)

    assert isinstance(failure, Failure)
    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    assert str(LIMIT) in failure.message


async def test_a_request_of_more_than_twice_the_limit_is_refused_by_grpc_itself(small: RunningGateway) -> None:
    """Nobody reads such a one, so that there are no details."""
    call = small.stub.ChatCompletion(request_of(2 * LIMIT + 1))

    assert await call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "grpc-status-details-bin" not in dict(await call.trailing_metadata())


async def test_an_answer_may_be_larger_than_a_request() -> None:
    """The logprobs of a long answer are large. gRPC's default has no limit for what is sent: none may be set."""
    script = [STREAM_HEAD, chunk("x" * 3_000_000, finish="stop"), usage(1, 1), DONE]
    settings = {"max_message_bytes": LIMIT}
    async with ScriptedBackend(script) as backend, start_gateway(backend.url, server=settings) as gateway:
        outcome = await stream(gateway)

    assert len(outcome.text()) == 3_000_000


async def test_metadata_is_taken_up_to_the_limit_and_never_beyond(simulator: Simulator) -> None:
    """Between gRPC's soft and hard limit, a call is refused at random; equal ones leave nothing between."""
    limit = 20_000
    async with start_gateway(simulator.url, server={"max_metadata_bytes": limit}) as gateway:
        taken = await asyncio.gather(*(code_with(gateway, limit - 1_500) for _ in range(20)))
        refused = await asyncio.gather(*(code_with(gateway, limit + 100) for _ in range(20)))

    assert set(taken) == {grpc.StatusCode.OK}
    assert set(refused) == {grpc.StatusCode.RESOURCE_EXHAUSTED}


async def code_with(gateway: RunningGateway, size: int) -> grpc.StatusCode:
    """The status of a call that carries so many bytes of metadata, and what gRPC adds."""
    call = gateway.stub.ListModels(pb.ListModelsRequest(), metadata=(("x-padding", "x" * size),))
    code: grpc.StatusCode = await call.code()
    return code


async def test_the_connection_is_offered_with_its_limits(simulator: Simulator) -> None:
    server = {"max_concurrent_streams": 77, "max_metadata_bytes": 5_000}
    async with start_gateway(simulator.url, server=server) as gateway, http2_client(gateway.server.port) as client:
        settings = (await client.receive_until(Kind.SETTINGS)).settings

    assert settings[MAX_CONCURRENT_STREAMS] == 77
    assert settings[MAX_HEADER_LIST_SIZE] == 5_000


def largest() -> dict[str, int]:
    """The largest value of each number among the server's settings; one without is a KeyError."""
    kinds = {
        name: kind
        for name, schema in ServerSettings.model_json_schema()["properties"].items()
        for kind in schema.get("anyOf", [schema])
    }
    return {name: kind["maximum"] for name, kind in kinds.items() if kind["type"] == "integer"}


async def test_with_the_largest_numbers_that_are_allowed_the_gateway_serves(simulator: Simulator) -> None:
    """gRPC refuses what does not fit into 32 bits, on the way to its start."""
    async with start_gateway(simulator.url, server=largest()) as gateway:
        outcome = await stream(gateway)

    assert outcome.failure is None


async def test_by_default_more_streams_are_taken_than_calls_are_admitted() -> None:
    """So that one call too many meets QUEUE_FULL and does not wait in its channel, in silence, for its deadline."""
    settings = Settings(_env_file=None)
    assert settings.server.max_concurrent_streams > settings.admission.max_in_flight


# -------------------------------------------------------------------------------------------------------------- pings


async def test_a_caller_who_pings_too_often_is_sent_away(gateway: RunningGateway) -> None:
    async with http2_client(gateway.server.port) as client:
        client.send(Kind.PING, bytes(8), times=4)
        goodbye = await client.receive_until(Kind.GOAWAY)

    assert goodbye.error_code == ENHANCE_YOUR_CALM
    assert b"too_many_pings" in goodbye.payload


# --------------------------------------------------------------------------------------------------------------- port


async def test_two_gateways_do_not_share_a_port(gateway: RunningGateway, simulator: Simulator) -> None:
    """With SO_REUSEPORT, each of them would get half of the calls, and nobody would know."""
    with pytest.raises(PortInUseError, match=str(gateway.server.port)):
        async with start_gateway(simulator.url, port=gateway.server.port):
            pass


@pytest.mark.parametrize("host", ["::1", "[::1]", "::"])
async def test_an_ipv6_address_is_listened_on(simulator: Simulator, host: str) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with (
        start_gateway(simulator.url, server={"host": host}) as gateway,
        grpc.aio.insecure_channel(f"[::1]:{gateway.server.port}") as channel,
    ):
        models = await llm_service_pb2_grpc.LLMServiceStub(channel).ListModels(pb.ListModelsRequest())

    assert [model.name for model in models.models] == ["sim"]


async def test_an_ipv6_address_that_cannot_be_listened_on_is_named_as_it_is_written(simulator: Simulator) -> None:
    """2001:db8::/32 is for documentation: no machine has it."""
    with pytest.raises(PortInUseError, match=r"cannot listen on \[2001:db8::1\]:0"):
        async with start_gateway(simulator.url, server={"host": "2001:db8::1"}):
            pass
