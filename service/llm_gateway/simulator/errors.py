# SPDX-License-Identifier: Apache-2.0
"""What vLLM answers when it refuses: one exception, which knows its body."""

from __future__ import annotations

import json
from typing import Any

_TYPES = {
    400: "BadRequestError",
    404: "NotFoundError",
    500: "InternalServerError",
    503: "Service Unavailable",
}


class ApiError(Exception):
    """An answer of the shape {"error": {"message", "type", "param", "code"}}."""

    def __init__(
        self, status: int, message: str, param: str | None = None, kind: str | None = None, *, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.kind = kind or _TYPES[status]
        self.code = code
        """OpenAI's word for it; vLLM repeats the status there."""

    @classmethod
    def bad_request(cls, message: str) -> ApiError:
        """A 400 that names no parameter."""
        return cls(400, message)

    @classmethod
    def parameter(cls, message: str, param: str, value: object = None) -> ApiError:
        """vLLM's VLLMValidationError, which repeats parameter and value in the message."""
        shown = f"parameter={param}" if value is None else f"parameter={param}, value={value}"
        return cls(400, f"{message} ({shown})", param)

    @classmethod
    def unparsable(cls, param: str | None, *problems: str) -> ApiError:
        """What FastAPI and pydantic find before vLLM sees a request: type "Bad Request"."""
        plural = "" if len(problems) == 1 else "s"
        message = "\n  ".join((f"{len(problems)} validation error{plural}:", *problems))
        return cls(400, message, param, "Bad Request")

    @classmethod
    def busy(cls) -> ApiError:
        """The 503 of `--max-num-queued-reqs`."""
        return cls(
            503,
            "The engine is currently busy and cannot accept new requests. "
            "Please try again later or on a different instance.",
        )

    @classmethod
    def died(cls, version: str) -> ApiError:
        """The 500 of a dead engine."""
        if version == "0.32.0":
            return cls(500, "EngineCore encountered an issue. See stack trace (above) for the root cause.")
        return cls(500, "The server had an error while processing your request.")

    @classmethod
    def shutting_down(cls) -> ApiError:
        """The 500 of a server that drains, whose worker threads take nothing new."""
        return cls(500, "cannot schedule new futures after shutdown")

    def _content(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}}

    def body(self) -> bytes:
        """As the body of an HTTP answer."""
        return self.written(self._content())

    @staticmethod
    def written(content: dict[str, Any]) -> bytes:
        """A body as vLLM writes it."""
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()

    def event(self, version: str) -> bytes:
        """As the event of a stream, which 0.32 wrote with the default spaces and escapes of json.dumps."""
        content = json.dumps(self._content()).encode() if version == "0.32.0" else self.body()
        return b"data: " + content + b"\n\n"
