# SPDX-License-Identifier: Apache-2.0
"""Whether, and after how long, another attempt is made."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_gateway.errors import BackendError

if TYPE_CHECKING:
    from llm_gateway.errors import GatewayError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most `max_attempts` in all, with full jitter: a random part of a pause that doubles each time.

    `backoff` and `max_backoff` are in seconds. A backend's Retry-After is honoured as the least pause; one that is
    longer than `max_backoff` is the caller's to wait for, and no other attempt is made.
    """

    max_attempts: int = 3
    backoff: float = 0.05
    max_backoff: float = 1.0

    def pause(self, error: GatewayError, attempts: int) -> float | None:
        """Seconds to wait before the next attempt, after `attempts` of them; None for no other attempt."""
        if not isinstance(error, BackendError) or not error.retryable or attempts >= self.max_attempts:
            return None
        least = error.asked_wait
        if least is not None and least > self.max_backoff:
            return None
        ceiling = min(self.max_backoff, self.backoff * 2 ** (attempts - 1))
        return max(least or 0.0, random.uniform(0, ceiling))  # noqa: S311 - spreads load, guards nothing
