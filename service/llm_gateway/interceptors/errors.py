# SPDX-License-Identifier: Apache-2.0
"""From our errors to gRPC statuses, in this one place: the table, the rich details, and what nobody foresaw."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.any_pb2 import Any as AnyProto
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2 as details
from google.rpc import status_pb2

from llm_gateway import errors as e
from llm_gateway.codec.responses import call_report
from llm_gateway.interceptors.around import Around
from llm_gateway.interceptors.request_context import REQUEST_ID
from llm_gateway.observability.call import CURRENT_CALL, Call
from llm_gateway.observability.logging import places_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

    from llm_gateway.interceptors.around import Behaviour, Context

LOG = logging.getLogger(__name__)
DOMAIN = "llm-gateway"
DETAILS = "grpc-status-details-bin"
PUSHBACK = "grpc-retry-pushback-ms"
MAX_MESSAGE = 512
MAX_METADATA_BYTES = 256
ABORT_WAIT = 0.5
"""Seconds that a handler waits for its status to leave. gRPC keeps it for a caller who reads on only later."""
INTERNAL_MESSAGE = "The gateway failed. Its log has the cause, under the request id."

Code = grpc.StatusCode
CODES: dict[type[e.GatewayError], grpc.StatusCode] = {
    e.InvalidRequest: Code.INVALID_ARGUMENT,
    e.ContextLengthExceeded: Code.INVALID_ARGUMENT,
    e.UnsupportedParameter: Code.INVALID_ARGUMENT,
    e.ContentRefused: Code.FAILED_PRECONDITION,
    e.MessageTooLarge: Code.RESOURCE_EXHAUSTED,
    e.ModelNotFound: Code.NOT_FOUND,
    e.CallNotFound: Code.NOT_FOUND,
    e.Unauthenticated: Code.UNAUTHENTICATED,
    e.PermissionDenied: Code.PERMISSION_DENIED,
    # Capacity exists, but others hold it.
    e.RateLimited: Code.RESOURCE_EXHAUSTED,
    e.QueueFull: Code.RESOURCE_EXHAUSTED,
    e.QueueTimeout: Code.RESOURCE_EXHAUSTED,
    e.DeadlineTooShort: Code.RESOURCE_EXHAUSTED,
    e.BackendRateLimited: Code.RESOURCE_EXHAUSTED,
    # There is no capacity now, and nothing was delivered.
    e.Draining: Code.UNAVAILABLE,
    e.NoHealthyBackend: Code.UNAVAILABLE,
    e.ModelLoading: Code.UNAVAILABLE,
    e.BackendOverloaded: Code.UNAVAILABLE,
    e.FirstTokenTimeout: Code.UNAVAILABLE,
    e.BackendLost: Code.UNAVAILABLE,
    e.BackendGaveUp: Code.UNAVAILABLE,
    # Part of the answer was delivered.
    e.StreamInterrupted: Code.ABORTED,
    e.StreamStalled: Code.ABORTED,
    e.BackendAborted: Code.ABORTED,
    e.StreamCorrupted: Code.ABORTED,
    e.SlowCaller: Code.ABORTED,
    e.DrainExpired: Code.ABORTED,
    e.CancelledByOperator: Code.ABORTED,
    e.DeadlineExceeded: Code.DEADLINE_EXCEEDED,
    # A fault of the gateway or of its set-up.
    e.BackendProtocolError: Code.INTERNAL,
    e.BackendRefused: Code.INTERNAL,
    e.InternalError: Code.INTERNAL,
}


class Errors(Around):
    """Ends a call that raised, with a status that says what happened and nothing that was confidential."""

    async def around(self, method: str, proceed: Behaviour, request: Any, context: Context) -> Any:  # noqa: ANN401 - Around's
        """Turn what a call raises into its status."""
        try:
            return await proceed(request, context)
        except e.GatewayError as error:
            await _abort(context, error)
        except asyncio.CancelledError:
            raise
        except grpc.aio.InternalError as error:
            # What is written to a caller who has left fails, a moment before gRPC cancels the handler for it.
            raise asyncio.CancelledError from error
        except Exception as error:
            _log_bug(error, CURRENT_CALL.get())
            await _abort(context, e.InternalError(INTERNAL_MESSAGE))


class LastResort(Around):
    """Ends a call on which another interceptor has failed: gRPC would tell the caller what the exception says."""

    async def around(self, method: str, proceed: Behaviour, request: Any, context: Context) -> Any:  # noqa: ANN401 - Around's
        """Turn what is left into the status of a bug."""
        try:
            return await proceed(request, context)
        except grpc.aio.AbortError:
            raise  # the status has left
        except Exception as error:
            _log_bug(error, CURRENT_CALL.get())
            await _abort(context, e.InternalError(INTERNAL_MESSAGE))


def _log_bug(error: BaseException | None, call: Call) -> None:
    where = {"request_id": call.request_id, "rpc": call.rpc, "traceback": places_of(error)}
    LOG.error("a call failed on a bug", extra=where)


async def _abort(context: Context, error: e.GatewayError) -> None:
    call = CURRENT_CALL.get()
    try:
        status = status_of(error, call)
    except Exception as bug:
        _log_bug(bug, call)
        call.model = call.model and call.model.encode(errors="replace").decode()  # nor could the log's line have it
        error = e.InternalError(INTERNAL_MESSAGE)
        status = status_of(error, _nothing_but_the_id(call))
    code = CODES[type(error)]
    call.status, call.reason = code.name, error.reason
    trailers: list[tuple[str, str | bytes]] = [
        (REQUEST_ID, call.request_id),
        (DETAILS, status.SerializeToString()),
    ]
    if call.attempts:
        # The gateway has tried for the caller: that its channel tries again on its own would multiply the attempts.
        trailers.append((PUSHBACK, "-1"))
    try:
        async with asyncio.timeout(ABORT_WAIT):
            await context.abort(code, status.message, tuple(trailers))
    except TimeoutError:
        # The status waits behind what the caller has not read. Only so does a handler end that gRPC tells nothing more.
        raise asyncio.CancelledError from None
    except grpc.aio.InternalError as gone:
        # As above: the caller has left, and does not wait for a status.
        raise asyncio.CancelledError from gone


def _nothing_but_the_id(call: Call) -> Call:
    """What can be said for certain where a part of a call's record cannot be encoded."""
    return Call(call.request_id, call.rpc, deadline=call.deadline, timeout=call.timeout)


