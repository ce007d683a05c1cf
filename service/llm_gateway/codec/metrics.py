# SPDX-License-Identifier: Apache-2.0
"""The gateway's state to Prometheus, read when it is scraped: what runs pays nothing for it.

Every label is a word that is known beforehand or a name that is configured: no request id, and no name of a model that
only a caller gave it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from llm_gateway import __version__
from llm_gateway.observability.journal import Phase
from llm_gateway.upstream.ejection import Health

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.core import Metric

    from llm_gateway.admission import Admission, Pressure
    from llm_gateway.codec.status import Sources
    from llm_gateway.observability.journal import ConfigStatistics, Journal
    from llm_gateway.upstream.router import ModelStatistics

    Rows = Iterable[tuple[tuple[str, ...], float]]

ANY = "any"
"""What a model is called that stands for whatever its backend serves."""
MODEL = ("model",)
BACKEND = ("model", "backend")


class GatewayCollector(Collector):
    """Gives every metric of the gateway, as it is at that moment."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: whoever registers this need not ask for the state."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The metrics of one scrape."""
        sources = self._sources
        models = sources.router.statistics()
        yield from _of_process(sources.journal, sources.pressure)
        yield from _of_calls(sources.journal)
        yield from _of_admission(sources.admission)
        yield from _of_models(models, sources.admission)
        yield from _of_budgets(models)
        yield from _of_backends(models)
        yield from _of_reports(models)
        yield from _of_config(sources.config())


def _of_process(journal: Journal, pressure: Pressure) -> Iterator[Metric]:
    now = pressure.statistics()
    share = () if now.memory_share is None else [((), now.memory_share)]
    yield _gauges("build_info", "1, for the version that runs.", ("version",), [((__version__,), 1)])
    yield _gauge("draining", "1 while the gateway is shutting down, else 0.", journal.phase is Phase.DRAINING)
    yield _gauge("event_loop_lag_seconds", "How far the process is behind with its own work.", now.loop_lag)
    yield _gauges("memory_usage_ratio", "Memory in use, of what may be used; absent without a limit.", (), share)


def _of_calls(journal: Journal) -> Iterator[Metric]:
    began = (((rpc,), count) for rpc, count in journal.began.items())
    yield _counters("calls_started", "Calls that came.", ("rpc",), began)
    yield _counters(
        "calls",
        "Calls that ended, by status code and, where it is not OK, reason.",
        ("rpc", "code", "reason"),
        journal.ended.items(),
    )
    yield _counters(
        "attempts",
        "Tries at backends of the calls that ended: answers, and questions that failed.",
        ("backend", "outcome", "reason"),
        journal.attempts.items(),
    )
    tokens = (((kind,), count) for kind, count in journal.tokens.items())
    yield _counters("tokens", "Tokens of the calls that ended; kind is prompt or completion.", ("kind",), tokens)


def _of_admission(admission: Admission) -> Iterator[Metric]:
    now = admission.statistics()
    yield _gauge("in_flight", "Calls that have a seat.", now.in_flight)
    yield _gauge("in_flight_limit", "Seats of the gateway.", now.max_in_flight)
    yield _gauge("queued", "Calls that wait for a seat.", now.queued)
    yield _gauge("queued_bytes", "Bytes of the requests that wait for a seat.", now.queued_bytes)
    yield _counter("admitted", "Calls that got a seat.", now.admitted)
    rejected = (((reason,), count) for reason, count in now.rejected.items())
    yield _counters("rejected", "Calls that were refused on arrival.", ("reason",), rejected)
    yield _counter("shed", "Those of them that were refused because the gateway was short of memory or time.", now.shed)
    evicted = (((reason,), count) for reason, count in now.evicted.items())
    yield _counters("evicted", "Calls that waited for a seat and got none.", ("reason",), evicted)


def _of_models(models: Iterable[ModelStatistics], admission: Admission) -> Iterator[Metric]:
    now = [((model.name or ANY,), model.seats, admission.model_statistics(model.name)) for model in models]
    in_flight = ((name, float(seats.in_flight)) for name, _, seats in now)
    yield _gauges("model_in_flight", "Calls of a model that have a seat.", MODEL, in_flight)
    limits = ((name, float(limit)) for name, limit, _ in now if limit is not None)
    yield _gauges("model_in_flight_limit", "Seats of a model; absent where it has no limit of its own.", MODEL, limits)
    queued = ((name, float(seats.queued)) for name, _, seats in now)
    yield _gauges("model_queued", "Calls of a model that wait for a seat.", MODEL, queued)


def _of_budgets(models: Iterable[ModelStatistics]) -> Iterator[Metric]:
    now = [((model.name or ANY,), model.retries) for model in models]
    calls = ((name, float(retries.requests)) for name, retries in now)
    yield _gauges(
        "retry_budget_calls", "Calls of a model in the last 10 s, of which its retry budget is a share.", MODEL, calls
    )
    further = ((name, float(retries.retries)) for name, retries in now)
    yield _gauges("retry_budget_retries", "Further attempts of a model in the last 10 s.", MODEL, further)
    refused = ((name, float(retries.refused)) for name, retries in now)
    yield _counters("retries_refused", "Further attempts that a model's retry budget did not allow.", MODEL, refused)


def _of_backends(models: Iterable[ModelStatistics]) -> Iterator[Metric]:
    now = [((model.name or ANY, endpoint.name), endpoint) for model in models for endpoint in model.endpoints]
    in_flight = ((names, float(endpoint.in_flight)) for names, endpoint in now)
    yield _gauges("backend_in_flight", "Calls that a backend serves for this gateway.", BACKEND, in_flight)
    health = (((*names, state.value), float(endpoint.health is state)) for names, endpoint in now for state in Health)
    yield _gauges(
        "backend_health", "1 for the state that a backend is in, 0 for the others.", (*BACKEND, "health"), health
    )
    failures = ((names, float(endpoint.consecutive_failures)) for names, endpoint in now)
    yield _gauges("backend_consecutive_failures", "Calls that failed on a backend in a row.", BACKEND, failures)
    ejections = ((names, float(endpoint.ejections)) for names, endpoint in now)
    yield _counters("backend_ejections", "How often a backend was ejected.", BACKEND, ejections)


def _of_reports(models: Iterable[ModelStatistics]) -> Iterator[Metric]:
    """What the backends say of themselves; those that do not say are absent."""
    said = [
        ((model.name or ANY, endpoint.name), endpoint.report)
        for model in models
        for endpoint in model.endpoints
        if endpoint.report is not None
    ]
    running = ((names, float(report.running)) for names, report in said)
    yield _gauges("backend_reported_running", "Calls that run on a backend, by its own metrics.", BACKEND, running)
    waiting = ((names, float(report.waiting)) for names, report in said)
    yield _gauges("backend_reported_waiting", "Calls that wait on a backend, by its own metrics.", BACKEND, waiting)
    usage = ((names, report.kv_usage) for names, report in said if report.kv_usage is not None)
    yield _gauges(
        "backend_reported_kv_usage_ratio", "KV cache of a backend in use, by its own metrics.", BACKEND, usage
    )


def _of_config(config: ConfigStatistics) -> Iterator[Metric]:
    """Without a CONFIG_FILE there is nothing to tell."""
    there = bool(config.version)
    yield _gauges("config_info", "1, for the configuration in force.", ("version",), [((config.version,), 1)] * there)
    yield _gauges(
        "config_last_reload_success",
        "0 while the CONFIG_FILE is wrong and what was in force before stays so, else 1.",
        (),
        [((), config.last_reload_ok)] * there,
    )
    yield _counters(
        "config_reloads",
        "Changes of the CONFIG_FILE that were put into force (ok) or refused (failed).",
        ("result",),
        [(("ok",), config.reloads_ok), (("failed",), config.reloads_failed)] * there,
    )


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return _gauges(name, meaning, (), [((), value)])


def _counter(name: str, meaning: str, value: float) -> Metric:
    return _counters(name, meaning, (), [((), value)])


def _gauges(name: str, meaning: str, labels: tuple[str, ...], rows: Rows) -> Metric:
    family = GaugeMetricFamily(f"llm_gateway_{name}", meaning, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _counters(name: str, meaning: str, labels: tuple[str, ...], rows: Rows) -> Metric:
    family = CounterMetricFamily(f"llm_gateway_{name}", meaning, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family
