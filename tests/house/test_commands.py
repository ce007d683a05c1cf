# SPDX-License-Identifier: Apache-2.0
"""The commands of a developer: make's list of them, the doctor, and the script that CI runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.tree import ROOT

STAGES = ["test", "demo", "test-chart", "test-image", "test-cluster", "test-vllm"]
COMMANDS = {"bench", "check", "demo", "doctor", "help", "llm-gateway", "lock", "proto", "test", "unit", *STAGES}


def doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [sys.executable, ROOT / ".ci/doctor", *arguments]
    env = {name: value for name, value in os.environ.items() if name not in {"VLLM_URL", "KUBECONFIG"}} | environment
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def make(*arguments: str) -> str:
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout


def test_help_has_a_line_for_every_command() -> None:
    phony = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    targets = {target for line in phony for target in line.split()}

    explained = set(re.findall(r"^  make (\S+) +\S", make("help"), re.MULTILINE))

    assert explained == targets
    assert targets >= COMMANDS


def test_make_alone_prints_help() -> None:
    assert make() == make("help")


def test_the_doctor_has_a_verdict_and_a_reason_on_every_line() -> None:
    examined = doctor()

    assert examined.returncode == 0
    assert [line for line in examined.stdout.splitlines() if not re.match(r"\w+ +(yes|no) +\S", line)] == []


@pytest.mark.parametrize("capability", ["python", "buf", "go", "chart", "image", "cluster", "vllm"])
def test_the_doctors_exit_code_is_its_verdict(capability: str) -> None:
    examined = doctor("--can", capability)

    verdict = examined.stdout.split()[1]
    assert examined.stdout.split()[0] == capability
    assert examined.returncode == {"yes": 0, "no": 1}[verdict]


def test_the_doctor_refuses_an_unknown_capability() -> None:
    assert doctor("--can", "fly").returncode == 2


def test_a_given_vllm_is_believed_and_its_silence_said() -> None:
    examined = doctor("--can", "vllm", VLLM_URL="http://127.0.0.1:1")

    assert examined.returncode == 0
    assert "does not answer" in examined.stdout


def test_a_client_without_an_engine_is_no_engine(tmp_path: Path) -> None:
    client = tmp_path / "docker"
    client.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    client.chmod(0o755)

    examined = doctor("--can", "image", PATH=str(tmp_path))

    assert examined.returncode == 1
    assert "docker: no engine answers, and none can be started: " in examined.stdout


@pytest.fixture
def ci(tmp_path: Path) -> Path:
    """Stand for a checkout whose make and doctor do what FAILS and LACKS say."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci/run").write_bytes((ROOT / ".ci/run").read_bytes())
    (tmp_path / ".ci/doctor").write_text(
        '#!/bin/sh\nif [ "$2" = "$LACKS" ]; then echo "$2   no   it is missing"; exit 1; fi\n', encoding="utf-8"
    )
    (tmp_path / "make").write_text('#!/bin/sh\necho "made $1"\n[ "$1" != "$FAILS" ]\n', encoding="utf-8")
    for script in (".ci/run", ".ci/doctor", "make"):
        (tmp_path / script).chmod(0o755)
    return tmp_path


def run_ci(root: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": f"{root}:{os.environ['PATH']}", "LACKS": "", "FAILS": "", **environment}
    return subprocess.run([root / ".ci/run"], env=env, capture_output=True, text=True, timeout=60, check=False)


def test_ci_runs_all_that_the_machine_can(ci: Path) -> None:
    done = run_ci(ci)

    assert done.returncode == 0
    assert re.findall(r"^made (\S+)", done.stdout, re.MULTILINE) == ["doctor", *STAGES]
    assert done.stdout.endswith("6 passed, 0 failed, 0 skipped\n")


def test_ci_says_and_counts_what_it_skips(ci: Path) -> None:
    done = run_ci(ci, LACKS="vllm")

    assert done.returncode == 0
    assert "skipped: make test-vllm: it is missing\n" in done.stdout
    assert done.stdout.endswith("5 passed, 0 failed, 1 skipped\n")


@pytest.mark.parametrize("stage", STAGES)
def test_ci_fails_where_a_stage_fails(ci: Path, stage: str) -> None:
    done = run_ci(ci, FAILS=stage)

    assert done.returncode == 1
    assert f"failed: make {stage}\n" in done.stdout
    assert done.stdout.endswith("5 passed, 1 failed, 0 skipped\n")
