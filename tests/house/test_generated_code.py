# SPDX-License-Identifier: Apache-2.0
"""The committed code of the wire contract is what its proto files generate."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = Path("llm_gateway/v1")


def generator(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / ".ci/proto", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Stand for service/, with the committed generated code only."""
    shutil.copytree(ROOT / "service" / PACKAGE, tmp_path / PACKAGE)
    return tmp_path


def test_the_committed_code_is_what_the_proto_files_generate() -> None:
    checked = generator("--check")

    assert checked.stdout + checked.stderr == ""
    assert checked.returncode == 0


def test_the_package_holds_nothing_but_generated_code() -> None:
    others = {path.name for path in (ROOT / "service" / PACKAGE).iterdir() if "_pb2" not in path.name}

    assert others - {"__pycache__"} == {"__init__.py"}


def test_an_edited_file_is_named(copy: Path) -> None:
    edited = copy / PACKAGE / "llm_service_pb2.pyi"
    edited.write_text(edited.read_text(encoding="utf-8") + "\n", encoding="utf-8")

    checked = generator("--check", "--target", copy)

    assert "llm_gateway/v1/llm_service_pb2.pyi is not what the proto files generate" in checked.stdout
    assert checked.returncode == 1


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / PACKAGE / "llm_service_pb2_grpc.py").unlink()

    checked = generator("--check", "--target", copy)

    assert "llm_service_pb2_grpc.py" in checked.stdout
    assert checked.returncode == 1


def test_a_file_whose_proto_is_gone_is_named(copy: Path) -> None:
    (copy / PACKAGE / "gone_pb2.py").touch()

    checked = generator("--check", "--target", copy)

    assert "gone_pb2.py" in checked.stdout
    assert checked.returncode == 1


def test_generating_mends_all_of_that(copy: Path) -> None:
    (copy / PACKAGE / "gone_pb2.py").touch()
    (copy / PACKAGE / "llm_service_pb2.py").write_text("", encoding="utf-8")
    (copy / PACKAGE / "llm_service_pb2_grpc.py").unlink()

    generated = generator("--target", copy)

    assert generated.returncode == 0
    assert generator("--check", "--target", copy).returncode == 0


def test_a_proto_file_that_does_not_compile_leaves_the_code_alone(copy: Path, tmp_path: Path) -> None:
    broken = tmp_path / "proto" / PACKAGE
    broken.mkdir(parents=True)
    (broken / "broken.proto").write_text('syntax = "proto3";\nmessage {', encoding="utf-8")

    generated = generator("--source", tmp_path / "proto", "--target", copy)

    assert generated.returncode != 0
    assert generator("--check", "--target", copy).returncode == 0
