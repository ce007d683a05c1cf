# SPDX-License-Identifier: Apache-2.0
"""Row 58: a bug of the gateway's own, wherever it is, is told by an id and not by what the exception says."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc

from llm_gateway.admission import Admission, Limits
from llm_gateway.generation import Started
from llm_gateway.health import HealthBoard
from llm_gateway.observability.journal import Journal
from llm_gateway.server import Server, ServerOptions
from llm_gateway.servicer import SERVICE, LLMServicer
from llm_gateway.v1 import llm_service_pb2_grpc
from tests.faults.invariants import CANARY, PROMPT, witnessed
from tests.faults.matrix import Expected, ending_of, row
from tests.kit.gateway import RunningGateway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llm_gateway.observability.call import Call


class Gateway:
    """A collaborator whose calls fail inside the handler."""

    async def stream(self, generation: object, call: Call, write: Any) -> None:
        raise KeyError(PROMPT)


class Unwritable(Gateway):
    """One that gives what cannot be written: the serializer's exception says what it was."""

    async def stream(self, generation: object, call: Call, write: Any) -> None:
        await write(Started({PROMPT: 1}, CANARY, 1))  # type: ignore[arg-type]  # that is the bug


class Silent(Gateway):
    """One that has nothing to say, and no bug."""

    async def stream(self, generation: object, call: Call, write: Any) -> None:
        return


class Before(Journal):
    """Fails inside an interceptor, before the handler is asked."""

    def call_begins(self, call: Call) -> None:
        raise KeyError(PROMPT)


class After(Journal):
    """Fails there when all is done."""

    def call_ends(self, call: Call) -> None:
        raise KeyError(PROMPT)


@asynccontextmanager
async def broken(gateway: Any, journal: Journal) -> AsyncIterator[RunningGateway]:
    """A server with a bug somewhere."""
    servicer = LLMServicer(gateway, max_message_bytes=10**6, extensions=())
    health = HealthBoard(SERVICE, healthy, interval=60)
    options = ServerOptions(host="127.0.0.1", port=0)
    server = Server(
        servicer, admission=Admission(Limits()), health=health, options=options, timeout=30, journal=journal
    )
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield RunningGateway(server, channel, llm_service_pb2_grpc.LLMServiceStub(channel))
    finally:
        await server.stop()


async def healthy() -> bool:
    return True


PLACES = {
    "handler": (Gateway(), Journal()),
    "serializer": (Unwritable(), Journal()),
    "interceptor": (Silent(), Before()),
    "interceptor, afterwards": (Silent(), After()),
    "both": (Gateway(), After()),
}


@row(58, *PLACES)
async def test_row_58_a_bug_is_told_by_an_id(case: str, expected: Expected) -> None:
    async with witnessed(broken(*PLACES[case]), bystander=False) as witness:
        witness.lost += isinstance(PLACES[case][1], Before | After)  # what has failed is what writes its line
        call = witness.begin()
        outcome = await call.end()
        bugs = [line for line in witness.logs.lines if "traceback" in line]

    assert ending_of(outcome) in expected
    assert outcome.failure is not None
    assert outcome.failure.message == "The gateway failed. Its log has the cause, under the request id."
    assert outcome.failure.info.metadata["request_id"] == call.request_id
    assert {bug["request_id"] for bug in bugs} == {call.request_id}
