# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a file, in one readable line for each fault, without any value that was in it."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from llm_gateway.config_file.schema import FAULTS, BackendEntry, BackendTimeouts, ConfigFile, ModelEntry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic import BaseModel, ValidationError

    from llm_gateway.config_file.document import Document
    from llm_gateway.config_file.schema import Place

FILE = "CONFIG_FILE"
"""Stands for the place of what is wrong with the file as a whole."""
MAX_LINES = 50
MAX_NAME = 64

ENTRIES: Mapping[tuple[str, ...], type[BaseModel]] = {
    (): ConfigFile,
    ("models",): ModelEntry,
    ("models", "backends"): BackendEntry,
    ("models", "backends", "timeouts"): BackendTimeouts,
}
"""The part of the file at each place, by the names on the way."""

TEXTS: Mapping[str, str] = {
    "missing": "is missing",
    "string_type": "must be text; put it in quotes if it looks like a number or a yes",
    "string_too_short": "must not be empty",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "invalid_key": "must be a name; put it in quotes if it looks like a number or a yes",
    "enum": "must be {expected}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
}
"""pydantic's words are for programmers."""


def lines_of(error: ValidationError, document: Document) -> tuple[str, ...]:
    """The faults that a validation found."""
    return lines(_faults_of(error), document)


def lines(faults: Iterable[tuple[Place, str]], document: Document) -> tuple[str, ...]:
    """Faults with their places as `models[0].name (line 2): what is wrong`; of very many, the first ones."""
    found = [f"{_where(place, document)}: {text}" for place, text in faults]
    if len(found) > MAX_LINES:
        found[MAX_LINES:] = [f"{FILE}: and {len(found) - MAX_LINES:,} more faults"]
    return tuple(found)


def _faults_of(error: ValidationError) -> Iterator[tuple[Place, str]]:
    for found in error.errors(include_url=False, include_input=False):
        place, context = found["loc"], found.get("ctx", {})
        if found["type"] == FAULTS:
            yield from (((*place, *inner), text) for inner, text in context[FAULTS])
        elif found["type"] == "extra_forbidden":
            yield place, _unknown(place)
        else:
            yield place, _text(found["type"], found["msg"], context)


def _text(kind: str, message: str, context: Mapping[str, Any]) -> str:
    if kind in TEXTS:
        return TEXTS[kind].format_map(context)
    return message.removeprefix("Value error, ")


def _unknown(place: Place) -> str:
    names = tuple(step for step in place[:-1] if isinstance(step, str))
    close = difflib.get_close_matches(str(place[-1]), ENTRIES[names].model_fields, n=1)
    return "there is no such field" + (f"; did you mean {close[0]}?" if close else "")


def _where(place: Place, document: Document) -> str:
    if not place:
        return FILE
    where = "".join(f"[{step}]" if isinstance(step, int) else f".{_shown(step)}" for step in place).lstrip(".")
    line = document.line_of(place)
    return where if line is None else f"{where} (line {line})"


def _shown(name: str) -> str:
    """A name on one line, whatever it holds."""
    return name[:MAX_NAME] if name.isprintable() else repr(name[:MAX_NAME])
