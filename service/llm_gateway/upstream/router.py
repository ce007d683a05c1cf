# SPDX-License-Identifier: Apache-2.0
"""From the model that a caller names, or does not name, to the backend that serves it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llm_gateway.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_gateway.backends.base import Backend
    from llm_gateway.generation import Model


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The timers of an attempt, in seconds. Connecting has its own, in the backend's driver.

    `usage` is how long the usage is waited for once every choice has ended; then it is estimated.
    """

    first_token: float
    idle: float
    usage: float = 2.0


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes: the backend, its name for the model, its address for the logs, its timers."""

    backend: Backend
    model: str
    address: str
    timeouts: Timeouts


class Router:
    """One backend that serves whatever models it lists.

    A model that the caller names is not checked here: the backend knows best, and its answer is MODEL_NOT_FOUND.
    """

    def __init__(self, backend: Backend, *, address: str, timeouts: Timeouts, default_model: str | None) -> None:
        self._backend = backend
        self._address = address
        self._timeouts = timeouts
        self._default_model = default_model

    @property
    def backend_name(self) -> str:
        """Who is asked where there is a question before there is a route."""
        return self._backend.name

    @property
    def timeouts(self) -> Timeouts:
        """How long such a question may take."""
        return self._timeouts

    def route(self, model: str | None) -> Route:
        """The route as far as it can be told without asking: with no model where none is named, nor the default."""
        return Route(self._backend, model or self._default_model or "", self._address, self._timeouts)

    async def resolve(self, model: str | None) -> Route:
        """The route for a model; for None, that of the default, else of the only one served.

        Raises InvalidRequest where several could be meant, or what the backend's driver raises.
        """
        route = self.route(model)
        return route if route.model else replace(route, model=await self._only())

    async def list_models(self) -> Sequence[Model]:
        """The models that a caller may name, by name, the default marked."""
        models = await self._backend.list_models()
        default = self._default_model or _only_one(models)
        return sorted((replace(m, is_default=m.name == default) for m in models), key=lambda model: model.name)

    async def is_healthy(self) -> bool:
        """Whether any backend answers."""
        return await self._backend.is_healthy()

    async def close(self) -> None:
        """Close every connection."""
        await self._backend.close()

    async def _only(self) -> str:
        only = _only_one(await self._backend.list_models())
        if only is None:
            raise InvalidRequest.of("model", "is needed: there are several models and no default")
        return only


def _only_one(models: Sequence[Model]) -> str | None:
    """The name of the only model; adapters of it do not count, for it can be meant without them."""
    names = [model.name for model in models if model.parent is None]
    return names[0] if len(names) == 1 else None
