# SPDX-License-Identifier: Apache-2.0
"""One log line for each call, however it ends, and one entry in the journal that is behind the metrics."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from llm_gateway.interceptors.around import Around
from llm_gateway.observability.call import CURRENT_CALL
from llm_gateway.observability.logging import log_call

if TYPE_CHECKING:
    from llm_gateway.interceptors.around import Behaviour, Context
    from llm_gateway.observability.call import Call
    from llm_gateway.observability.journal import Journal


class AccessLog(Around):
    """Logs and counts a call once its status is known. What went wrong, Errors has written into the record before."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal

    async def around(self, method: str, proceed: Behaviour, request: Any, context: Context) -> Any:  # noqa: ANN401 - Around's
        """Label the ending."""
        call = CURRENT_CALL.get()
        self._journal.call_begins(call)
        try:
            response = await proceed(request, context)
            call.status = "OK"
        except asyncio.CancelledError:
            if call.status is None:  # else the call had failed before, and its caller did not wait for the status
                _label(call, context.time_remaining())
            raise
        else:
            return response
        finally:
            self._journal.call_ends(call)
            log_call(call)


def _label(call: Call, remaining: float | None) -> None:
    """gRPC cancels the handler alike when the caller leaves and when its deadline passes; only the time tells."""
    passed = remaining is not None and remaining <= 0
    call.status = "DEADLINE_EXCEEDED" if passed else "CANCELLED"
    call.reason = call.status if passed else None  # that a caller leaves is no failure of anybody's
