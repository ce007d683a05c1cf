# SPDX-License-Identifier: Apache-2.0
"""The share of memory in use is found in whichever kind of control group there is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from llm_gateway.admission.memory import Memory

if TYPE_CHECKING:
    from pathlib import Path

PAGES = 100
RESIDENT = PAGES * os.sysconf("SC_PAGE_SIZE")


class Machine:
    """The files of a machine, as far as they tell of memory."""

    def __init__(self, directory: Path) -> None:
        self.cgroup = directory / "cgroup"
        self.proc = directory / "proc"
        self.proc.mkdir()
        (self.proc / "statm").write_text(f"500 {PAGES} 30 1 0 200 0\n")

    def belongs_to(self, *lines: str) -> None:
        (self.proc / "cgroup").write_text("".join(f"{line}\n" for line in lines))

    def v2(self, path: str, usage: int, limit: str, cached: int = 0) -> None:
        directory = self.cgroup / path
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "memory.current").write_text(f"{usage}\n")
        (directory / "memory.max").write_text(f"{limit}\n")
        (directory / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\nactive_file 7\n")

    def v1(self, path: str, usage: int, limit: int, cached: int = 0) -> None:
        directory = self.cgroup / "memory" / path
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "memory.usage_in_bytes").write_text(f"{usage}\n")
        (directory / "memory.limit_in_bytes").write_text(f"{limit}\n")
        (directory / "memory.stat").write_text(f"inactive_file 999\ntotal_inactive_file {cached}\n")

    def share(self, limit: int | None = None) -> float | None:
        return Memory(limit, cgroup=self.cgroup, proc=self.proc).share()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_in_a_container_its_group_is_the_root(machine: Machine) -> None:
    machine.belongs_to("0::/")
    machine.v2("", usage=60, limit="100")

    assert machine.share() == 0.6


def test_the_version_before_is_read_too(machine: Machine) -> None:
    machine.belongs_to("5:cpu,cpuacct:/pod", "4:memory:/pod", "0::/")
    machine.v1("pod", usage=60, limit=100, cached=20)

    assert machine.share() == 0.4


def test_in_the_version_before_the_container_may_see_its_group_as_the_root(machine: Machine) -> None:
    machine.belongs_to("4:memory:/docker/0123")
    machine.v1("", usage=60, limit=100)

    assert machine.share() == 0.6


def test_the_group_that_is_nearest_to_its_limit_counts(machine: Machine) -> None:
    machine.belongs_to("0::/pod/gateway")
    machine.v2("pod/gateway", usage=10, limit="100")
    machine.v2("pod", usage=140, limit="200")

    assert machine.share() == 0.7


def test_cached_files_that_can_be_dropped_do_not_count(machine: Machine) -> None:
    machine.belongs_to("0::/")
    machine.v2("", usage=95, limit="100", cached=50)

    assert machine.share() == 0.45


@pytest.mark.parametrize("version", [1, 2])
def test_a_group_without_a_limit_is_none(machine: Machine, version: int) -> None:
    machine.belongs_to("4:memory:/", "0::/")
    if version == 1:
        machine.v1("", usage=10, limit=9_223_372_036_854_771_712)
    else:
        machine.v2("", usage=10, limit="max")

    assert machine.share() is None


@pytest.mark.parametrize("groups", [(), ("0::/",)], ids=["no groups at all", "none that can be read"])
def test_without_a_group_the_process_is_measured_by_the_limit_that_was_given(
    machine: Machine, groups: tuple[str, ...]
) -> None:
    if groups:
        machine.belongs_to(*groups)

    assert machine.share(2 * RESIDENT) == 0.5
    assert machine.share() is None


def test_a_group_with_a_limit_beats_the_one_that_was_given(machine: Machine) -> None:
    machine.belongs_to("0::/")
    machine.v2("", usage=60, limit="100")

    assert machine.share(2 * RESIDENT) == 0.6


def test_this_machine_can_be_read() -> None:
    share = Memory().share()

    assert share is None or 0 < share < 2
