# SPDX-License-Identifier: Apache-2.0
"""Pods come and go under steady traffic: one that is told to go loses no stream, one that is killed only its own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.cluster.conftest import IMAGE, RELEASE
from tests.cluster.steady import Departures, steady_traffic

if TYPE_CHECKING:
    from tests.cluster.kube import Namespace

GATEWAYS = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component=gateway"
ENGINES = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component=engine"
AT_LEAST = 20
STREAM_SECONDS = 40


@pytest.mark.parametrize(
    ("deployment", "selector"),
    [(RELEASE, GATEWAYS), (f"{RELEASE}-engine-sim", ENGINES)],
    ids=["the gateway", "the backend"],
)
def test_a_rolling_update_loses_no_stream(
    served: Namespace, deployment: str, selector: str, figures: list[str]
) -> None:
    with steady_traffic(served, IMAGE, RELEASE) as traffic:
        time.sleep(STREAM_SECONDS)  # until every stream has begun
        departures = Departures(served, selector)
        served.kubectl("rollout", "restart", f"deployment/{deployment}")
        in_flight = departures.in_flight()
        departures.gone()

    figures.append(f"{deployment}: in flight where SIGTERM came: {in_flight}; endings: {traffic.endings}")
    assert len(in_flight) == 2
    assert min(in_flight) >= AT_LEAST
    assert traffic.failed == {}


def test_a_killed_backend_interrupts_its_own_streams_and_no_others(served: Namespace, figures: list[str]) -> None:
    with steady_traffic(served, IMAGE, RELEASE) as traffic:
        time.sleep(STREAM_SECONDS)
        victim = served.names(ENGINES)[0]
        served.kubectl("delete", "pod", victim, "--force", "--grace-period=0")
        served.kubectl("rollout", "status", f"deployment/{RELEASE}-engine-sim", "--timeout=60s")
        time.sleep(STREAM_SECONDS)  # until whatever was there has ended, and more has begun

    figures.append(f"{victim} killed; endings: {traffic.endings}")
    assert set(traffic.failed) <= {"ABORTED STREAM_INTERRUPTED", "ABORTED STREAM_STALLED"}
    assert sum(traffic.failed.values()) >= AT_LEAST
    assert traffic.endings["OK"] > sum(traffic.failed.values())
