# SPDX-License-Identifier: Apache-2.0
"""What the load generator asks for and what it sees of an answer, over either protocol."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Protocol

MODEL = "sim"
PROMPT = "Tell me a story."


class StreamError(Exception):
    """A stream that did not end as it should."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: so many tokens, so many seconds apart (0: as fast as can be)."""

    tokens: int
    pace: float = 0.0
    model: str = MODEL
    label: str = ""
    """By which a backend can tell this request from others."""

    @property
    def prompt(self) -> str:
        """With the label in front, and with the simulator's directive."""
        text = f"{self.label} {PROMPT}" if self.label else PROMPT
        return f"{text} [[sim pace_ms={self.pace * 1000:g}]]" if self.pace else text


class Stream:
    """One answer on its way. `pieces` counts deltas (of an SSE stream: events), and is cheap to read at any time."""

    __slots__ = ("attempts", "began", "done", "first", "first_piece", "merged", "pieces", "tokens")

    def __init__(self, first_piece: int) -> None:
        self.pieces = 0
        self.first_piece = first_piece
        """How many pieces there are once the first token is."""
        self.began = time.monotonic()
        self.first = 0.0
        """When the first token came."""
        self.tokens = 0
        """How many the backend counted; known at the end."""
        self.merged = 0
        self.attempts = 0
        """How many the gateway made; 0 where nobody says."""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def first_token(self) -> float:
        """Seconds until the first token came."""
        return self.first - self.began

    def counted(self, pieces: int) -> None:
        """So many more pieces came."""
        self.pieces += pieces
        if not self.first and self.pieces >= self.first_piece:
            self.first = time.monotonic()

    def end(self, error: str | None = None) -> None:
        """It is over."""
        if not self.done.done():
            if error is None:
                self.done.set_result(None)
            else:
                self.done.set_exception(StreamError(error))


class Client(Protocol):
    """Opens streams."""

    async def open(self, ask: Ask) -> Stream:
        """Send the request; the stream's future ends when the answer is whole and as long as was asked."""

    async def close(self) -> None:
        """Close the connections."""
