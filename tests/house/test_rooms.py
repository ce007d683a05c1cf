# SPDX-License-Identifier: Apache-2.0
"""The contracts between the rooms notice what they are there to notice."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.tree import ROOT


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "service", tmp_path / "service", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    return tmp_path


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root / "service"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def add(root: Path, module: str, line: str) -> None:
    """Put an import at the end of a module."""
    path = root / "service/llm_gateway" / module
    path.write_text(f"{path.read_text(encoding='utf-8') if path.exists() else ''}\n{line}\n", encoding="utf-8")


def test_the_rooms_keep_their_contracts(copy: Path) -> None:
    kept = lint(copy)

    assert kept.returncode == 0, kept.stdout


@pytest.mark.parametrize(
    ("module", "line", "complaint"),
    [
        pytest.param("utils.py", "", "llm_gateway.utils", id="a-module-without-a-layer"),
        pytest.param("errors.py", "from llm_gateway import deadline", "Rooms depend one way", id="an-upward-import"),
        pytest.param(
            "deadline.py", "from llm_gateway import generation", "Rooms depend one way", id="a-sideways-import"
        ),
        pytest.param("deadline.py", "import grpc.aio", "Below the wire nobody knows gRPC", id="grpc-below-the-wire"),
        pytest.param(
            "gateway.py",
            "from llm_gateway.v1 import error_pb2",
            "Generated types stay at the wire",
            id="generated-types-below-the-wire",
        ),
        pytest.param(
            "server.py",
            "from llm_gateway import settings",
            "Rooms take plain arguments, not settings",
            id="settings-handed-around",
        ),
    ],
)
def test_a_breach_is_refused(copy: Path, module: str, line: str, complaint: str) -> None:
    add(copy, module, line)

    broken = lint(copy)

    assert broken.returncode == 1, broken.stdout
    assert complaint in broken.stdout.split("Broken contracts")[1]
