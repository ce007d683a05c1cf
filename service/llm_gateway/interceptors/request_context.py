# SPDX-License-Identifier: Apache-2.0
"""Begins the record of each call: its id, its deadline; and sends the id back."""

from __future__ import annotations

import random
import re
import time
from typing import TYPE_CHECKING, Any

from llm_gateway.deadline import call_deadline
from llm_gateway.interceptors.around import Around
from llm_gateway.observability.call import CURRENT_CALL, Call

if TYPE_CHECKING:
    from llm_gateway.interceptors.around import Behaviour, Context

REQUEST_ID = "x-request-id"
SANE = re.compile(r"[A-Za-z0-9._:-]{1,64}\Z")


class RequestContext(Around):
    """Makes the Call that everything further in works on. `timeout` is the gateway's limit for a call, in seconds."""

    def __init__(self, *, timeout: float) -> None:
        super().__init__()
        self._timeout = timeout

    async def around(self, method: str, proceed: Behaviour, request: Any, context: Context) -> Any:  # noqa: ANN401 - Around's
        """Set CURRENT_CALL, and the trailers that every ending has."""
        now = time.monotonic()
        remaining: float | None = context.time_remaining()  # None: the caller has no deadline, whatever the stubs say
        deadline = call_deadline(now, remaining, self._timeout)
        timeout = self._timeout if remaining is None else min(self._timeout, remaining)
        rpc = method.rpartition("/")[2]
        call = Call(_request_id(context), rpc, deadline=deadline, timeout=timeout)
        token = CURRENT_CALL.set(call)
        context.set_trailing_metadata(((REQUEST_ID, call.request_id),))
        try:
            return await proceed(request, context)
        finally:
            CURRENT_CALL.reset(token)


def _request_id(context: Context) -> str:
    """The caller's id if it is sane, else a new one. What is not sane goes neither into logs nor to a backend."""
    metadata = context.invocation_metadata() or ()
    sent = next((value for key, value in metadata if key == REQUEST_ID), "")
    return sent if isinstance(sent, str) and SANE.match(sent) else f"{random.getrandbits(128):032x}"
