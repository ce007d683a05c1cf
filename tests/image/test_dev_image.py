# SPDX-License-Identifier: Apache-2.0
"""The image of the dev loop: code that is put into a running container is in force a moment later."""

from __future__ import annotations

import io
import re
import tarfile
from typing import TYPE_CHECKING

import pytest
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from llm_gateway import __version__
from tests.house.tree import ROOT
from tests.image.containers import LISTENS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

pytestmark = pytest.mark.image

SOURCE = "service/llm_gateway/__init__.py"
"""Beside it is where /build/service is in the container."""


@pytest.fixture
def looping(engine: Any) -> Iterator[DockerContainer]:
    """A gateway of the stage `dev`, which listens."""
    built, _ = engine.images.build(path=str(ROOT), target="dev", rm=True)
    container = DockerContainer(built.id).with_env("LOG_FORMAT", "json")
    with container.waiting_for(LogMessageWaitStrategy(LISTENS).with_startup_timeout(30)) as running:
        yield running


def test_a_changed_file_is_what_runs_next(looping: DockerContainer) -> None:
    text = (ROOT / SOURCE).read_text(encoding="utf-8").replace(__version__, f"{__version__}+changed").encode()
    looping.get_wrapped_container().put_archive("/build", tar_of(SOURCE, text))

    again = LogMessageWaitStrategy(re.compile(rf'"version":"{re.escape(__version__)}\+changed"'))
    again.with_startup_timeout(30).wait_until_ready(looping)


def tar_of(name: str, content: bytes) -> bytes:
    """An archive with one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
