# SPDX-License-Identifier: Apache-2.0
"""Tests of the chart: they read what a real helm makes of it, and need no cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chart.rendering import helm_path


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test, before `-m` chooses among them; skip them where there is no helm."""
    here = Path(__file__).parent
    missing = pytest.mark.skip(reason="no helm: neither HELM, nor .cache/bin/helm, nor one on the PATH")
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.chart)
            if helm_path() is None:
                item.add_marker(missing)
