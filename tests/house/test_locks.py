# SPDX-License-Identifier: Apache-2.0
"""The locks are exact, agree with each other, and hold on any machine."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.house.tree import ROOT

RUNTIME = ROOT / "requirements.lock"
BUILD = ROOT / "requirements-build.lock"
DEVELOPMENT = ROOT / "requirements-dev.lock"
RELOAD = ROOT / "requirements-reload.lock"

every_lock = pytest.mark.parametrize("lock", [RUNTIME, BUILD, RELOAD, DEVELOPMENT], ids=lambda path: path.stem)


def pins(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==(\S+)", lock.read_text(encoding="utf-8"), re.MULTILINE))


def entries(lock: Path) -> list[str]:
    """Each requirement with its hashes, comments left out."""
    text = re.sub(r"^ *#.*\n", "", lock.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return re.split(r"\n(?=\S)", text.replace("\\\n", "").strip())


def extras_wanted(package: str) -> list[Requirement]:
    """What an installed package requires together with an extra; nothing where it is not for this platform."""
    try:
        required = [Requirement(line) for line in requires(package) or ()]
    except PackageNotFoundError:
        return []
    return [one for one in required if one.extras and (one.marker is None or one.marker.evaluate({"extra": ""}))]


def is_locked(wanted: Requirement, text: str) -> bool:
    locked = re.search(rf"^{re.escape(wanted.name)}\[([\w,-]+)\]==", text, re.MULTILINE)
    return locked is not None and wanted.extras <= set(locked[1].split(","))


@every_lock
def test_every_entry_is_pinned_and_hashed(lock: Path) -> None:
    loose = [entry for entry in entries(lock) if not re.match(r"[\w.,\[\]-]+==\S+.* --hash=sha256:", entry, re.DOTALL)]

    assert loose == []


@every_lock
def test_no_lock_names_a_host_or_a_path(lock: Path) -> None:
    named = re.findall(r"^.*(?:://|file:|--\w*index|--find-links|(?:^|\s)~?/\w).*$", lock.read_text(), re.MULTILINE)

    assert named == []


@every_lock
def test_an_extra_that_a_package_wants_is_locked_with_its_extra(lock: Path) -> None:
    """`coverage` alone does not pin `coverage[toml]`: pip then takes the newest release, which has no hash here."""
    text = lock.read_text(encoding="utf-8")

    unlocked = [wanted for name in pins(lock) for wanted in extras_wanted(name) if not is_locked(wanted, text)]

    assert unlocked == []


@pytest.mark.parametrize("lock", [RUNTIME, BUILD], ids=lambda path: path.stem)
def test_development_uses_the_very_versions_that_run(lock: Path) -> None:
    development = pins(DEVELOPMENT)

    assert {name: development.get(name) for name in pins(lock)} == pins(lock)


@pytest.mark.parametrize("group", ["dependencies", "build", "reload", "dev"])
def test_every_requirement_of_the_project_is_locked(group: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    required = project["project"]["dependencies"] if group == "dependencies" else project["dependency-groups"][group]
    lock = {"dependencies": RUNTIME, "build": BUILD, "reload": RELOAD, "dev": DEVELOPMENT}[group]

    missing = [name for name in required if re.split(r"[^\w.-]", name)[0] not in pins(lock)]

    assert missing == []


def test_the_runtime_lock_holds_no_tool() -> None:
    assert pins(RUNTIME).keys() & {"hatchling", "pytest", "mypy", "ruff", "grpcio-tools", "uv"} == set()
