# SPDX-License-Identifier: Apache-2.0
"""The gateway's log, read as it is written: one line for each call, nothing confidential, no bug."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from llm_gateway.config_watcher import WRONG
from tests.chaos.history import BARE
from tests.chaos.wishes import CANARY, Rpc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.history import History
    from tests.kit.processes import GatewayProcess

ACCESS = "llm_gateway.access"
RPCS = {rpc.value for rpc in Rpc}
EXPECTED = {WRONG}
"""What is logged as an error and is none of the gateway's own."""


class Log:
    """Takes the lines of a gateway until it ends; keeps those of calls until they are asked for."""

    def __init__(self, process: GatewayProcess) -> None:
        self._process = process
        self._calls: dict[str, dict[str, Any]] = {}
        self._complaints: list[str] = []
        self.calls = 0
        """The lines of calls so far."""

    async def read(self) -> None:
        """Read to the end."""
        while line := await self._process.line():
            self.take(line)

    def take(self, line: str) -> None:
        """One line; gRPC's C core writes some of its own."""
        if CANARY in line:
            self._complaints.append(f"log: something confidential is in it: {line}")
        if not line.startswith("{"):
            if line.startswith("Traceback"):
                self._complaints.append(f"log: a traceback, which is in the gateway's output: {line}")
            return
        record: dict[str, Any] = json.loads(line)
        if record["logger"] == ACCESS and record["rpc"] in RPCS:
            self.calls += 1
            if self._calls.setdefault(record["request_id"], record) is not record:
                self._complaints.append(f"log: a call has ended twice: {line}")
        elif (
            record["logger"] != ACCESS
            and record["level"] in {"ERROR", "CRITICAL"}
            and record["message"] not in EXPECTED
        ):
            self._complaints.append(f"log: the gateway has failed: {line}")

    def complaints(self) -> list[str]:
        """What is wrong with the log itself, since this was asked last."""
        found, self._complaints = self._complaints, []
        return found

    async def violations(self, histories: list[History], patience: float) -> Iterator[tuple[History, str]]:
        """Where the log and the callers disagree; waits for the lines that are still to come."""
        due = [history for history in histories if _has_arrived(history)]
        try:
            async with asyncio.timeout(patience):
                while any(history.wish.request_id not in self._calls for history in due):  # noqa: ASYNC110 - of a file
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pass  # the violations say who is missing
        lines, self._calls = self._calls, {}
        return _disagreements(histories, lines)


def _disagreements(histories: list[History], lines: dict[str, dict[str, Any]]) -> Iterator[tuple[History, str]]:
    for history in histories:
        line = lines.get(history.wish.request_id)
        if line is None:
            if _has_arrived(history):
                yield history, "log: there is no line of this call"
            continue
        logged = (line["status"], line["reason"] or "")
        if _has_arrived(history) and logged != (history.code, history.reason):
            yield history, f"log: it says {logged}"


def _has_arrived(history: History) -> bool:
    """Whether the gateway must have seen a call, and ended it as its caller was told.

    One that was left, or whose deadline gRPC itself has seen to, may have been lost on its way there or back.
    """
    return history.reason != BARE and not history.left
