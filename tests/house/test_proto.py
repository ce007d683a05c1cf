# SPDX-License-Identifier: Apache-2.0
"""The wire contract is well-formed, and what was released of it does not break."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROTO = ROOT / "proto"
BASELINE = PROTO / "baseline.binpb"


def buf(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("buf"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def breaking(proto: Path, baseline: Path = BASELINE) -> subprocess.CompletedProcess[str]:
    return buf("breaking", proto, "--against", baseline)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PROTO, tmp_path / "proto"))


def edit(proto: Path, file: str, pattern: str, replacement: str) -> None:
    path = proto / "llm_gateway/v1" / file
    text, count = re.subn(pattern, replacement, path.read_text(encoding="utf-8"), count=1, flags=re.MULTILINE)
    assert count == 1, f"{file} no longer holds {pattern}"
    path.write_text(text, encoding="utf-8")


def test_the_proto_is_lint_clean() -> None:
    linted = buf("lint", PROTO)

    assert linted.stdout + linted.stderr == ""
    assert linted.returncode == 0


def test_the_proto_is_formatted() -> None:
    formatted = buf("format", PROTO, "--diff", "--exit-code")

    assert formatted.stdout == ""
    assert formatted.returncode == 0


def test_a_comment_cannot_silence_the_linter(copy: Path) -> None:
    silenced = "// Misnamed.\n// buf:lint:ignore MESSAGE_PASCAL_CASE\nmessage misnamed {}\n\n"
    edit(copy, "llm_service.proto", r"^message CountTokensResponse", silenced + r"// Next.\n\g<0>")

    linted = buf("lint", copy)

    assert "misnamed" in linted.stdout
    assert linted.returncode == 100


def test_the_proto_does_not_break_the_last_release() -> None:
    compared = breaking(PROTO)

    assert compared.stdout + compared.stderr == ""
    assert compared.returncode == 0


def test_a_new_field_is_no_break(copy: Path) -> None:
    edit(copy, "llm_service.proto", r"^message CountTokensResponse \{", r"\g<0>\n  // New.\n  bool new_field = 999;")

    assert breaking(copy).returncode == 0


@pytest.mark.parametrize(
    ("file", "pattern", "replacement"),
    [
        pytest.param(
            "outcome.proto", r"uint32 prompt_tokens = 1;", "uint32 prompt_tokens = 99;", id="field-renumbered"
        ),
        pytest.param("outcome.proto", r"uint32 prompt_tokens = 1;", "uint32 tokens_of_prompt = 1;", id="field-renamed"),
        pytest.param("outcome.proto", r"uint32 prompt_tokens = 1;", "", id="field-removed"),
        pytest.param(
            "outcome.proto", r"uint32 prompt_tokens = 1;", "string prompt_tokens = 1;", id="field-of-another-type"
        ),
        pytest.param("outcome.proto", r"FINISH_REASON_STOP = 1;", "FINISH_REASON_ENDED = 1;", id="enum-value-renamed"),
        pytest.param(
            "outcome.proto", r"FINISH_REASON_STOP = 1;", "FINISH_REASON_STOP = 99;", id="enum-value-renumbered"
        ),
        pytest.param("llm_service.proto", r"^  rpc ListModels\(.*\n?.*;", "", id="rpc-removed"),
        pytest.param("llm_service.proto", r"rpc CountTokens\(", "rpc Count(", id="rpc-renamed"),
        pytest.param("llm_service.proto", r"returns \(stream ", "returns (", id="rpc-no-longer-streaming"),
    ],
)
def test_a_broken_copy_is_refused(copy: Path, file: str, pattern: str, replacement: str) -> None:
    edit(copy, file, pattern, replacement)

    compared = breaking(copy)

    assert compared.returncode == 100, compared.stderr
    assert file in compared.stdout


def test_a_removed_file_is_refused(copy: Path) -> None:
    (copy / "llm_gateway/v1/admin_service.proto").unlink()

    compared = breaking(copy)

    assert compared.returncode == 100, compared.stderr
    assert "admin_service.proto" in compared.stdout
