# SPDX-License-Identifier: Apache-2.0
"""Logs: JSON lines for machines, plain text on a terminal. Never a prompt, an answer, a key or a backend's body."""

from __future__ import annotations

import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pythonjsonlogger.msgspec import MsgspecFormatter

if TYPE_CHECKING:
    from typing import TextIO

    from llm_gateway.observability.call import Call

ACCESS = logging.getLogger("llm_gateway.access")
LEVEL_OF_STATUS = {"OK": logging.INFO, "CANCELLED": logging.INFO, "INTERNAL": logging.ERROR}
STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class TextFormatter(logging.Formatter):
    """One readable line: time, level, message, and the record's own fields behind it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line without a traceback, which `format` puts behind it."""
        fields = (f"{key}={_on_one_line(value)}" for key, value in vars(record).items() if key not in STANDARD_FIELDS)
        return " ".join((super().formatMessage(record), *fields))


class JsonFormatter(MsgspecFormatter):
    """One JSON object a line: time, level, logger, message, and the record's own fields."""

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Collect them in one go; the library's own way asks three questions of each of a record's attributes."""
        log_data["timestamp"] = datetime.fromtimestamp(record.created, tz=UTC)
        log_data["level"] = record.levelname
        log_data["service"] = "llm-gateway"
        log_data["logger"] = record.name
        log_data["message"] = record.message
        log_data.update({key: value for key, value in vars(record).items() if key not in STANDARD_FIELDS})
        log_data.update(message_dict)


def configure_logging(level: str, *, as_json: bool | None = None, stream: TextIO | None = None) -> None:
    """Send the logs of the whole process to `stream` (default: stderr); as JSON unless it is a terminal."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    if as_json is None:
        as_json = not stream.isatty()
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # No format of ours says where in the source, or on which thread, a line was logged: do not look it up each time.
    logging._srcfile = None  # the documented way, "Optimization" in logging's HOWTO
    logging.logThreads = logging.logMultiprocessing = logging.logProcesses = False
    # grpc's own logger prints tracebacks with the text of an exception; ours has been there before.
    logging.getLogger("grpc").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def log_call(call: Call) -> None:
    """The one line of a call."""
    fields: dict[str, Any] = {
        "request_id": call.request_id,
        "rpc": call.rpc,
        "model": call.model,
        "backend": call.backend,
        "status": call.status,
        "reason": call.reason,
        "timeout_ms": round(call.timeout * 1000),
        "vllm_url": call.address,
        "prompt_tokens": call.usage.prompt_tokens,
        "completion_tokens": call.usage.completion_tokens,
        "usage_estimated": call.usage.estimated,
        "attempts": len(call.attempts),
        "time_to_first_token_ms": _milliseconds(call.stopwatch.time_to_first_token),
        "duration_ms": _milliseconds(call.stopwatch.total),
    }
    if call.user is not None:
        fields["user"] = call.user
    if call.session_id is not None:
        fields["session_id"] = call.session_id
    if call.metadata:
        fields["metadata"] = dict(call.metadata)
    ACCESS.log(LEVEL_OF_STATUS.get(call.status or "", logging.WARNING), "call", extra=fields)


def places_of(error: BaseException | None) -> str:
    """What kinds of exceptions led to each other, and where; not what they say, which may quote a prompt or a key."""
    chain = []
    while error is not None:
        chain.append(f"{type(error).__module__}.{type(error).__qualname__}")
        chain += (line.rstrip() for line in traceback.format_tb(error.__traceback__))
        error = error.__cause__ or error.__context__
    return "\n".join(chain)


def _on_one_line(value: object) -> str:
    """A value as text; a caller's own words must not begin a line of the log, or colour it."""
    text = str(value)
    return text if text.isprintable() else repr(text)


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
