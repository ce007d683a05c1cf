# SPDX-License-Identifier: Apache-2.0
"""How a form that an answer must have is written in a request: each kind of backend has fields of its own for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llm_gateway.generation import JsonSchema

    Spelling = Callable[[Any], dict[str, Any]]

# Inside of a literal of SGLang's EBNF and of llama.cpp's GBNF alike.
ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def schema_format(form: JsonSchema) -> dict[str, Any]:
    """`response_format` of a JSON schema."""
    schema: dict[str, Any] = {"name": form.name, "schema": form.schema}
    if form.strict is not None:
        schema["strict"] = form.strict
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def object_format(_: bool) -> dict[str, Any]:
    """`response_format` of any JSON object."""
    return {"response_format": {"type": "json_object"}}


def bare_schema(form: JsonSchema) -> dict[str, Any]:
    """llama.cpp's `json_schema`, which it takes where it does not read `response_format`: in raw prompts."""
    return {"json_schema": form.schema}


def bare_object(_: bool) -> dict[str, Any]:
    """Any JSON object, as llama.cpp's `json_schema`."""
    return {"json_schema": {"type": "object"}}


def structured_outputs(kind: str) -> Spelling:
    """vLLM's `structured_outputs`."""
    return lambda value: {"structured_outputs": {kind: value}}


def field(name: str) -> Spelling:
    """A field of the request itself."""
    return lambda value: {name: value}


def choice_as_grammar(name: str) -> Spelling:
    """A choice for a backend that has only grammars, in the field of that name."""
    return lambda values: {name: grammar_of_choice(values)}


def grammar_of_choice(values: Sequence[str]) -> str:
    """A grammar of exactly these texts."""
    return "root ::= " + " | ".join(f'"{value.translate(ESCAPES)}"' for value in values)
