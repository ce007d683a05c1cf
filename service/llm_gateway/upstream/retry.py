# SPDX-License-Identifier: Apache-2.0
"""Whether, and after how long, another attempt is made."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_gateway.errors import BackendError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most `max_attempts` in all. Another backend is asked at once; the same one again after a pause with full
    jitter: a random part of a time that doubles with each attempt.

    `backoff` and `max_backoff` are in seconds. A backend's Retry-After is honoured as the least pause before it is
    asked again; one that is longer than `max_backoff` is the caller's to wait for, and no other attempt is made.
    """

    max_attempts: int = 3
    backoff: float = 0.05
    max_backoff: float = 1.0

    def pause(self, error: BackendError, attempts: int, *, elsewhere: bool = False) -> float | None:
        """Seconds to wait before the next attempt, after `attempts` of them; None for no other attempt.

        `elsewhere`: there is a backend that has not been asked yet.
        """
        if attempts >= self.max_attempts:
            return None
        if elsewhere and error.elsewhere:
            return 0.0
        least = error.asked_wait or 0.0
        if not error.retryable or least > self.max_backoff:
            return None
        ceiling = min(self.max_backoff, self.backoff * 2 ** (attempts - 1))
        return max(least, random.uniform(0, ceiling))  # noqa: S311 - spreads load, guards nothing
