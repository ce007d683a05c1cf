# SPDX-License-Identifier: Apache-2.0
"""The table and the tests belong together: no row and no ending without a test, no test without a row."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from llm_gateway.v1 import error_pb2
from tests.faults.matrix import rows

if TYPE_CHECKING:
    from collections.abc import Callable

OF_THE_ISSUE = {*range(1, 37), 38, 39, 40, 42, 43, 44, *range(53, 59), 60, 61, 62, 65, 67, 68, 72, 73}
NO_REASON = {"", "–"}


def proofs() -> list[tuple[str, Callable[..., Any], tuple[Any, ...]]]:
    """Every test that proves a row: its name, itself, and what its marker says."""
    found: list[tuple[str, Callable[..., Any], tuple[Any, ...]]] = []
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        module = importlib.import_module(f"tests.faults.{path.stem}")
        for name, test in inspect.getmembers(module, inspect.isfunction):
            found += [(name, test, mark.args) for mark in getattr(test, "pytestmark", []) if mark.name == "row"]
    return found


def test_the_table_has_the_rows_that_were_asked_for() -> None:
    assert set(rows()) == OF_THE_ISSUE


def test_every_ending_is_one_of_the_contract() -> None:
    codes = {code.name for code in grpc.StatusCode} | {"EXIT"}
    reasons = {name.removeprefix("ERROR_REASON_") for name in error_pb2.ErrorReason.keys()} | NO_REASON | {"0", "1"}  # noqa: SIM118 - an enum's
    endings = [ending for row in rows().values() for case in row.endings.values() for ending in case]

    assert {ending for ending in endings if ending.code not in codes or ending.reason not in reasons} == set()
    assert [row.number for row in rows().values() for case in row.endings.values() if not case] == []


@pytest.mark.parametrize("number", sorted(OF_THE_ISSUE))
def test_every_case_of_a_row_has_a_test(number: int) -> None:
    proved = {case for _, _, (of, *cases) in proofs() if of == number for case in cases or [""]}

    assert set(rows()[number].endings) == proved


def test_every_test_is_named_for_its_row_and_reads_its_ending_from_the_table() -> None:
    wrong = [
        name
        for name, test, (number, *_) in proofs()
        if not name.startswith(f"test_row_{number:02}_") or "expected" not in inspect.signature(test).parameters
    ]

    assert wrong == []


def test_every_test_of_that_name_is_marked_with_its_row() -> None:
    marked = {name for name, _, _ in proofs()}
    named = set()
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        module = importlib.import_module(f"tests.faults.{path.stem}")
        named |= {name for name, _ in inspect.getmembers(module, inspect.isfunction) if name.startswith("test_row_")}

    assert named == marked
