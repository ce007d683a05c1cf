# SPDX-License-Identifier: Apache-2.0
"""The composition root: settings in, a running gateway out. Nothing else puts the parts together."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from llm_gateway import __version__
from llm_gateway.admin import AdminServicer
from llm_gateway.admission import Admission, Limits, Pressure
from llm_gateway.backends.dialect import DIALECTS
from llm_gateway.backends.openai import OpenAIBackend
from llm_gateway.codec.metrics import GatewayCollector
from llm_gateway.codec.status import Sources
from llm_gateway.config_file import load
from llm_gateway.config_watcher import ConfigWatcher
from llm_gateway.gateway import Gateway
from llm_gateway.health import HealthBoard
from llm_gateway.observability.journal import NO_FILE, Journal
from llm_gateway.server import AdminServer, MetricsServer, Server, ServerOptions
from llm_gateway.servicer import SERVICE, LLMServicer
from llm_gateway.settings import given_variables, secrets_directory
from llm_gateway.upstream.budget import RetryBudget
from llm_gateway.upstream.ejection import Ejection, EjectionPolicy
from llm_gateway.upstream.endpoint import Endpoint
from llm_gateway.upstream.prober import ProbeIntervals, Prober
from llm_gateway.upstream.resolver import Refresher, resolve
from llm_gateway.upstream.retry import RetryPolicy
from llm_gateway.upstream.router import Router
from llm_gateway.upstream.spec import ANY_MODEL, Address, BackendSpec, ModelSpec, Timeouts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from llm_gateway.admission.memory import Memory
    from llm_gateway.config_file import Config
    from llm_gateway.settings import Settings

LOG = logging.getLogger(__name__)
BACKEND_NAME = "vllm"


def read_config(settings: Settings) -> Config | None:
    """What CONFIG_FILE says; None where there is none. Raises ConfigFileError."""
    if settings.config_file is None:
        return None
    return load(
        settings.config_file,
        given_variables(),
        secrets_dir=secrets_directory(),
        default_model=settings.default_model,
    )


def model_specs(settings: Settings, config: Config | None = None) -> Sequence[ModelSpec]:
    """What is configured: the models of the file, or else whatever the server at VLLM_URL serves."""
    if config is not None:
        return config.specs(_timeouts(settings))
    key = settings.vllm_api_key
    backend = BackendSpec(
        name=BACKEND_NAME,
        urls=(settings.vllm_url,),
        api_key=key.get_secret_value() if key is not None else None,
        timeouts=_timeouts(settings),
    )
    return (ModelSpec(name=ANY_MODEL, backends=(backend,)),)


def make_backend(spec: BackendSpec, address: Address, settings: Settings) -> OpenAIBackend:
    """The driver for one address of a backend, with a name that tells it from the backend's other ones."""
    return OpenAIBackend(
        spec.name if spec.alone else f"{spec.name}@{address.url.partition('://')[2]}",
        address.url,
        dialect=DIALECTS[spec.dialect],
        api_key=spec.api_key,
        connect_timeout=spec.timeouts.connect,
        max_event_bytes=settings.backend.max_event_bytes,
        host=address.host,
    )


@asynccontextmanager
async def running(
    settings: Settings, *, heed_signals: bool = False, memory: Memory | None = None
) -> AsyncIterator[Server]:
    """A gateway that listens; it is closed at the end, drained or not. `heed_signals` is for one that is then `run`.

    `memory` is whose shortage sheds calls: the machine's, but in tests.

    Raises ConfigFileError, or what the server's start raises.
    """
    config = read_config(settings)
    router = make_router(settings)
    pressure = _pressure(settings, memory)
    admission = Admission(_limits(settings), pressure=pressure)
    watcher = _watcher(settings, config, router, admission)
    refresher = Refresher(router.refresh, interval=settings.health.resolve_interval_ms / 1000)
    sources = Sources(
        router=router,
        admission=admission,
        pressure=pressure,
        journal=Journal(),
        config=watcher.statistics if watcher is not None else lambda: NO_FILE,
    )
    health = HealthBoard(SERVICE, router.answers, interval=settings.health.probe_interval_ms / 1000)
    server = Server(
        LLMServicer(
            _gateway(settings, router, admission),
            max_message_bytes=settings.server.max_message_bytes,
            extensions=settings.backend.extensions,
        ),
        admission=admission,
        health=health,
        options=_server_options(settings),
        timeout=settings.timeout_ms / 1000,
        journal=sources.journal,
    )
    server.admin = _admin(settings, sources, health)
    server.metrics = _metrics(settings, sources)
    try:
        if heed_signals:
            server.heed_signals()
        await router.apply(model_specs(settings, config), settings.default_model)
        refresher.start()
        if watcher is not None:
            watcher.start()
        pressure.start()
        await server.start()
        yield server
    finally:
        await server.stop()
        pressure.stop()
        if watcher is not None:
            await watcher.stop()
        await refresher.stop()
        await router.close()


