# SPDX-License-Identifier: Apache-2.0
"""The gateway's source as it was at a revision, and as it is now: two trees that run side by side."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.bench import processes
from tests.bench.processes import ROOT, SCRATCH

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCE = "service"
LONGEST_GIT = 60.0


class RevisionError(Exception):
    """There is no such revision, or no history to look it up in."""


def resolved(revision: str, *, repository: Path = ROOT) -> str:
    """The commit that a name, a tag or a short hash means. Raises RevisionError."""
    name = f"{revision}^{{commit}}"
    return _git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", name).decode().strip()


def exported(commit: str, *, repository: Path = ROOT, scratch: Path = SCRATCH) -> Path:
    """The source of a commit, unpacked once; the folder for PYTHONPATH."""
    tree = scratch / commit
    if not tree.exists():
        archive = _git(repository, "archive", "--format=tar", commit, SOURCE)
        with processes.scratch_folder(scratch) as folder:
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                tar.extractall(folder, filter="data")
            (folder / SOURCE).rename(tree)  # whole or not at all
    return tree


@contextmanager
def present(*, repository: Path = ROOT, scratch: Path = SCRATCH) -> Iterator[Path]:
    """The source as it is now, copied: what is edited during the run is not measured by half."""
    with processes.scratch_folder(scratch) as folder:
        tree = folder / SOURCE
        shutil.copytree(repository / SOURCE, tree, ignore=shutil.ignore_patterns("__pycache__"))
        yield tree


def _git(repository: Path, *arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", *arguments], cwd=repository, capture_output=True, check=True, timeout=LONGEST_GIT)
    except FileNotFoundError:
        raise RevisionError("git is not installed") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        raise RevisionError(said or "there is no such revision") from None
    return done.stdout
