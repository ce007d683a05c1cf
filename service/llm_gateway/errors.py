# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a call, as one tree that knows neither gRPC nor HTTP.

GatewayError
  x InvalidRequest                    the caller's request is at fault
    + ContextLengthExceeded · UnsupportedParameter · ContentRefused
  x MessageTooLarge
  x ModelNotFound
  x CallNotFound
  x Unauthenticated · PermissionDenied
  x Rejected                          refused before any backend was asked
    + RateLimited · QueueFull · QueueTimeout · DeadlineTooShort · Draining
  x DeadlineExceeded
  x Interrupted                       ended from this side
    + SlowCaller · DrainExpired · CancelledByOperator
  x BackendError                      a backend failed before the commit point
    + NoHealthyBackend · ModelLoading · BackendRateLimited · BackendOverloaded
    + FirstTokenTimeout · BackendLost · BackendGaveUp
    + BackendProtocolError · BackendRefused
  x StreamError                       a backend failed after the commit point
    + StreamInterrupted · StreamStalled · BackendAborted · StreamCorrupted
  x InternalError                     a bug

A leaf says what happened; its `reason` is the one word for it on the wire, in the logs and in the metrics. The status
codes are in `interceptors.errors`, the reasons in `proto/llm_gateway/v1/error.proto`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that is wrong: its path ("params.temperature") and, in a sentence, what is wrong."""

    field: str
    description: str


class GatewayError(Exception):
    """The root: `message` is a sentence for a person, free of prompts, keys and what a backend said.

    `retry_after` is the time, in seconds, after which another try may succeed; None where waiting does not help.
    """

    reason: ClassVar[str]
    default_retry_after: ClassVar[float | None] = None

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = self.default_retry_after if retry_after is None else retry_after
        self.asked_wait = retry_after
        """The part of it that is not our guess: what a backend asked for."""


class InvalidRequest(GatewayError):
    """A field is missing, out of range, or contradicts another; `violations` names each."""

    reason = "INVALID_REQUEST"

    def __init__(self, message: str, violations: Sequence[FieldViolation] = ()) -> None:
        super().__init__(message)
        self.violations = tuple(violations)

    @classmethod
    def of(cls, field: str, description: str) -> Self:
        """One wrong field."""
        return cls(f"{field}: {description}", (FieldViolation(field, description),))


class ContextLengthExceeded(InvalidRequest):
    """The prompt is longer than the model's context."""

    reason = "CONTEXT_LENGTH_EXCEEDED"


class UnsupportedParameter(InvalidRequest):
    """The backend cannot do what a field asks for."""

    reason = "UNSUPPORTED_PARAMETER"


class ContentRefused(InvalidRequest):
    """A content filter refused the prompt."""

    reason = "CONTENT_REFUSED"


class MessageTooLarge(GatewayError):
    """The request is larger than the gateway takes."""

    reason = "MESSAGE_TOO_LARGE"


class ModelNotFound(GatewayError):
    """There is no such model."""

    reason = "MODEL_NOT_FOUND"


class CallNotFound(GatewayError):
    """An operator names a call that is not there, or not any more."""

    reason = "CALL_NOT_FOUND"


class Unauthenticated(GatewayError):
    """The caller did not say who it is, or not credibly."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(GatewayError):
    """The caller may not use this model."""

    reason = "PERMISSION_DENIED"


class Rejected(GatewayError):
    """The call was refused before any backend was asked; `retry_after` is always known."""

    default_retry_after = 1.0


class RateLimited(Rejected):
    """A limit of requests, tokens or concurrency is reached."""

    reason = "RATE_LIMITED"


class QueueFull(Rejected):
    """Every seat is taken and nobody else may wait."""

    reason = "QUEUE_FULL"


class QueueTimeout(Rejected):
    """No seat came free in time."""

    reason = "QUEUE_TIMEOUT"


class DeadlineTooShort(Rejected):
    """No seat would come free before the deadline."""

    reason = "DEADLINE_TOO_SHORT"


class Draining(Rejected):
    """The gateway is shutting down; another one takes the call at once."""

    reason = "DRAINING"
    default_retry_after = 0.1


class DeadlineExceeded(GatewayError):
    """The caller's deadline passed, or the gateway's own limit for a call."""

    reason = "DEADLINE_EXCEEDED"


class Interrupted(GatewayError):
    """The gateway, or its operator, ended a running call."""


class SlowCaller(Interrupted):
    """The caller read too slowly."""

    reason = "SLOW_CALLER"


class DrainExpired(Interrupted):
    """The gateway shut down, and the answer took longer than its grace."""

    reason = "DRAIN_EXPIRED"


class CancelledByOperator(Interrupted):
    """An operator ended the call."""

    reason = "CANCELLED_BY_OPERATOR"


class StreamError(GatewayError):
    """A backend failed after the commit point: part of the answer was delivered, so nothing is tried again."""


class StreamInterrupted(StreamError):
    """The backend was lost, or failed."""

    reason = "STREAM_INTERRUPTED"


class StreamStalled(StreamError):
    """The backend fell silent."""

    reason = "STREAM_STALLED"


class BackendAborted(StreamError):
    """The backend gave the answer up."""

    reason = "BACKEND_ABORTED"


class StreamCorrupted(StreamError):
    """The backend sent what is not its protocol."""

    reason = "STREAM_CORRUPTED"


class BackendError(GatewayError):
    """A backend failed before the commit point. After it, the same failure is an `after_commit`."""

    after_commit: ClassVar[type[StreamError]] = StreamInterrupted
    retryable: bool = True
    """Whether another attempt at the same backend may succeed."""
    elsewhere: bool = True
    """Whether an attempt at another backend may succeed."""

    def committed(self) -> StreamError:
        """What this failure is once part of the answer was delivered."""
        return self.after_commit(self.message)


class NoHealthyBackend(BackendError):
    """Every backend is ejected, refuses connections or cannot be reached."""

    reason = "NO_HEALTHY_BACKEND"
    default_retry_after = 1.0


class ModelLoading(BackendError):
    """The backend is loading its model."""

    reason = "MODEL_LOADING"
    default_retry_after = 5.0


class BackendRateLimited(BackendError):
    """The backend says that its rate limit is reached."""

    reason = "BACKEND_RATE_LIMITED"
    default_retry_after = 1.0


class BackendOverloaded(BackendError):
    """The backend says that it is overloaded."""

    reason = "BACKEND_OVERLOADED"
    default_retry_after = 1.0


class FirstTokenTimeout(BackendError):
    """The backend gave no first token in time. It is not asked again: it would be waited for as long again."""

    reason = "FIRST_TOKEN_TIMEOUT"
    after_commit = StreamStalled
    retryable = False


class BackendLost(BackendError):
    """The connection broke, ended early, or the backend failed."""

    reason = "BACKEND_LOST"


class BackendGaveUp(BackendLost):
    """The backend aborted the answer of its own accord, as it does when it is shut down."""

    after_commit = BackendAborted


class BackendProtocolError(BackendError):
    """The backend sent what is not its protocol."""

    reason = "BACKEND_PROTOCOL_ERROR"
    after_commit = StreamCorrupted
    retryable = False


class BackendRefused(BackendError):
    """The backend refuses the gateway's credentials: for the operator to see, and not to be hidden by another one."""

    reason = "BACKEND_REFUSED"
    retryable = False
    elsewhere = False


class InternalError(GatewayError):
    """A bug. The message is constant; the log line of the request id has the traceback."""

    reason = "INTERNAL"
