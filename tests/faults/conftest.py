# SPDX-License-Identifier: Apache-2.0
"""What every row's tests have: the ending that the table expects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.matrix import Expected, expected_of

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "row(number, *cases): proves a row of docs/fault-matrix.md")


@pytest.fixture
def expected(request: pytest.FixtureRequest) -> Iterator[Expected]:
    """How the calls of a row's test are to end, by the table; a test that does not ask has proved nothing."""
    marker = request.node.get_closest_marker("row")
    assert marker is not None, "the test belongs to no row"
    number, *cases = marker.args
    if marker.kwargs["together"]:
        found = Expected(cases={case: expected_of(number, case) for case in cases})
    elif len(cases) > 1:
        found = expected_of(number, request.node.callspec.params["case"])
    else:
        found = expected_of(number, next(iter(cases), ""))
    failed = request.session.testsfailed
    yield found
    assert found.asked or request.session.testsfailed > failed, "the test has not compared any ending with the table's"
