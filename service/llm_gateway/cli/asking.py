# SPDX-License-Identifier: Apache-2.0
"""Asks every configured backend, once and all at the same time, whether it can serve."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from llm_gateway.app import make_backend
from llm_gateway.backends.base import Readiness
from llm_gateway.backends.dialect import DIALECTS
from llm_gateway.errors import BackendProtocolError, GatewayError
from llm_gateway.upstream.resolver import resolve
from llm_gateway.upstream.spec import Address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_gateway.settings import Settings
    from llm_gateway.upstream.spec import BackendSpec, ModelSpec


@dataclass(frozen=True, slots=True)
class Finding:
    """What one address of a backend said; `models` is None where it lists none, `error` says what is wrong with it."""

    spec: BackendSpec
    url: str
    readiness: Readiness = Readiness.DOWN
    models: tuple[str, ...] | None = None
    error: str | None = None

    @property
    def answers(self) -> bool:
        """Whether it can serve: it is ready, and takes our key as well."""
        return self.readiness is Readiness.READY and self.error is None

    @property
    def lacks(self) -> str | None:
        """The model that it is meant to serve, where it lists others only."""
        wanted = self.spec.model
        return wanted if wanted and self.models is not None and wanted not in self.models else None


@dataclass(frozen=True, slots=True)
class ModelFindings:
    """What the backends of one model said."""

    spec: ModelSpec
    found: tuple[Finding, ...]

    @property
    def answers(self) -> bool:
        """Whether calls for it can be served: by a backend that gets calls."""
        return any(finding.answers and finding.spec.weight for finding in self.found)


async def ask_all(specs: Sequence[ModelSpec], settings: Settings) -> Sequence[ModelFindings]:
    """Ask every address of every backend."""
    return await asyncio.gather(*(_ask_model(spec, settings) for spec in specs))


async def _ask_model(spec: ModelSpec, settings: Settings) -> ModelFindings:
    asked = await asyncio.gather(*(_ask_backend(backend, settings) for backend in spec.backends))
    return ModelFindings(spec, tuple(finding for found in asked for finding in found))


async def _ask_backend(spec: BackendSpec, settings: Settings) -> Sequence[Finding]:
    if not spec.resolve:
        return await asyncio.gather(*(_ask(spec, Address(url), settings) for url in spec.urls))
    try:
        addresses = await resolve(spec.urls[0])
    except OSError:
        return [Finding(spec, spec.urls[0], error="nobody knows an address behind this name")]
    return await asyncio.gather(*(_ask(spec, address, settings) for address in addresses))


async def _ask(spec: BackendSpec, address: Address, settings: Settings) -> Finding:
    """Ask one address for its health and its models."""
    backend = make_backend(spec, address, settings)
    finding = Finding(spec, address.url)
    patience = settings.health.probe_timeout_ms / 1000
    try:
        async with asyncio.timeout(patience):
            finding = replace(finding, readiness=await backend.probe())
        async with asyncio.timeout(patience):
            return replace(finding, models=tuple(model.name for model in await backend.list_models()))
    except TimeoutError:
        return replace(finding, error=f"it did not answer within {patience:g} s (HEALTH__PROBE_TIMEOUT_MS)")
    except GatewayError as error:
        if isinstance(error, BackendProtocolError) and HTTPStatus.NOT_FOUND in DIALECTS[spec.dialect].probing.ready:
            return finding  # it lists no models, which not every one does
        return replace(finding, error=f"{error.reason}: {error.message}")
    finally:
        await backend.close()
