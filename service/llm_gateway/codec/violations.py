# SPDX-License-Identifier: Apache-2.0
"""Collects what is wrong with a request, so that its author learns all of it at once."""

from __future__ import annotations

import json
from typing import Any

from llm_gateway.errors import FieldViolation, InvalidRequest

MAX_SHOWN = 10
MAX_DEPTH_ERROR = "is nested too deeply"


class Violations:
    """The wrong fields of one request; `raise_if_any` ends the reading of it."""

    def __init__(self) -> None:
        self._found: list[FieldViolation] = []

    def add(self, field: str, description: str) -> None:
        """Say what is wrong with a field, without quoting its value."""
        self._found.append(FieldViolation(field, description))

    def check(self, condition: object, field: str, description: str) -> None:
        """Add a violation unless the condition holds."""
        if not condition:
            self.add(field, description)

    def json_object(self, text: str, field: str) -> dict[str, Any] | None:
        """The JSON object in a string; None, and a violation, where it is none."""
        try:
            value = json.loads(text)
        except RecursionError:
            self.add(field, MAX_DEPTH_ERROR)
            return None
        except ValueError:
            self.add(field, "is not JSON")
            return None
        if not isinstance(value, dict):
            self.add(field, "is not a JSON object")
            return None
        return value

    def raise_if_any(self) -> None:
        """Raise InvalidRequest with what was found; its message shows the first, its violations MAX_SHOWN of them."""
        if not self._found:
            return
        first = self._found[0]
        more = f" (and {len(self._found) - 1} more)" if len(self._found) > 1 else ""
        raise InvalidRequest(f"{first.field}: {first.description}{more}", self._found[:MAX_SHOWN])
