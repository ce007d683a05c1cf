# SPDX-License-Identifier: Apache-2.0
"""`make bench` as its user runs it, but quick: the figures are judged by a person, their presence here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench import processes
from tests.bench.before_after import AFTER, BEFORE, UNITS
from tests.bench.choice import CASES
from tests.bench.plan import QUICK
from tests.bench.report import ORDER
from tests.bench.run import AIO, OURS

LONGEST_RUN = 50


def command(*arguments: str, before: str = "") -> subprocess.Popen[str]:
    """The benchmark, started."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.bench", *arguments],
        cwd=processes.ROOT,
        env=kept | {"BENCH": "quick", "PEERS": "", "ROUNDS": "", "BEFORE": before},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def stop(process: subprocess.Popen[str]) -> None:
    """End it if a test failed to; SIGTERM, for it has children."""
    if process.poll() is None:
        process.terminate()
    process.communicate(timeout=LONGEST_RUN)


def figures(file: Path, *, before: str = "") -> tuple[str, dict[str, Any]]:
    """What a quick run printed, and what it wrote."""
    process = command("--json", str(file), before=before)
    try:
        printed, said = process.communicate(timeout=LONGEST_RUN)
    finally:
        stop(process)
    assert process.returncode == 0, said
    return printed, json.loads(file.read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """A run as it usually is."""
    return figures(tmp_path_factory.mktemp("bench") / "figures.json")


def test_every_figure_is_printed(run: tuple[str, dict[str, Any]]) -> None:
    printed, _ = run

    missing = [row for row in (*ORDER, OURS, AIO, "added p50", "added p99", "kB per stream") if row not in printed]
    assert missing == []


def test_the_json_has_every_workload_with_a_cost(run: tuple[str, dict[str, Any]]) -> None:
    _, found = run

    assert sorted(found["cpu_us"]) == sorted(ORDER)
    assert all(servers[OURS]["median"] > 0 for servers in found["cpu_us"].values())


def test_a_paced_token_costs_more_than_an_unpaced_one_which_shares_its_message(
    run: tuple[str, dict[str, Any]],
) -> None:
    costs = run[1]["cpu_us"]

    assert costs["token, 128 streams at 20 ms"][OURS]["median"] > costs["token, 32 streams unpaced"][OURS]["median"]


def test_all_streams_of_a_wave_are_open_together_and_end_well(run: tuple[str, dict[str, Any]]) -> None:
    _, found = run

    assert [(wave["streams"], wave["together"], wave["errors"]) for wave in found["memory"]] == [(60, 60, 0)] * 2


def test_choices_failovers_and_cancels_are_in_the_json(run: tuple[str, dict[str, Any]]) -> None:
    _, found = run

    assert [choice["name"] for choice in found["choice"]] == [case.name for case in CASES]
    assert [len(times) for times in found["failover_s"].values()] == [QUICK.failovers] * 2
    assert len(found["cancel_s"]) == QUICK.cancelled * QUICK.few_rounds


def test_two_gateways_are_compared_figure_by_figure(tmp_path: Path) -> None:
    printed, written = figures(tmp_path / "figures.json", before="HEAD")
    found = written["figures"]

    assert [figure for figure in UNITS if figure not in printed] == []
    samples = {figure: [len(sides[side]["samples"]) for side in (BEFORE, AFTER)] for figure, sides in found.items()}
    assert samples == {figure: [1, 1] for figure in UNITS}


def test_a_revision_that_is_not_there_is_said_and_nothing_is_started() -> None:
    process = command(before="no-such-revision")
    try:
        printed, said = process.communicate(timeout=LONGEST_RUN)
    finally:
        stop(process)

    assert (process.returncode, printed, said) == (2, "", "BEFORE=no-such-revision: there is no such revision\n")


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM], ids=["ctrl_c", "terminated"])
def test_an_interrupted_run_stops_its_processes(told: signal.Signals) -> None:
    process = command()
    try:
        assert process.stderr is not None
        assert "round 1" in process.stderr.readline()
        children = processes.family(process.pid)[1:]
        process.send_signal(told)
        process.communicate(timeout=LONGEST_RUN)
    finally:
        stop(process)

    assert len(children) == 2, "the simulator and the gateway"
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []
    assert process.returncode == 130
