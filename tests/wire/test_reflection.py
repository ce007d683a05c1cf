# SPDX-License-Identifier: Apache-2.0
"""grpcurl needs no proto file: the server describes itself, unless it was told not to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.kit.gateway import start_gateway

if TYPE_CHECKING:
    from llm_gateway.simulator import Simulator
    from tests.kit.gateway import RunningGateway

OURS = "llm_gateway.v1.LLMService"


def reflecting(gateway: RunningGateway) -> Any:
    """A call under way; the types of the package know no aio."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(cast("Any", gateway.channel))
    return stub.ServerReflectionInfo()


async def asked(
    gateway: RunningGateway, request: reflection_pb2.ServerReflectionRequest
) -> reflection_pb2.ServerReflectionResponse:
    """The answer to one question."""
    call = reflecting(gateway)
    await call.write(request)
    await call.done_writing()
    answer: reflection_pb2.ServerReflectionResponse = await call.read()
    assert await call.code() == grpc.StatusCode.OK
    return answer


async def test_the_services_are_listed(gateway: RunningGateway) -> None:
    answer = await asked(gateway, reflection_pb2.ServerReflectionRequest(list_services=""))

    assert {service.name for service in answer.list_services_response.service} == {
        OURS, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection",
    }  # fmt: skip


async def test_a_service_is_described_with_its_methods(gateway: RunningGateway) -> None:
    answer = await asked(gateway, reflection_pb2.ServerReflectionRequest(file_containing_symbol=OURS))

    [data, *_] = answer.file_descriptor_response.file_descriptor_proto
    [service] = FileDescriptorProto.FromString(data).service
    assert [method.name for method in service.method] == [
        "ChatCompletion", "ChatCompletionStream", "Generate", "StreamGenerate", "ListModels", "CountTokens",
    ]  # fmt: skip


async def test_every_message_of_the_contract_can_be_looked_up(gateway: RunningGateway) -> None:
    """The details of an error among them: grpcurl shows them only if it can."""
    for name in ("Message", "GenerationParams", "CallReport", "ErrorReason", "Completed"):
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=f"llm_gateway.v1.{name}")
        answer = await asked(gateway, request)

        assert answer.file_descriptor_response.file_descriptor_proto, name


async def test_it_can_be_turned_off(simulator: Simulator) -> None:
    async with start_gateway(simulator.url, server={"reflection": False}) as gateway:
        call = reflecting(gateway)
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))

        assert await call.code() == grpc.StatusCode.UNIMPLEMENTED