def status_of(error: e.GatewayError, call: Call) -> status_pb2.Status:
    """The rich status of an error, with each kind of detail at most once."""
    return status_pb2.Status(
        code=CODES[type(error)].value[0],
        message=error.message[:MAX_MESSAGE],
        details=[_packed(detail) for detail in _details(error, call)],
    )


def _details(error: e.GatewayError, call: Call) -> Iterator[Message]:
    yield details.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=_metadata(call))
    if error.retry_after is not None:
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after * 1e9))
        yield details.RetryInfo(retry_delay=delay)
    if isinstance(error, e.InvalidRequest) and error.violations:
        yield details.BadRequest(
            field_violations=[
                details.BadRequest.FieldViolation(field=v.field, description=v.description) for v in error.violations
            ]
        )
    if isinstance(error, e.RateLimited | e.QueueFull):
        violation = details.QuotaFailure.Violation(subject="gateway", description=error.message)
        yield details.QuotaFailure(violations=[violation])
    if call.admitted:
        yield call_report(call)


def _metadata(call: Call) -> dict[str, str]:
    """Whose call it was and what it was about, as far as that is known; some of it are others' words."""
    known = {"request_id": call.request_id, "model": call.model, "backend": call.backend}
    return {key: value.encode()[:MAX_METADATA_BYTES].decode(errors="ignore") for key, value in known.items() if value}


def _packed(message: Message) -> AnyProto:
    packed = AnyProto()
    packed.Pack(message)
    return packed