def make_router(settings: Settings) -> Router:
    """A router without models yet."""
    policy = _ejection_policy(settings)
    health, retry = settings.health, settings.retry

    def make_endpoint(spec: BackendSpec, address: Address, on_change: Callable[[], None]) -> Endpoint:
        backend = make_backend(spec, address, settings)
        return Endpoint(backend, spec, address, ejection=Ejection(policy, on_change=on_change))

    intervals = ProbeIntervals(
        readiness=health.probe_interval_ms / 1000,
        timeout=health.probe_timeout_ms / 1000,
        load=health.load_interval_ms / 1000 or None,
    )
    return Router(
        make_endpoint,
        make_budget=lambda: RetryBudget(share=retry.budget_percent / 100, floor=retry.budget_floor),
        resolve=resolve,
        prober=Prober(intervals),
    )


async def serve(settings: Settings) -> int:
    """Run a gateway until it is told to end. Gives the exit code."""
    file = settings.config_file
    source = {"vllm_url": settings.vllm_url} if file is None else {"config_file": str(file)}
    LOG.info("starting", extra={"version": __version__, **source})
    async with running(settings, heed_signals=True) as server:
        return await server.run()


def run(settings: Settings) -> int:
    """`serve` in an event loop of its own; uvloop's, where there is one."""
    _spare_the_collector()
    try:
        import uvloop  # noqa: PLC0415 - absent on some platforms
    except ImportError:
        return asyncio.run(serve(settings))
    return uvloop.run(serve(settings))


def _spare_the_collector() -> None:
    """What was made until now stays for good: do not search it for garbage again and again, nor every 700 objects.

    A call makes hardly any cycles; what it makes goes by reference counts.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _watcher(settings: Settings, config: Config | None, router: Router, admission: Admission) -> ConfigWatcher | None:
    """What puts a changed CONFIG_FILE into force; None where there is none."""
    path = settings.config_file
    if path is None or config is None:
        return None

    async def apply(changed: Config) -> None:
        specs = model_specs(settings, changed)
        await router.apply(specs, settings.default_model)
        for spec in specs:
            admission.resize(spec.name, spec.seats)  # who waits need not wait for the next call that comes or leaves

    def reload() -> Config:
        changed = read_config(settings)
        assert changed is not None, "there is a file"  # noqa: S101 - narrows the type
        return changed

    return ConfigWatcher(path, config, load=reload, apply=apply, interval=settings.config_poll_interval_ms / 1000)


def _admin(settings: Settings, sources: Sources, health: HealthBoard) -> AdminServer | None:
    """What the operator looks at; None where it is off."""
    if not settings.admin.enabled:
        return None
    return AdminServer(
        AdminServicer(sources),
        health=health,
        options=replace(_server_options(settings), host=settings.admin.host, port=settings.admin.port),
        timeout=settings.timeout_ms / 1000,
        journal=sources.journal,
    )


def _metrics(settings: Settings, sources: Sources) -> MetricsServer | None:
    """What Prometheus scrapes; None where it is off."""
    if not settings.metrics.enabled:
        return None
    return MetricsServer(GatewayCollector(sources), host=settings.metrics.host, port=settings.metrics.port)


def _gateway(settings: Settings, router: Router, admission: Admission) -> Gateway:
    retry = settings.retry
    return Gateway(
        router=router,
        admission=admission,
        retry=RetryPolicy(retry.max_attempts, backoff=retry.backoff_ms / 1000, max_backoff=retry.max_backoff_ms / 1000),
        max_stall=settings.server.max_stall_ms / 1000,
    )


def _limits(settings: Settings) -> Limits:
    admission = settings.admission
    return Limits(
        max_in_flight=admission.max_in_flight,
        max_queued=admission.max_queued,
        max_queued_bytes=admission.max_queued_bytes,
        max_wait=admission.max_wait_ms / 1000,
    )


def _pressure(settings: Settings, memory: Memory | None) -> Pressure:
    admission = settings.admission
    return Pressure(
        max_memory=admission.memory_percent / 100 or math.inf,
        max_loop_lag=admission.max_loop_lag_ms / 1000,
        memory=memory,
    )


def _ejection_policy(settings: Settings) -> EjectionPolicy:
    ejection = settings.ejection
    return EjectionPolicy(
        local_failures=ejection.local_failures,
        answer_failures=ejection.answer_failures,
        base=ejection.base_ms / 1000,
        longest=ejection.longest_ms / 1000,
    )


def _timeouts(settings: Settings) -> Timeouts:
    timeouts = settings.timeouts
    return Timeouts(
        connect=timeouts.connect_ms / 1000,
        first_token=timeouts.first_token_ms / 1000,
        idle=timeouts.idle_ms / 1000,
        usage=timeouts.usage_ms / 1000,
    )


def _server_options(settings: Settings) -> ServerOptions:
    server = settings.server
    age = server.max_connection_age_ms
    return ServerOptions(
        host=server.host,
        port=settings.port,
        reflection=server.reflection,
        max_message_bytes=server.max_message_bytes,
        max_metadata_bytes=server.max_metadata_bytes,
        max_concurrent_streams=server.max_concurrent_streams,
        keepalive_time=server.keepalive_time_ms / 1000,
        keepalive_timeout=server.keepalive_timeout_ms / 1000,
        min_ping_interval=server.min_ping_interval_ms / 1000,
        max_connection_age=None if age is None else age / 1000,
        drain_delay=server.drain_delay_ms / 1000,
        drain_grace=server.drain_grace_ms / 1000,
    )
