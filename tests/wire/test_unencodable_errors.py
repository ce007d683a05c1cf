# SPDX-License-Identifier: Apache-2.0
"""A failure that cannot be put into a status is a bug; its call ends as typed as any other."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from llm_gateway import errors as e
from llm_gateway.admission import Admission, Limits
from llm_gateway.health import HealthBoard
from llm_gateway.server import Server, ServerOptions
from llm_gateway.servicer import SERVICE, LLMServicer
from llm_gateway.v1 import llm_service_pb2_grpc
from tests.kit.calls import chat_request, until
from tests.kit.gateway import failure_of
from tests.kit.logs import captured_logs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llm_gateway.observability.call import Call

HALF = "canary \ud83d"  # half a character: Python's strings can have it, UTF-8 cannot


class FailingGateway:
    """A collaborator that fails in a way of its own, on a model of a name of its own."""

    def __init__(self, error: e.GatewayError, model: str) -> None:
        self._error = error
        self._model = model

    async def complete(self, _: object, call: Call) -> None:
        call.model = self._model
        call.admitted = True
        raise self._error


async def healthy() -> bool:
    return True


@asynccontextmanager
async def failing(error: e.GatewayError, model: str) -> AsyncIterator[llm_service_pb2_grpc.LLMServiceAsyncStub]:
    """A stub of a server whose every call fails with an error."""
    gateway: Any = FailingGateway(error, model)
    servicer = LLMServicer(gateway, max_message_bytes=10**6, extensions=())
    health = HealthBoard(SERVICE, healthy, interval=60)
    options = ServerOptions(host="127.0.0.1", port=0)
    server = Server(servicer, admission=Admission(Limits()), health=health, options=options, timeout=30)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield llm_service_pb2_grpc.LLMServiceStub(channel)
    finally:
        await server.stop()


@pytest.mark.parametrize(
    ("error", "model"),
    [
        pytest.param(e.BackendLost("It broke."), HALF, id="the-model"),
        pytest.param(e.BackendLost(HALF), "tiny", id="the-message"),
        pytest.param(e.InvalidRequest.of("messages", HALF), "tiny", id="a-violation"),
    ],
)
async def test_what_no_status_can_say_ends_the_call_as_a_bug(error: e.GatewayError, model: str) -> None:
    with captured_logs() as logs:
        async with failing(error, model) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ChatCompletion(chat_request(), metadata=(("x-request-id", "find-me"),))
        await until(lambda: logs.calls)

    failure = failure_of(caught.value)
    assert (failure.code, failure.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert dict(failure.info.metadata) == {"request_id": "find-me"}
    [bug] = [line for line in logs.lines if "traceback" in line]
    assert (bug["level"], bug["request_id"]) == ("ERROR", "find-me")
    assert "canary" not in bug["traceback"]
    assert [(line["status"], line["reason"]) for line in logs.calls] == [("INTERNAL", "INTERNAL")]
