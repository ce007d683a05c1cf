# SPDX-License-Identifier: Apache-2.0
"""A real gateway on a free port, with a channel and a stub to it."""

from __future__ import annotations

import json
import tempfile
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from llm_gateway.app import running
from llm_gateway.settings import Settings
from llm_gateway.v1 import call_report_pb2, llm_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from google.protobuf.message import Message

    from llm_gateway.admission.memory import Memory
    from llm_gateway.server import Server


NO_BACKEND = "http://127.0.0.1:9"
"""VLLM_URL where a CONFIG_FILE says more than it."""


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """A gateway under test and a way to call it."""

    server: Server
    channel: grpc.aio.Channel
    stub: llm_service_pb2_grpc.LLMServiceAsyncStub

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"


def make_settings(url: str, **overrides: Any) -> Settings:
    """Settings for a gateway in front of `url`, on loopback and without a drain delay; groups are given as dicts."""
    server = {"host": "127.0.0.1", "drain_delay_ms": 0} | overrides.pop("server", {})
    retry = {"backoff_ms": 0} | overrides.pop("retry", {})
    return Settings(_env_file=None, **({"port": 0, "vllm_url": url, "server": server, "retry": retry} | overrides))


@asynccontextmanager
async def start_gateway(
    url: str, *, channel_options: Sequence[tuple[str, Any]] = (), memory: Memory | None = None, **overrides: Any
) -> AsyncIterator[RunningGateway]:
    """A gateway in front of `url`; `overrides` are settings, `memory` is whose shortage it heeds."""
    async with (
        running(make_settings(url, **overrides), memory=memory) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=list(channel_options)) as channel,
    ):
        stub = llm_service_pb2_grpc.LLMServiceStub(channel)
        yield RunningGateway(server, channel, stub)


@asynccontextmanager
async def stub_of(address: str) -> AsyncIterator[llm_service_pb2_grpc.LLMServiceAsyncStub]:
    """A stub of a gateway that runs elsewhere."""
    async with grpc.aio.insecure_channel(address) as channel:
        yield llm_service_pb2_grpc.LLMServiceStub(channel)


@contextmanager
def config_file(models: Sequence[Mapping[str, Any]]) -> Iterator[Path]:
    """A CONFIG_FILE with these models."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "models.yaml")
        path.write_text(json.dumps({"models": models}))  # of which YAML is a superset
        yield path


@asynccontextmanager
async def start_gateway_of(models: Sequence[Mapping[str, Any]], **overrides: Any) -> AsyncIterator[RunningGateway]:
    """A gateway with the models of a CONFIG_FILE; `overrides` are settings."""
    with config_file(models) as path:
        async with start_gateway(NO_BACKEND, config_file=path, **overrides) as gateway:
            yield gateway


@dataclass(frozen=True, slots=True)
class Failure:
    """A call's bad ending, taken apart."""

    code: grpc.StatusCode
    reason: str
    message: str
    info: error_details_pb2.ErrorInfo
    details: dict[str, Message]
    trailers: dict[str, str | bytes]

    @property
    def violations(self) -> list[str]:
        """The paths of the wrong fields."""
        bad_request = self.details.get("google.rpc.BadRequest")
        return [] if bad_request is None else [v.field for v in bad_request.field_violations]  # type: ignore[attr-defined]

    @property
    def report(self) -> call_report_pb2.CallReport:
        """The CallReport of a call that was admitted."""
        report = self.details["llm_gateway.v1.CallReport"]
        assert isinstance(report, call_report_pb2.CallReport)
        return report


DETAIL_TYPES: tuple[type[Message], ...] = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.RetryInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.QuotaFailure,
    call_report_pb2.CallReport,
)


def failure_of(error: grpc.aio.AioRpcError) -> Failure:
    """Take a status apart; every one of ours has exactly one ErrorInfo, and each detail once."""
    packed_status = dict(error.trailing_metadata()).get("grpc-status-details-bin")
    assert isinstance(packed_status, bytes), f"a bare status: {error}"
    status = status_pb2.Status.FromString(packed_status)
    details: dict[str, Message] = {}
    for packed in status.details:
        kind = next(k for k in DETAIL_TYPES if packed.Is(k.DESCRIPTOR))
        detail = kind()
        packed.Unpack(detail)
        assert kind.DESCRIPTOR.full_name not in details, "a detail twice"
        details[kind.DESCRIPTOR.full_name] = detail
    info = details["google.rpc.ErrorInfo"]
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert info.domain == "llm-gateway"
    return Failure(
        code=error.code(),
        reason=info.reason,
        message=error.details() or "",
        info=info,
        details=details,
        trailers=dict(error.trailing_metadata()),
    )
