# SPDX-License-Identifier: Apache-2.0
"""The record of one call: filled in where things happen, read by the access log and by the details of an error."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from llm_gateway.generation import Usage
from llm_gateway.observability.stopwatch import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llm_gateway.generation import Attempt


class Call:
    """One call on its way. Times are in seconds; `deadline` is on the monotonic clock."""

    __slots__ = ("address", "admitted", "attempts", "backend", "deadline", "last_sequence", "merged", "metadata",
                 "model", "reason", "request_id", "rpc", "session_id", "spent", "status", "stopwatch", "timeout",
                 "usage", "user")  # fmt: skip

    def __init__(self, request_id: str, rpc: str, *, deadline: float, timeout: float) -> None:
        self.request_id = request_id
        self.rpc = rpc
        self.deadline = deadline
        self.timeout = timeout
        self.stopwatch = Stopwatch()
        self.model: str | None = None
        self.backend: str | None = None
        self.address: str | None = None
        self.admitted = False
        self.attempts: list[Attempt] = []
        self.usage = Usage()
        self.spent: Callable[[], Usage] | None = None
        """Gives the usage while an answer is under way, when `usage` is not there yet."""
        self.last_sequence = 0
        self.merged = 0
        self.status: str | None = None
        self.reason: str | None = None
        self.session_id: str | None = None
        self.user: str | None = None
        self.metadata: Mapping[str, str] = {}


CURRENT_CALL: ContextVar[Call] = ContextVar("current_call")
"""The call that the running task serves; set by the outermost interceptor."""
