# SPDX-License-Identifier: Apache-2.0
"""/metrics as Prometheus reads it: what is counted adds up, and no label is a caller's word."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from llm_gateway import __version__
from llm_gateway.simulator import Behaviour, Fault
from tests.house.tree import ROOT
from tests.kit.calls import chat_request, read_stream, stream, unary
from tests.kit.gateway import NO_BACKEND, config_file
from tests.kit.operating import operate, operate_models
from tests.kit.scripted import DONE, STREAM_HEAD, Close, ScriptedBackend, chunk, json_response

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prometheus_client import Metric

    from llm_gateway.simulator import Simulator
    from tests.kit.calls import Outcome
    from tests.kit.gateway import RunningGateway
    from tests.kit.operating import Operated
    from tests.kit.scripted import Step

DOCUMENT = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
PREFIX = "llm_gateway_"


def value(metrics: dict[str, Metric], name: str, **labels: str) -> float:
    """The sum of the samples that have these labels."""
    samples = metrics[f"{PREFIX}{name}"].samples
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def samples(metrics: dict[str, Metric], name: str) -> dict[tuple[str, ...], float]:
    """The values of a metric by its labels' values."""
    return {tuple(sample.labels.values()): sample.value for sample in metrics[f"{PREFIX}{name}"].samples}


async def scraped_when(operated: Operated, condition: Callable[[dict[str, Metric]], object]) -> dict[str, Metric]:
    """The first scrape of which a condition holds."""
    async with asyncio.timeout(10):
        while not condition(metrics := await operated.scrape()):  # noqa: ASYNC110 - of whose coming nobody tells
            await asyncio.sleep(0.005)
    return metrics


def backend(url: str | list[str], name: str = "a", **fields: Any) -> dict[str, Any]:
    return {"name": name, "dialect": "vllm", "url": url, "model": "sim", **fields}


async def stream_of(gateway: RunningGateway, model: str) -> Outcome:
    request = chat_request()
    request.model = model
    return await read_stream(gateway.stub.ChatCompletionStream(request))


async def test_every_call_that_began_has_ended_in_one_way_or_runs(operated: Operated, simulator: Simulator) -> None:
    gateway = operated.gateway
    await stream(gateway)
    await unary(gateway, max_tokens=0)  # refused
    simulator.script(Behaviour(fault=Fault.EOF, after=2))
    await stream(gateway)  # breaks off
    simulator.script(*[Behaviour(fault=Fault.STALL, after=1)] * 2)
    left, running = operated.call("left"), operated.call("runs")
    await operated.when(lambda now: sum(call.deltas for call in now.calls) >= 2)
    left.cancel()
    metrics = await scraped_when(operated, lambda now: value(now, "calls_total", code="CANCELLED"))
    running.cancel()

    ends = {key[::-1]: count for key, count in samples(metrics, "calls_total").items() if "GetStatus" not in key}
    assert ends == {
        ("ChatCompletionStream", "", "OK"): 1,
        ("ChatCompletion", "INVALID_REQUEST", "INVALID_ARGUMENT"): 1,
        ("ChatCompletionStream", "STREAM_INTERRUPTED", "ABORTED"): 1,
        ("ChatCompletionStream", "", "CANCELLED"): 1,
    }
    assert value(metrics, "calls_started_total") == value(metrics, "calls_total") + 1
    assert value(metrics, "in_flight") == 1


async def test_attempts_are_counted_by_how_they_ended(simulator: Simulator) -> None:
    async with operate(simulator.url) as operated:
        simulator.script(Behaviour(fault=Fault.HTTP, status=500))
        outcome = await stream(operated.gateway)
        metrics = await scraped_when(operated, lambda now: value(now, "calls_total", rpc="ChatCompletionStream"))

    attempts = metrics["llm_gateway_attempts_total"].samples
    assert {(s.labels["backend"], s.labels["outcome"], s.labels["reason"]): s.value for s in attempts} == {
        ("vllm", "FAILED", "BACKEND_LOST"): 1,
        ("vllm", "SERVED", ""): 1,
    }
    assert samples(metrics, "retry_budget_retries") == {("any",): 1}
    assert value(metrics, "tokens_total", kind="completion") == outcome.completed.usage.completion_tokens


async def test_the_outage_of_one_model_takes_no_retries_from_another() -> None:
    there: Sequence[Step] = [STREAM_HEAD, chunk("hi"), chunk(finish="stop"), DONE, Close]
    async with ScriptedBackend([json_response("500 Oops", {})]) as bad, ScriptedBackend(there) as good:
        models = [
            {"name": "ill", "backends": [backend(bad.url)]},
            {"name": "well", "backends": [backend(bad.url), backend(good.url, "b", priority=1)]},
        ]
        async with operate_models(models, retry={"budget_floor": 1, "budget_percent": 0}) as operated:
            outcomes = [await stream_of(operated.gateway, name) for name in ("ill", "ill", "well")]
            metrics = await operated.scrape()

    assert [outcome.failure is None for outcome in outcomes] == [False, False, True]
    assert samples(metrics, "retry_budget_calls") == {("ill",): 2, ("well",): 1}
    assert samples(metrics, "retry_budget_retries") == {("ill",): 1, ("well",): 1}
    assert samples(metrics, "retries_refused_total") == {("ill",): 2, ("well",): 0}


