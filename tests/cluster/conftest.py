# SPDX-License-Identifier: Apache-2.0
"""A cluster, and in it the chart's simulator preset, installed once for all tests that leave it as it is."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.asking import WHOLE, answer
from tests.cluster.kube import Namespace, eventually, namespace, tool

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE = os.environ.get("IMAGE", "docker.io/library/llm-gateway:test")
"""The gateway's image, by a name under which every node has it or can pull it."""
RELEASE = "llm-gateway"
SECONDS = 600


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Pods take their time to come and go."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(SECONDS))


FIGURES = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what was measured, for who wants to know more than that it was enough."""
    for figure in config.stash.get(FIGURES, []):
        terminalreporter.write_line(figure)


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> list[str]:
    """Lines for the summary."""
    return pytestconfig.stash.setdefault(FIGURES, [])


@pytest.fixture(scope="session")
def image() -> dict[str, Any]:
    """The chart's `image` values."""
    repository, _, tag = IMAGE.rpartition(":")
    return {"repository": repository, "tag": tag}


@pytest.fixture(scope="session")
def cluster() -> None:
    """A cluster that answers."""
    for command in ([tool("helm"), "version"], [tool("kubectl"), "get", "--raw", "/readyz"]):
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=20)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.fail(f"no cluster to test on: {error}", pytrace=False)


@pytest.fixture(scope="session")
def served(cluster: None, image: dict[str, Any]) -> Iterator[Namespace]:
    """The simulator preset, ready, in a namespace where Pod Security is enforced."""
    with namespace("llm-gateway-test") as served:
        served.install(RELEASE, "simulator", image=image)
        with served.forwarded(f"service/{RELEASE}", 50052) as address:  # for names take seconds to get around
            eventually("a gateway finds its backends", lambda: WHOLE in answer(address), seconds=30)
        yield served
