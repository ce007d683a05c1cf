# SPDX-License-Identifier: Apache-2.0
"""What is installed is the package, whole, and nothing beside it."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.house.tree import ROOT, project_files


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Build one and name its files."""
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(target)]
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=True)
    with zipfile.ZipFile(next(target.glob("*.whl"))) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_file_of_the_package(wheel: set[str]) -> None:
    package = {path.relative_to("service").as_posix() for path in project_files() if path.parts[0] == "service"}

    assert {name for name in wheel if ".dist-info/" not in name} == package


def test_the_wheel_says_that_it_is_typed_and_licensed(wheel: set[str]) -> None:
    assert "llm_gateway/py.typed" in wheel
    assert [Path(name).name for name in wheel if "/licenses/" in name] == ["LICENSE"]
