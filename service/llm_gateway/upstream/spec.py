# SPDX-License-Identifier: Apache-2.0
"""What is configured: models, and the backends that serve them. Values only, so that two of them can be compared."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

ANY_MODEL = ""
"""The name of a model entry that stands for whatever its backends serve."""


class Balancing(StrEnum):
    """How an endpoint is chosen: the one with less to do, or always the same for a session or for a prompt's prefix."""

    LEAST_LOAD = "least_load"
    SESSION = "session"
    PREFIX = "prefix"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """The timers of an attempt, in seconds.

    `usage` is how long the usage is waited for once every choice has ended; then it is estimated.
    """

    connect: float = 2.0
    first_token: float = 60.0
    idle: float = 30.0
    usage: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSpec:
    """One configured backend; each of its addresses is an endpoint.

    `model` is its own name for the model, None where it is the one that the caller gives. `tier` is the priority: a
    higher number is a fallback. `resolve`: the host of its one URL is a name, and every address behind it an endpoint.
    """

    name: str
    urls: tuple[str, ...]
    dialect: str = "vllm"
    resolve: bool = False
    model: str | None = None
    weight: int = 1
    tier: int = 0
    api_key: str | None = field(default=None, repr=False)
    timeouts: Timeouts = field(default_factory=Timeouts)

    @property
    def alone(self) -> bool:
        """Whether it has one address for good: else each endpoint is named with its own."""
        return len(self.urls) == 1 and not self.resolve

    @property
    def identity(self) -> BackendSpec:
        """Only that of it which, at an address, makes another server or another driver. The rest changes in place."""
        urls = self.urls if self.alone else ()
        return replace(self, urls=urls, weight=1, tier=0, timeouts=Timeouts(connect=self.timeouts.connect))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One configured model. `defaults` are sampling parameters where a request is silent, `seats` bounds the calls that
    run at once, `hedge_after` is in seconds.
    """

    name: str
    backends: tuple[BackendSpec, ...]
    aliases: tuple[str, ...] = ()
    balancing: Balancing = Balancing.LEAST_LOAD
    defaults: dict[str, Any] = field(default_factory=dict)
    seats: int | None = None
    hedge_after: float | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """Where an endpoint is: `url` is what is connected to, `host` the name that stands for it where that is another."""

    url: str
    host: str | None = None