async def test_an_address_is_no_label_of_what_adds_up(simulator: Simulator) -> None:
    """The addresses behind a name come and go; what is now has them, what is counted for good has not."""
    models = [{"name": "m", "backends": [backend([simulator.url, simulator.url.replace("127.0.0.1", "localhost")])]}]
    async with operate_models(models) as operated:
        await stream(operated.gateway)
        metrics = await scraped_when(operated, lambda now: value(now, "attempts_total"))

    assert value(metrics, "attempts_total", backend="a") == 1
    names = {sample.labels["backend"] for sample in metrics["llm_gateway_backend_in_flight"].samples}
    assert names == {f"a@{host}:{simulator.port}" for host in ("127.0.0.1", "localhost")}


async def test_what_callers_choose_is_no_label(operated: Operated) -> None:
    word = "a-word-of-the-callers"
    request = chat_request()
    request.model, request.user, request.session_id = word, word, word
    await read_stream(operated.gateway.stub.ChatCompletionStream(request, metadata=(("x-request-id", word),)))
    metrics = await scraped_when(operated, lambda now: value(now, "calls_total", rpc="ChatCompletionStream"))

    labels = {label for metric in metrics.values() for s in metric.samples for label in s.labels.values()}
    assert word not in labels
    assert "MODEL_NOT_FOUND" in labels


async def test_who_is_refused_and_who_gives_up_is_counted_by_reason(stalled: Simulator) -> None:
    async with operate(stalled.url, admission={"max_in_flight": 1, "max_queued": 1, "max_wait_ms": 100}) as operated:
        running = operated.call("runs")
        await operated.when(lambda now: now.seats.in_flight)
        waiting = operated.call("waits")
        during = await scraped_when(operated, lambda now: value(now, "queued"))
        await stream(operated.gateway)
        await read_stream(waiting)
        metrics = await operated.scrape()
        running.cancel()

    assert value(during, "queued_bytes") > 0
    assert value(during, "model_queued", model="any") == value(during, "model_in_flight", model="any") == 1
    assert samples(metrics, "rejected_total") == {("QUEUE_FULL",): 1}
    assert samples(metrics, "evicted_total") == {("QUEUE_TIMEOUT",): 1}
    assert (value(metrics, "admitted_total"), value(metrics, "in_flight_limit")) == (1, 1)
    assert value(metrics, "shed_total") == 0


async def test_a_backend_is_in_one_state(simulator: Simulator) -> None:
    models = [{"name": "m", "backends": [backend(simulator.url), backend(NO_BACKEND, "lost", priority=1)]}]
    async with operate_models(models, health={"probe_interval_ms": 5}) as operated:
        metrics = await scraped_when(operated, lambda now: value(now, "backend_health", health="ejected"))

    assert value(metrics, "backend_health", backend="a", health="healthy") == 1
    assert value(metrics, "backend_health", backend="lost", health="ejected") == 1
    assert value(metrics, "backend_health", model="m") == 2, "one state each"
    assert value(metrics, "backend_ejections_total", backend="lost") == 1


async def test_a_file_that_is_broken_is_seen(simulator: Simulator) -> None:
    with config_file([{"name": "m", "backends": [backend(simulator.url)]}]) as path:
        async with operate(NO_BACKEND, config_file=path, config_poll_interval_ms=5) as operated:
            before = await operated.scrape()
            path.write_text("models: none", encoding="utf-8")
            after = await scraped_when(operated, lambda now: not value(now, "config_last_reload_success"))

    assert value(before, "config_last_reload_success") == 1
    assert samples(after, "config_reloads_total") == {("ok",): 0, ("failed",): 1}
    assert samples(after, "config_info") == samples(before, "config_info")


async def test_a_drain_is_seen(operated: Operated, stalled: Simulator) -> None:
    call = operated.call()
    await operated.when(lambda now: now.seats.in_flight)
    before = await operated.scrape()
    draining = asyncio.create_task(operated.gateway.server.drain())
    during = await scraped_when(operated, lambda now: value(now, "draining"))
    call.cancel()
    await draining

    assert value(before, "draining") == 0
    assert value(during, "in_flight") == 1


async def test_the_process_and_the_version_are_told(operated: Operated) -> None:
    metrics = await operated.scrape()

    assert samples(metrics, "build_info") == {(__version__,): 1}
    assert value(metrics, "event_loop_lag_seconds") >= 0
    assert metrics["process_resident_memory_bytes"].samples[0].value > 0


async def test_the_page_is_what_its_document_says(simulator: Simulator) -> None:
    """Every metric with its kind, its labels and its meaning; and no other."""
    models = [{"name": "m", "max_in_flight": 1, "backends": [backend(simulator.url)]}]
    settings = {"health": {"load_interval_ms": 5}, "admission": {"max_queued": 0}}
    async with operate_models(models, **settings) as operated:
        simulator.script(Behaviour(fault=Fault.STALL, after=1))
        call = operated.call()
        await operated.when(lambda now: now.seats.in_flight)
        await stream(operated.gateway)
        metrics = await scraped_when(operated, lambda now: metrics_of(now, "backend_reported_running"))
        call.cancel()

    rows = re.findall(rf"^\| `({PREFIX}\w+)` \| (\w+) \| (.*) \| (.*) \|$", DOCUMENT, re.MULTILINE)
    told = {name: (kind, meaning) for name, kind, _, meaning in rows}
    assert told == {
        name: (metric.type, metric.documentation) for name, metric in metrics.items() if name.startswith(PREFIX)
    }
    labels = {name: set(re.findall(r"`(\w+)`", found)) for name, _, found, _ in rows}
    seen = {name: set(m.samples[0].labels) for name, m in metrics.items() if name.startswith(PREFIX) and m.samples}
    assert {name: labels[name] for name in seen} == seen


def metrics_of(metrics: dict[str, Metric], name: str) -> list[Any]:
    """The samples of a metric that may have none."""
    return metrics[f"{PREFIX}{name}"].samples
