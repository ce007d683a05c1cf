# SPDX-License-Identifier: Apache-2.0
"""GenerationParams as a configuration file has them: held to the very rules of a request."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import ParseDict, ParseError

from llm_gateway.codec.sampling import (
    MAX_ITEMS,
    MAX_LOGIT_BIAS,
    OPEN_RANGES,
    RANGES,
    TRUNCATION_SIDES,
    decode_sampling,
)
from llm_gateway.codec.violations import Violations
from llm_gateway.errors import FieldViolation, InvalidRequest
from llm_gateway.v1 import generation_pb2 as pb

if TYPE_CHECKING:
    from google.protobuf.descriptor import FieldDescriptor

CALLERS_OWN = frozenset({"n", "time_limit", "use_beam_search"})
"""What only a caller can want: they change what comes back, and not how its tokens are chosen."""
FIELDS: Mapping[str, Any] = pb.GenerationParams.DESCRIPTOR.fields_by_name  # the stubs know two kinds of descriptors
NAMES = [name for name in FIELDS if name not in CALLERS_OWN]
MAX_SHOWN_NAME = 64
TRUNCATION_SIDE = {side: value for value, side in TRUNCATION_SIDES.items()}

KIND_OF: Mapping[str, tuple[tuple[type, ...], str, str]] = {
    "bool": ((bool,), "true or false", "boolean"),
    "string": ((str,), "text", "string"),
    "enum": ((str,), "left or right", "string"),
    "number": ((int, float), "a number", "number"),
    "integer": ((int,), "a whole number", "integer"),
    "message": ((Mapping,), "a mapping", "object"),
}
"""What a value may be, how that is said to a person, and JSON schema's word for it."""


def decode_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Sampling parameters by their names, as `decode_sampling` gives those of a request.

    Raises InvalidRequest, whose violations name each wrong one.
    """
    violations = Violations()
    params = pb.GenerationParams()
    for name, value in values.items():
        _set(params, name, value, violations)
    sampling = decode_sampling(params, violations)
    try:
        violations.raise_if_any()
    except InvalidRequest as error:
        found = [FieldViolation(v.field.removeprefix("params."), v.description) for v in error.violations]
        raise InvalidRequest(error.message, found) from None
    return sampling


def defaults_schema() -> dict[str, Any]:
    """The JSON schema of these parameters."""
    return {"type": "object", "additionalProperties": False, "properties": {name: _schema(name) for name in NAMES}}


def _set(params: pb.GenerationParams, name: object, value: object, violations: Violations) -> None:
    if name not in NAMES:
        violations.add(str(name)[:MAX_SHOWN_NAME], _unknown(name))
        return
    field = FIELDS[str(name)]
    if (fault := _wrong_kind(field, value)) is not None:
        violations.add(field.name, fault)
        return
    try:
        ParseDict({field.name: TRUNCATION_SIDE[value] if isinstance(value, str) and field.enum_type else value}, params)
    except KeyError:
        violations.add(field.name, "must be left or right")
    except (ParseError, ValueError, OverflowError):  # numbers that the wire cannot hold, names within a message
        params.ClearField(field.name)
        violations.add(field.name, "is out of range" if field.message_type is None else "has a wrong field or value")


def _unknown(name: object) -> str:
    if name in CALLERS_OWN:
        return "cannot have a default: only a caller can want it"
    close = difflib.get_close_matches(str(name), NAMES, n=1)
    return "there is no such parameter" + (f"; did you mean {close[0]}?" if close else "")


def _wrong_kind(field: FieldDescriptor, value: object) -> str | None:
    """What is wrong with the kind of a value; the JSON of protobuf would take text for a number."""
    types, words, _ = KIND_OF[_kind(field)]
    if _is_map(field):
        numbers = isinstance(value, Mapping) and all(_is(item, (int, float)) for item in value.values())
        return None if numbers else "must be a mapping from token ids to numbers"
    if field.is_repeated:
        listed = isinstance(value, list) and all(_is(item, types) for item in value)
        return None if listed else f"must be a list, each item {words}"
    return None if _is(value, types) else f"must be {words}"


def _is(value: object, types: tuple[type, ...]) -> bool:
    return isinstance(value, types) and isinstance(value, bool) == (bool in types)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _kind(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        return "message"
    if field.enum_type is not None:
        return "enum"
    kinds = {field.CPPTYPE_BOOL: "bool", field.CPPTYPE_STRING: "string", field.CPPTYPE_DOUBLE: "number"}
    return kinds.get(field.cpp_type, "integer")


def _schema(name: str) -> dict[str, Any]:
    """The JSON schema of one parameter."""
    field = FIELDS[name]
    if _is_map(field):
        bias = {"type": "number", "minimum": -MAX_LOGIT_BIAS, "maximum": MAX_LOGIT_BIAS}
        ids = {"propertyNames": {"pattern": "^[0-9]+$"}, "maxProperties": MAX_ITEMS[name]}
        return {"type": "object", **ids, "additionalProperties": bias}
    schema: dict[str, Any] = {"type": KIND_OF[_kind(field)][2]}
    if field.enum_type is not None:
        schema["enum"] = list(TRUNCATION_SIDE)
    if name in RANGES:
        low, high = RANGES[name]
        schema["minimum"] = low
        schema |= {"maximum": high} if math.isfinite(high) else {}
    if name in OPEN_RANGES:
        low, high = OPEN_RANGES[name]
        schema["exclusiveMinimum"] = low
        schema |= {"maximum": high} if math.isfinite(high) else {}
    if not field.is_repeated:
        return schema
    return {"type": "array", "items": schema} | ({"maxItems": MAX_ITEMS[name]} if name in MAX_ITEMS else {})
