# SPDX-License-Identifier: Apache-2.0
"""The project keeps to its rooms, and every file says whose it is."""

import fnmatch

import pytest

from tests.house.tree import ROOT, project_files

ALLOWED = [
    *(".*", "CHANGELOG.md", "Dockerfile", "LICENSE", "Makefile", "README.md"),
    *("pyproject.toml", "requirements*.lock", "skaffold.yaml"),
    *("charts", "docs", "examples", "k8s", "proto", "service", "tests"),
]
HEADER = "SPDX-License-Identifier: Apache-2.0"
BEARS_A_HEADER = ["*.py", "*.pyi", "*.proto", "*.toml", "*.yaml", "*.sh", "*.tpl", "Makefile", "Dockerfile", ".ci/*"]
BEARS_NONE = ["service/llm_gateway/v1/*_pb2*", "tests/recordings/*", "*.conflist"]  # JSON has no comments


def matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def test_the_top_level_holds_only_what_belongs_there() -> None:
    strangers = {path.parts[0] for path in project_files() if not matches(path.parts[0], ALLOWED)}

    assert strangers == set()


def test_every_file_that_can_bears_the_licence() -> None:
    names = [str(path) for path in project_files()]
    bearers = [name for name in names if matches(name, BEARS_A_HEADER) and not matches(name, BEARS_NONE)]

    without = [name for name in bearers if HEADER not in (ROOT / name).read_text(encoding="utf-8")[:200]]

    assert without == []


@pytest.mark.parametrize("ignored", [".venv", ".cache", ".env", "service/llm_gateway/__pycache__"])
def test_what_the_targets_make_is_no_part_of_the_project(ignored: str) -> None:
    assert [path for path in project_files() if path.is_relative_to(ignored)] == []
