# SPDX-License-Identifier: Apache-2.0
"""Collects what is wrong with a request, so that its author learns all of it at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from llm_gateway.errors import FieldViolation, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sized

MAX_SHOWN = 10
MAX_SHOWN_BYTES = 1000
MAX_DEPTH = 100
MAX_JSON_BYTES = 256 * 1024
MAX_JSON_BYTES_TOGETHER = 1024 * 1024  # of one request: reading it must not hold up the other callers
TOO_DEEP = f"is nested more than {MAX_DEPTH} deep"


class Violations:
    """The wrong fields of one request; `raise_if_any` ends the reading of it.

    However many are wrong, only the first few are kept: a request may have a million fields.
    """

    def __init__(self) -> None:
        self._found: list[FieldViolation] = []
        self._count = 0
        self._room = MAX_SHOWN_BYTES
        self._json_room = MAX_JSON_BYTES_TOGETHER

    def add(self, field: str, description: str) -> None:
        """Say what is wrong with a field, without quoting its value."""
        self._count += 1
        self._room -= len(field.encode()) + len(description.encode())
        if not self._found or (len(self._found) < MAX_SHOWN and self._room >= 0):
            self._found.append(FieldViolation(field, description))

    def check(self, condition: object, field: str, description: str) -> None:
        """Add a violation unless the condition holds."""
        if not condition:
            self.add(field, description)

    def few(self, items: Sized, limit: int, field: str) -> bool:
        """Whether a field has at most `limit` items; more of them are a violation, and not worth reading."""
        if len(items) <= limit:
            return True
        self.add(field, f"must have at most {limit:,} items")
        return False

    def json_object(self, text: str, field: str) -> dict[str, Any] | None:
        """The JSON object in a string; None, and a violation, where it is none or too long."""
        if not self._short(text, field):
            return None
        try:
            value = msgspec.json.decode(text)
        except RecursionError:
            self.add(field, TOO_DEEP)
            return None
        except msgspec.MsgspecError:
            self.add(field, "is not JSON")
            return None
        if not isinstance(value, dict):
            self.add(field, "is not a JSON object")
            return None
        if _deeper(value, MAX_DEPTH):
            self.add(field, TOO_DEEP)
            return None
        return value

    def _short(self, text: str, field: str) -> bool:
        """Whether a JSON string is short enough to be read, by itself and together with those before it."""
        size = len(text.encode())
        self._json_room -= size
        if size > MAX_JSON_BYTES:
            self.add(field, f"must have at most {MAX_JSON_BYTES:,} bytes")
        elif self._json_room < 0:
            self.add(field, f"must have, with the JSON before it, at most {MAX_JSON_BYTES_TOGETHER:,} bytes")
        return size <= MAX_JSON_BYTES and self._json_room >= 0

    def raise_if_any(self) -> None:
        """Raise InvalidRequest with what was found; its message shows the first, its violations some of them."""
        if not self._found:
            return
        first = self._found[0]
        more = f" (and {self._count - 1:,} more)" if self._count > 1 else ""
        raise InvalidRequest(f"{first.field}: {first.description}{more}", self._found)


def _deeper(value: Any, depth: int) -> bool:  # noqa: ANN401 - whatever JSON holds
    """Whether something in a value is nested more than `depth` deep."""
    level = [value]
    for _ in range(depth):
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, dict | list)
        ]
        if not level:
            return False
    return True
