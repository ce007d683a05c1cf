# SPDX-License-Identifier: Apache-2.0
"""Callers: each makes the call that was drawn for it, behaves as drawn, and writes down what it saw."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
from grpc_status import rpc_status

from llm_gateway.v1 import generation_pb2, llm_service_pb2, llm_service_pb2_grpc, message_pb2
from tests.chaos.history import BARE, History
from tests.kit.gateway import failure_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.wishes import Wish

PATIENCE = 10.0
"""Seconds beyond its limit after which a call without an ending is given up."""
REPORT, RETRY = "llm_gateway.v1.CallReport", "google.rpc.RetryInfo"


class Callers:
    """Makes calls over a few channels."""

    def __init__(self, channels: list[grpc.aio.Channel]) -> None:
        self._stubs = [llm_service_pb2_grpc.LLMServiceStub(channel) for channel in channels]
        self._turn = 0
        self.stopped: set[str] = set()
        """The calls that the operator has ended."""

    async def call(self, wish: Wish) -> History:
        """Make a call. Whatever happens to it is in its history."""
        self._turn += 1
        stub = self._stubs[self._turn % len(self._stubs)]
        history = History(wish)
        began = time.monotonic()
        call = getattr(stub, wish.rpc.value)(
            request_of(wish), timeout=wish.timeout, metadata=(("x-request-id", wish.request_id),)
        )
        try:
            async with asyncio.timeout(wish.limit + PATIENCE):
                with _leaving(call, history):
                    await self._read(call, history)
        except TimeoutError:
            call.cancel()  # it has no ending, and that is what its history says
        history.seconds = time.monotonic() - began
        history.stopped = wish.request_id in self.stopped
        return history

    async def _read(self, call: Any, history: History) -> None:
        try:
            if history.wish.rpc.streams:
                async for event in call:
                    history.events.append(event)
                    await asyncio.sleep(history.wish.pause)
            else:
                history.answer = await call
            history.endings.append(("OK", ""))
            await self._take_metadata(call, history)
        except grpc.aio.AioRpcError as error:
            _take_failure(error, history)
        except asyncio.CancelledError:
            if not history.left:
                raise  # it is this task that was cancelled
            history.endings.append(("CANCELLED", BARE))

    async def _take_metadata(self, call: Any, history: History) -> None:
        trailers = dict(await call.trailing_metadata())
        history.request_id = trailers.get("x-request-id")
        history.told = repr([await call.initial_metadata(), trailers])


def _take_failure(error: grpc.aio.AioRpcError, history: History) -> None:
    history.told = repr([error.details(), error.initial_metadata(), error.trailing_metadata()])
    if not _is_ours(error):
        history.endings.append((error.code().name, BARE))
        return
    failure = failure_of(error)
    history.endings.append((failure.code.name, failure.reason))
    history.request_id = str(failure.trailers.get("x-request-id"))
    history.retry_after = RETRY in failure.details
    if REPORT in failure.details:
        history.report = failure.report


def _is_ours(error: grpc.aio.AioRpcError) -> bool:
    """Whether it has details, and not a message that is gRPC's own.

    Where the deadline passes at the very moment when our status comes, gRPC takes a part of each.
    """
    try:
        return rpc_status.from_call(error) is not None  # type: ignore[arg-type]  # it has what is read of a call
    except ValueError:
        return False


@contextmanager
def _leaving(call: Any, history: History) -> Iterator[None]:
    """The caller leaves when it wants to, if it has not got its ending by then."""
    if history.wish.leaves_after is None:
        yield
        return

    def leave() -> None:
        history.left = True
        call.cancel()

    leaving = asyncio.get_running_loop().call_later(history.wish.leaves_after, leave)
    try:
        yield
    finally:
        leaving.cancel()


def request_of(wish: Wish) -> llm_service_pb2.ChatCompletionRequest | llm_service_pb2.GenerateRequest:
    """What is sent."""
    params = generation_pb2.GenerationParams(**wish.params)
    if wish.time_limit is not None:
        params.time_limit.FromNanoseconds(int(wish.time_limit * 1e9))
    options = generation_pb2.StreamOptions()
    if wish.flush_interval:
        options.min_flush_interval.FromNanoseconds(int(wish.flush_interval * 1e9))
    common: dict[str, Any] = {
        "model": wish.model,
        "params": params,
        "stream_options": options,
        "priority": generation_pb2.PRIORITY_BATCH if wish.batch else generation_pb2.PRIORITY_INTERACTIVE,
        "session_id": wish.session,
    }
    if wish.rpc.chats:
        messages = [message_pb2.Message(role=message_pb2.ROLE_USER, content=wish.prompt)]
        return llm_service_pb2.ChatCompletionRequest(messages=messages, **common)
    return llm_service_pb2.GenerateRequest(prompt=wish.prompt, raw=wish.raw, **common)
