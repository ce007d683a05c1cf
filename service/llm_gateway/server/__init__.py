# SPDX-License-Identifier: Apache-2.0
"""The servers: gRPC for callers and, each on a port of its own, for the operator, and HTTP for Prometheus."""

from llm_gateway.server.beside import AdminServer, MetricsServer
from llm_gateway.server.lifecycle import Server
from llm_gateway.server.listening import PortInUseError, ServerOptions, channel_options

__all__ = ["AdminServer", "MetricsServer", "PortInUseError", "Server", "ServerOptions", "channel_options"]
