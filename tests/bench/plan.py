# SPDX-License-Identifier: Apache-2.0
"""How much of everything a run does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True, slots=True)
class Plan:
    """The sizes of a run."""

    rounds: int
    """Of the workloads that are compared; each measures every server, against a peer twice: A B B A."""
    few_rounds: int
    """Of the other workloads."""
    seconds: float
    """Of a paced measurement."""
    unpaced_tokens: int
    requests: int
    pairs: int
    """Of requests whose first token is waited for in a round, through a server and direct."""
    streams: int
    """Open at once for the memory."""
    few_streams: int
    slow_pace: float
    calm: float
    """How long the memory is watched at each point."""
    choices: int
    """Of a backend, in a repeat."""
    failovers: int
    """Calls that meet a refusal, and as many that do not."""
    cancelled: int
    """Streams that run together and are cancelled in a round,"""
    cancel_spread: float
    """within so many seconds."""


DEFAULT: Final = Plan(
    rounds=5,
    few_rounds=3,
    seconds=2.0,
    unpaced_tokens=3000,
    requests=600,
    pairs=100,
    streams=1000,
    few_streams=100,
    slow_pace=0.5,
    calm=1.0,
    choices=2000,
    failovers=300,
    cancelled=200,
    cancel_spread=2.0,
)
COMPARED: Final = replace(DEFAULT, rounds=9, seconds=1.5, unpaced_tokens=2000, pairs=200, slow_pace=0.25, calm=0.5)
"""Of two gateways: many rounds, and short ones."""
QUICK: Final = Plan(
    rounds=1,
    few_rounds=1,
    seconds=0.4,
    unpaced_tokens=300,
    requests=80,
    pairs=20,
    streams=60,
    few_streams=20,
    slow_pace=0.05,
    calm=0.2,
    choices=200,
    failovers=20,
    cancelled=20,
    cancel_spread=0.2,
)
"""Shows that everything works; its figures say little."""
