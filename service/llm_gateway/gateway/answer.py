# SPDX-License-Identifier: Apache-2.0
"""Collects the events of a stream into one whole answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_gateway.generation import Answer, Completed, Piece, Started

if TYPE_CHECKING:
    from llm_gateway.gateway.relay import Event


class Collector:
    """Takes what a stream writes; `answer` is there once the stream has ended well."""

    def __init__(self) -> None:
        self._started: Started | None = None
        self._completed: Completed | None = None
        self._pieces: dict[int, list[Piece]] = {}

    async def begin(self) -> None:
        """Nothing is sent before the answer is whole."""

    async def write(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event, Piece):
            self._pieces.setdefault(event.index, []).append(event)
        elif isinstance(event, Started):
            self._started = event
        else:
            self._completed = event

    def answer(self) -> Answer:
        """The whole answer. Raises RuntimeError where the stream has not ended well: that is a bug of the caller."""
        if self._started is None or self._completed is None:
            raise RuntimeError("the stream has not ended")
        choices = tuple(Piece.joined(pieces) for _, pieces in sorted(self._pieces.items()))
        return Answer(self._started, choices, self._completed)
