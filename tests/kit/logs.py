# SPDX-License-Identifier: Apache-2.0
"""The gateway's logs as its operator would get them: JSON lines, here at the most talkative level."""

from __future__ import annotations

import io
import json
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llm_gateway.observability.logging import configure_logging

if TYPE_CHECKING:
    from collections.abc import Iterator

ACCESS = "llm_gateway.access"
QUIETED = ("grpc", "asyncio")
"""The loggers whose level `configure_logging` sets beside the root's."""
SWITCHES = ("_srcfile", "logThreads", "logMultiprocessing", "logProcesses")
"""What it turns off in logging itself."""


class Logs:
    """What was logged so far."""

    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    @property
    def text(self) -> str:
        """All of it."""
        return self._stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The records; a line that is no JSON fails."""
        return [json.loads(line) for line in self.text.splitlines()]

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The lines of calls."""
        return [line for line in self.lines if line["logger"] == ACCESS]


@contextmanager
def captured_logs(level: str = "debug") -> Iterator[Logs]:
    """Everything that this process logs meanwhile; what was configured before is put back."""
    root = logging.getLogger()
    loggers = [root, *map(logging.getLogger, QUIETED)]
    levels = [logger.level for logger in loggers]
    switches = {name: getattr(logging, name) for name in SWITCHES}
    handlers, root.handlers = root.handlers, []
    stream = io.StringIO()
    try:
        configure_logging(level, as_json=True, stream=stream)
        yield Logs(stream)
    finally:
        root.handlers = handlers
        for logger, before in zip(loggers, levels, strict=True):
            logger.setLevel(before)
        for name, switch in switches.items():
            setattr(logging, name, switch)
