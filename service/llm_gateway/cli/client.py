# SPDX-License-Identifier: Apache-2.0
"""A caller's side of the contract: the connection to a gateway, and its errors as a person reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import grpc
from google.protobuf import json_format
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from llm_gateway.v1.admin_service_pb2_grpc import AdminServiceStub
from llm_gateway.v1.llm_service_pb2_grpc import LLMServiceStub

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from llm_gateway.v1.admin_service_pb2_grpc import AdminServiceAsyncStub
    from llm_gateway.v1.llm_service_pb2_grpc import LLMServiceAsyncStub

DETAILS = "grpc-status-details-bin"
OPTIONS = (
    ("grpc.max_receive_message_length", -1),  # an answer with log-probabilities may be large
    ("grpc.enable_http_proxy", 0),  # a proxy for web pages is of no use on the way to a gateway
)


class Client:
    """A connection to a gateway; use it as a context."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def __aenter__(self) -> Self:
        self._channel = grpc.aio.insecure_channel(self._address, options=OPTIONS)
        self.stub: LLMServiceAsyncStub = LLMServiceStub(self._channel)
        self.admin: AdminServiceAsyncStub = AdminServiceStub(self._channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()


def as_json(message: Message, indent: int | None = None, *, zeros: bool = False) -> str:
    """A message as JSON, with the field names of the proto; with `zeros`, fields that are 0 or empty are there too."""
    return json_format.MessageToJson(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=zeros,
        indent=indent,
        ensure_ascii=False,
    )


@dataclass(frozen=True, slots=True)
class Failure:
    """A status that is not OK, as lines to read: what happened, then each wrong field."""

    lines: tuple[str, ...]

    @classmethod
    def of(cls, error: grpc.aio.AioRpcError, address: str) -> Self:
        """Take a status apart. One without our details is gRPC's own: nobody answered, or something else did."""
        # Not by grpc_status: where a deadline passes just as our status comes, it finds gRPC's own message beside our
        # details, and raises.
        packed = dict(error.trailing_metadata()).get(DETAILS)
        if packed is None:
            return cls((f"{error.code().name}: {error.details() or 'no details'} (gateway: {address})",))
        status = Status.FromString(packed)
        info, wait, violations = _details(status)
        line = f"{error.code().name} {info.reason}: {status.message}"
        if wait is not None:
            line += f" Try again in {wait:g} s."
        line += f" (request {info.metadata['request_id']})"
        return cls((line, *(f"  {violation.field}: {violation.description}" for violation in violations)))


def _details(
    status: Status,
) -> tuple[error_details_pb2.ErrorInfo, float | None, list[error_details_pb2.BadRequest.FieldViolation]]:
    info, retry, bad = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
    wait = None
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
        if detail.Unpack(retry):
            wait = retry.retry_delay.ToNanoseconds() / 1e9
    return info, wait, list(bad.field_violations)
