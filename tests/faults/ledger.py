# SPDX-License-Identifier: Apache-2.0
"""I3, I5 and I6 by the gateway's own metrics: nothing runs any more, and what is counted is what the log tells."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.kit.operating import metrics_on, metrics_page

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client import Metric

    from tests.kit.gateway import RunningGateway
    from tests.kit.logs import Logs

PATIENCE = 10.0
IDLE = ("in_flight", "queued", "queued_bytes", "model_in_flight", "model_queued", "backend_in_flight")
"""Gauges that are back at 0 when every call has ended."""


async def confirm_metrics(gateway: RunningGateway, logs: Logs) -> str:
    """Wait until the metrics say that all is over, and that they know of it what the log knows; gives the page."""
    give_up = time.monotonic() + PATIENCE
    page = await metrics_page(gateway)
    while (wrong := list(_differences(metrics_on(page), logs.calls))) and time.monotonic() < give_up:
        await asyncio.sleep(0.01)  # a call is counted after it was logged
        page = await metrics_page(gateway)
    assert wrong == []
    return page


def _differences(metrics: Mapping[str, Metric], lines: list[dict[str, Any]]) -> Iterator[str]:
    """What is not as it should be, in words."""
    for gauge in IDLE:
        if _sum(metrics, gauge):
            yield f"I3: {gauge} is not 0"
    if _sum(metrics, "calls_started_total") != _sum(metrics, "calls_total"):
        yield "I6: not every call that began has ended"
    counted = Counter[tuple[str, str]]()
    for sample in metrics["llm_gateway_calls_total"].samples:
        counted[sample.labels["code"], sample.labels["reason"]] += int(sample.value)
    told = Counter((line["status"], line["reason"] or "") for line in lines)
    if counted != told:
        yield f"I6: counted are {dict(counted)}, the log tells of {dict(told)}"
    tokens = {kind: _sum(metrics, "tokens_total", kind=kind) for kind in ("prompt", "completion")}
    logged = {kind: sum(line[f"{kind}_tokens"] for line in lines) for kind in tokens}
    if tokens != logged:
        yield f"I5: accounted are {tokens}, the log tells of {logged}"


def _sum(metrics: Mapping[str, Metric], name: str, **labels: str) -> float:
    samples = metrics[f"llm_gateway_{name}"].samples
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())
