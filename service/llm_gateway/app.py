# SPDX-License-Identifier: Apache-2.0
"""The composition root: settings in, a running gateway out. Nothing else puts the parts together."""

from __future__ import annotations

import asyncio
import gc
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from llm_gateway import __version__
from llm_gateway.admission import Admission
from llm_gateway.backends.vllm import VllmBackend
from llm_gateway.gateway import Gateway
from llm_gateway.health import HealthBoard
from llm_gateway.server import Server, ServerOptions
from llm_gateway.servicer import SERVICE, LLMServicer
from llm_gateway.upstream.retry import RetryPolicy
from llm_gateway.upstream.router import Router, Timeouts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llm_gateway.settings import Settings

LOG = logging.getLogger(__name__)
BACKEND_NAME = "vllm"


def make_backend(settings: Settings) -> VllmBackend:
    """The backend of a gateway that has only `VLLM_URL`."""
    key = settings.vllm_api_key
    return VllmBackend(
        BACKEND_NAME,
        settings.vllm_url,
        api_key=key.get_secret_value() if key is not None else None,
        connect_timeout=settings.timeouts.connect_ms / 1000,
        max_event_bytes=settings.backend.max_event_bytes,
    )


@asynccontextmanager
async def running(settings: Settings, *, heed_signals: bool = False) -> AsyncIterator[Server]:
    """A gateway that listens; it is closed at the end, drained or not. `heed_signals` is for one that is then `run`."""
    router = Router(
        make_backend(settings),
        address=settings.vllm_url,
        timeouts=_timeouts(settings),
        default_model=settings.default_model,
    )
    admission = Admission(settings.admission.max_in_flight)
    gateway = Gateway(router=router, admission=admission, retry=_retry_policy(settings))
    servicer = LLMServicer(
        gateway,
        max_message_bytes=settings.server.max_message_bytes,
        extensions=settings.backend.extensions,
    )
    health = HealthBoard(SERVICE, router.is_healthy, interval=settings.health.probe_interval_ms / 1000)
    server = Server(
        servicer,
        admission=admission,
        health=health,
        options=_server_options(settings),
        timeout=settings.timeout_ms / 1000,
    )
    try:
        if heed_signals:
            server.heed_signals()
        await server.start()
        yield server
    finally:
        await server.stop()
        await router.close()


async def serve(settings: Settings) -> int:
    """Run a gateway until it is told to end. Gives the exit code."""
    LOG.info("starting", extra={"version": __version__, "vllm_url": settings.vllm_url})
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


def _timeouts(settings: Settings) -> Timeouts:
    timeouts = settings.timeouts
    return Timeouts(
        first_token=timeouts.first_token_ms / 1000, idle=timeouts.idle_ms / 1000, usage=timeouts.usage_ms / 1000
    )


def _retry_policy(settings: Settings) -> RetryPolicy:
    retry = settings.retry
    return RetryPolicy(retry.max_attempts, backoff=retry.backoff_ms / 1000, max_backoff=retry.max_backoff_ms / 1000)


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
