# SPDX-License-Identifier: Apache-2.0
"""Containers of the image under test, as locked down as the chart runs them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Self

from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

if TYPE_CHECKING:
    from testcontainers.core.network import Network

IMAGE = os.environ.get("IMAGE", "llm-gateway:test")
GRPC_PORT = 50052
LOCKED_DOWN: dict[str, Any] = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "mem_limit": "512m",
}
LISTENS = '"message":"listening"'
SIMULATES = "simulated vLLM"


class Contained(DockerContainer):
    """A container with a root file system that cannot be written, without capabilities, in a network."""

    def __init__(self, *command: str, network: Network, alias: str, ready: str) -> None:
        super().__init__(IMAGE, network=network, network_aliases=[alias], **LOCKED_DOWN)
        self.with_command(list(command)).waiting_for(LogMessageWaitStrategy(ready).with_startup_timeout(30))

    def on_loopback(self, port: int) -> Self:
        """Publish a port on a free one of the loopback interface, and on no other."""
        self.ports[f"{port}/tcp"] = ("127.0.0.1",)  # type: ignore[assignment]  # docker takes it, its types do not say so
        return self

    def address(self, port: int) -> str:
        """Where a published port is."""
        return f"127.0.0.1:{self.get_exposed_port(port)}"

    def terminate(self) -> None:
        """Send SIGTERM, as an engine does that wants a container to end, and do not wait."""
        self.get_wrapped_container().kill("SIGTERM")

    def logs(self) -> str:
        """What it has said so far."""
        return str(self.get_wrapped_container().logs().decode())


def simulator(network: Network, *options: str, alias: str = "simulator") -> Contained:
    """A simulated vLLM that others of the network find by its alias."""
    command = ("simulate", "--host", "0.0.0.0", *options)  # noqa: S104 - of a container
    return Contained(*command, network=network, alias=alias, ready=SIMULATES)


def gateway(network: Network, backend: str = "simulator", **environment: str) -> Contained:
    """A gateway in front of the simulator with that alias, reachable from this machine."""
    container = Contained("serve", network=network, alias="gateway", ready=LISTENS)
    container.with_envs(VLLM_URL=f"http://{backend}:8000", LOG_FORMAT="json", **environment)
    return container.on_loopback(GRPC_PORT)
