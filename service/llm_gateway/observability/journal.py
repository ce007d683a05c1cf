# SPDX-License-Identifier: Apache-2.0
"""What the process keeps of itself, for its operator: the stage of its life, and what became of its calls."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_gateway.observability.call import Call


class Phase(StrEnum):
    """A stage of the gateway's life."""

    STARTING = "STARTING"
    SERVING = "SERVING"
    DRAINING = "DRAINING"


@dataclass(frozen=True, slots=True)
class ConfigStatistics:
    """What is configured, and how the reloads went; the version is "" where there is no file.

    `last_reload_ok` is False from the moment on when the file is not what is in force.
    """

    version: str
    last_reload_ok: bool
    reloads_ok: int
    reloads_failed: int


NO_FILE = ConfigStatistics("", last_reload_ok=True, reloads_ok=0, reloads_failed=0)


class Journal:
    """Counts calls where they begin and where they end, once each: of those that began, each has ended or runs.

    By few and known words only: no request id, and no name that a caller chose.
    """

    __slots__ = ("attempts", "began", "ended", "phase", "started_at", "tokens")

    def __init__(self) -> None:
        self.started_at = time.monotonic()
        self.phase = Phase.STARTING
        self.began: Counter[str] = Counter()
        """By RPC."""
        self.ended: Counter[tuple[str, str, str]] = Counter()
        """By RPC, status code and reason ("": none)."""
        self.attempts: Counter[tuple[str, str, str]] = Counter()
        """By backend, outcome and reason ("": none)."""
        self.tokens: Counter[str] = Counter()
        """By "prompt" and "completion", of the calls that ended."""

    @property
    def uptime(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started_at

    def call_begins(self, call: Call) -> None:
        """Count a call that came."""
        self.began[call.rpc] += 1

    def call_ends(self, call: Call) -> None:
        """Count a call whose status is known, with all that it has cost."""
        self.ended[call.rpc, call.status or "UNKNOWN", call.reason or ""] += 1
        for attempt in call.attempts:
            # The backend as it is configured: the addresses behind a name come and go, and would add up.
            backend = attempt.backend.partition("@")[0]
            self.attempts[backend, attempt.outcome.value, attempt.reason or ""] += 1
        self.tokens["prompt"] += call.usage.prompt_tokens
        self.tokens["completion"] += call.usage.completion_tokens
