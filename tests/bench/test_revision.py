# SPDX-License-Identifier: Apache-2.0
"""Two source trees side by side: what is measured as before is what was committed, and runs its own code."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.bench import processes, revision
from tests.bench.revision import RevisionError

if TYPE_CHECKING:
    from pathlib import Path

MODULE = "service/llm_gateway/words.py"


def git(repository: Path, *arguments: str) -> None:
    """As nobody in particular, whatever this user has configured."""
    nobody = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *nobody, *arguments], cwd=repository, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A history of one commit, and a change after it."""
    root = tmp_path / "repository"
    module = root / MODULE
    module.parent.mkdir(parents=True)
    module.write_text("committed")
    (module.parent / "__pycache__").mkdir()
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "one")
    module.write_text("changed")
    return root


def test_before_is_what_was_committed(repository: Path, tmp_path: Path) -> None:
    commit = revision.resolved("HEAD", repository=repository)

    tree = revision.exported(commit, repository=repository, scratch=tmp_path)

    assert (tree / "llm_gateway" / "words.py").read_text() == "committed"


def test_after_is_what_is_in_the_files_now(repository: Path, tmp_path: Path) -> None:
    with revision.present(repository=repository, scratch=tmp_path) as tree:
        found = {path.name: path.read_text() for path in (tree / "llm_gateway").iterdir()}

    assert found == {"words.py": "changed"}


def test_what_is_edited_during_a_run_is_not_measured(repository: Path, tmp_path: Path) -> None:
    with revision.present(repository=repository, scratch=tmp_path) as tree:
        (repository / MODULE).write_text("changed again")
        found = (tree / "llm_gateway" / "words.py").read_text()

    assert (found, tree.exists()) == ("changed", False)


def test_a_commit_is_exported_once(repository: Path, tmp_path: Path) -> None:
    commit = revision.resolved("HEAD", repository=repository)
    first = revision.exported(commit, repository=repository, scratch=tmp_path)
    (first / "compiled").touch()

    again = revision.exported(commit, repository=repository, scratch=tmp_path)

    assert (again / "compiled").exists()


@pytest.mark.parametrize("name", ["no-such-branch", "--help", ""])
def test_what_is_no_revision_is_refused(repository: Path, name: str) -> None:
    with pytest.raises(RevisionError):
        revision.resolved(name, repository=repository)


def test_without_a_history_there_is_no_before(tmp_path: Path) -> None:
    with pytest.raises(RevisionError):
        revision.resolved("HEAD", repository=tmp_path)


def test_the_gateway_of_a_tree_runs_the_code_of_that_tree(tmp_path: Path) -> None:
    package = tmp_path / "llm_gateway"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("raise SystemExit('another tree')")
    backend = processes.Process("nobody", [], port=1, cores=processes.CORES)

    with (
        pytest.raises(RuntimeError, match="another tree"),
        processes.gateway_of(tmp_path, backend, name="gateway-test"),
    ):
        pass
