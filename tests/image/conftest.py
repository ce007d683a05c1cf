# SPDX-License-Identifier: Apache-2.0
"""An engine, a network, and in it a gateway in front of a simulator, both from the image under test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import docker
import pytest
from docker.errors import DockerException, ImageNotFound
from testcontainers.core.network import Network

from tests.image.containers import IMAGE, Contained, gateway, simulator

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """A client of the engine, which has the image."""
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        pytest.fail(f"no engine answers: {error}", pytrace=False)
    try:
        client.images.get(IMAGE)
    except ImageNotFound:
        pytest.fail(f"the engine has no {IMAGE}: `make test-image` builds it")
    yield client
    client.close()


@pytest.fixture(scope="session")
def network(engine: Any) -> Iterator[Network]:
    """A network of its own, in which containers find each other by name."""
    with Network() as network:
        yield network


@pytest.fixture(scope="session")
def backend(network: Network) -> Iterator[Contained]:
    """A simulator that takes its time between tokens."""
    with simulator(network, "--pace-ms", "20") as running:
        yield running


@pytest.fixture
def served(network: Network, backend: Contained) -> Iterator[Contained]:
    """A gateway in front of it."""
    with gateway(network, SERVER__DRAIN_DELAY_MS="0") as running:
        yield running
