# SPDX-License-Identifier: Apache-2.0
"""What every gRPC server of ours has: its options, its interceptors, health and reflection, and a port."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from grpc_reflection.v1alpha import reflection

from llm_gateway.interceptors.access_log import AccessLog
from llm_gateway.interceptors.errors import Errors, LastResort
from llm_gateway.interceptors.request_context import RequestContext

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_gateway.admin import AdminServicer
    from llm_gateway.health import HealthBoard
    from llm_gateway.interceptors.around import Around
    from llm_gateway.observability.journal import Journal
    from llm_gateway.servicer import LLMServicer

HEALTH_SERVICE = "grpc.health.v1.Health"


class PortInUseError(Exception):
    """The address cannot be listened on; `setting` is the one that chooses another port."""

    def __init__(self, address: str, setting: str) -> None:
        super().__init__(f"cannot listen on {address}")
        self.setting = setting


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How the server listens and drains. Times are in seconds, sizes in bytes."""

    host: str = "0.0.0.0"  # noqa: S104 - a pod's address is not known in advance
    port: int = 50052
    reflection: bool = True
    max_message_bytes: int = 32 * 1024 * 1024
    max_metadata_bytes: int = 16 * 1024
    max_concurrent_streams: int = 2048
    keepalive_time: float = 30.0
    keepalive_timeout: float = 10.0
    min_ping_interval: float = 10.0
    max_connection_age: float | None = None
    drain_delay: float = 2.0
    drain_grace: float = 600.0


def channel_options(options: ServerOptions) -> list[tuple[str, int]]:
    """gRPC's options. It ignores a misspelt one in silence, so each has a test that sees its effect."""
    settings = [
        # Our own limit answers with a typed error; gRPC's, above it, answers bare.
        ("grpc.max_receive_message_length", 2 * options.max_message_bytes),
        # Equal limits, or metadata between the two is refused at random.
        ("grpc.max_metadata_size", options.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", options.max_metadata_bytes),
        # Above what the admission allows, so that its typed error comes first and callers do not queue in silence.
        ("grpc.max_concurrent_streams", options.max_concurrent_streams),
        # Find out about callers that are gone, and about those that are frozen: keepalive alone does not see them.
        ("grpc.keepalive_time_ms", _ms(options.keepalive_time)),
        ("grpc.keepalive_timeout_ms", _ms(options.keepalive_timeout)),
        ("grpc.http2.ping_timeout_ms", _ms(options.keepalive_timeout)),
        ("grpc.keepalive_permit_without_calls", 1),
        # Callers that ping are welcome, within reason. There is no "recv" in this name.
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(options.min_ping_interval)),
        # Two gateways on one port would share it in silence.
        ("grpc.so_reuseport", 0),
    ]
    if options.max_connection_age is not None:
        # Without a grace, running streams outlive their connection's age.
        settings.append(("grpc.max_connection_age_ms", _ms(options.max_connection_age)))
    return settings


def interceptors(journal: Journal, *, timeout: float) -> Sequence[Around]:
    """What happens around every call, outermost first."""
    return (
        RequestContext(timeout=timeout),  # everything further in works on its record
        LastResort(),  # a bug in one of those below
        AccessLog(journal),  # sees the status that Errors decided on
        Errors(),  # innermost: whatever a handler raises is one of its business
    )


def grpc_server(
    service: str,
    servicer: LLMServicer | AdminServicer,
    health: HealthBoard,
    options: ServerOptions,
    around: Sequence[Around],
) -> grpc.aio.Server:
    """A server of one of our services, and of what belongs to each: health, and reflection where it is wanted."""
    server = grpc.aio.server(interceptors=around, options=channel_options(options))
    servicer.add_to(server)
    health.add_to(server)
    if options.reflection:
        reflection.enable_server_reflection((service, HEALTH_SERVICE, reflection.SERVICE_NAME), server)
    return server


def listen(server: grpc.aio.Server, options: ServerOptions, setting: str) -> int:
    """Bind to the address of the options; gives the port. Raises PortInUseError."""
    address = f"{in_brackets(options.host)}:{options.port}"
    try:
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise PortInUseError(address, setting) from error


def in_brackets(host: str) -> str:
    """A host as it goes before a port: the colons of an IPv6 address must not be taken for the port's."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
