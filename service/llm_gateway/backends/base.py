# SPDX-License-Identifier: Apache-2.0
"""What every backend offers, whatever it speaks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_gateway.errors import UnsupportedParameter
    from llm_gateway.generation import Generation, Model, Piece, TokenCount, TokenQuery, Usage


class Readiness(StrEnum):
    """What a probe finds."""

    READY = "ready"
    LOADING = "loading"
    """It answers, and says that its model is not there yet."""
    SILENT = "silent"
    """It does not answer in time: it is frozen, or has too much to do."""
    DOWN = "down"
    """It cannot be reached, or says that it is ill."""


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a backend says it is: requests that run and wait on it, whoever sent them; `kv_usage` from 0 to 1."""

    running: int
    waiting: int
    kv_usage: float | None = None


class AnswerStream(Protocol):
    """One answer on its way. Whoever opened it closes it, however it ends."""

    @property
    def model(self) -> str | None:
        """The model that answers, as the backend names it; None until it has."""

    @property
    def whole(self) -> bool:
        """Whether every choice has its finish reason. A usage may still come."""

    @property
    def finished(self) -> bool:
        """Whether the answer is whole and nothing more comes."""

    async def read(self) -> list[Piece]:
        """Wait for the next event that carries a choice and give the pieces that came with it, perhaps none.

        Raises a BackendError, InvalidRequest or ModelNotFound; pieces that came before the fault are given first.
        """

    def settle(self) -> list[Piece]:
        """The ends that waited for a usage which does not come."""

    def time_limit(self) -> list[Piece]:
        """End every choice that has not ended, for the caller's time is up; gives the ends."""

    def usage(self) -> Usage:
        """What the answer has cost so far."""

    async def close(self) -> None:
        """Let the connection go: kept if the answer was read to its end, closed at once if not."""


class Backend(Protocol):
    """A driver for one backend."""

    name: str
    dialect: str
    """What it speaks: "vllm", "openai", "sglang", "llamacpp", "ollama" or "generic"."""

    probe_patience: float
    """How much less often than others it is asked whether it can serve: 1 for as often."""

    def refusal(self, asked: Generation | TokenQuery) -> UnsupportedParameter | None:
        """Why this dialect cannot honour a request, whose every field it must honour; None where it can."""

    async def open(self, generation: Generation, model: str, request_id: str) -> AnswerStream:
        """Send the request and wait for the headers of its answer. Raises as AnswerStream.read does."""

    async def list_models(self) -> Sequence[Model]:
        """The models that the backend serves. Raises a BackendError."""

    async def count_tokens(self, query: TokenQuery, model: str, request_id: str) -> TokenCount:
        """Count a prompt's tokens. Raises as AnswerStream.read does."""

    async def probe(self) -> Readiness:
        """Ask whether it can serve. Never raises what a backend does wrong."""

    async def load(self) -> Load | None:
        """How busy it says it is; None where it does not say."""

    async def close(self) -> None:
        """Close every connection."""
