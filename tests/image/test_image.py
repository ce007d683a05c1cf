# SPDX-License-Identifier: Apache-2.0
"""What the image is made of."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest

from llm_gateway import __version__
from tests.image.containers import IMAGE

pytestmark = pytest.mark.image

BASE = os.environ.get("BASE", "python:3.13-slim")
LARGEST_BASE = 50 * 10**6
"""Bytes of python:3.13-slim as a registry sends it, rounded up."""
LARGEST = 200 * 10**6


@pytest.fixture(scope="session")
def image(engine: Any) -> Any:
    """The image under test."""
    return engine.images.get(IMAGE)


def run(engine: Any, command: str) -> str:
    """What a shell in the image prints."""
    printed = engine.containers.run(IMAGE, ["-c", command], entrypoint="sh", remove=True, network_disabled=True)
    return str(printed.decode().strip())


def test_it_runs_as_a_user_that_kubernetes_can_tell_is_not_root(image: Any) -> None:
    assert re.fullmatch(r"[1-9]\d{4,}:[1-9]\d{4,}", image.attrs["Config"]["User"])


def test_signals_reach_the_process_for_no_shell_stands_between(image: Any) -> None:
    assert image.attrs["Config"]["Entrypoint"] == ["llm-gateway"]
    assert image.attrs["Config"]["Cmd"] == ["serve"]


def test_its_labels_say_what_it_is(image: Any) -> None:
    labels = {name.rpartition(".")[2]: text for name, text in image.labels.items()}

    assert labels["title"] == "llm-gateway"
    assert labels["version"] == __version__
    assert labels["licenses"] == "Apache-2.0"
    assert re.fullmatch(r"[0-9a-f]{40}", labels["revision"])


def test_its_version_is_the_packages(engine: Any) -> None:
    assert run(engine, "llm-gateway --version") == f"llm-gateway {__version__}"


def test_no_compiler_and_no_installer_is_in_what_it_adds(engine: Any) -> None:
    looking = "for tool in cc gcc g++ clang make; do command -v $tool; done; ls /opt/llm-gateway/bin | grep pip; true"

    assert run(engine, looking) == ""


def test_nothing_of_the_build_or_of_a_developer_is_in_it(engine: Any) -> None:
    assert run(engine, "ls -d /build /src /tests /.git /.env /opt/llm-gateway/service 2>/dev/null; true") == ""


def test_every_module_is_compiled_so_that_a_read_only_root_costs_no_start(engine: Any) -> None:
    package = "/opt/llm-gateway/lib/python3*/site-packages/llm_gateway"

    assert run(engine, f"find {package} -name '*.py' | wc -l") == run(engine, f"find {package} -name '*.pyc' | wc -l")


def test_it_adds_little_to_its_base(engine: Any, image: Any) -> None:
    """On the official base it stays below 200 MB, compressed."""
    added = len(image.attrs["RootFS"]["Layers"]) - len(engine.images.get(BASE).attrs["RootFS"]["Layers"])
    packed = int(run(engine, "tar -C / -cf - opt/llm-gateway | gzip -6 | wc -c"))

    assert added == 1
    assert LARGEST_BASE + packed < LARGEST
