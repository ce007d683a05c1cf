# SPDX-License-Identifier: Apache-2.0
"""Messages of any shape that protobuf allows, drawn by hypothesis from a descriptor, with a taste for the extreme."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import NullValue, Struct, Value
from hypothesis import strategies as st

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

    # The stubs name the class of the C implementation beside the public one.
    AnyDescriptor = Descriptor | Any

TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from([
        "", "weather", "tiny", "\0", "\u2028", "a" * 300, "🌍" * 70, "{}", '{"type": "object"}', '{"a": NaN}', "[]",
        '{"a": "\\ud800"}', '{"a": 1e999}', f'{{"a": {"9" * 5000}}}', '{"a":' * 90 + "1" + "}" * 90,
        "https://x/y", "data:,", "file:///etc/passwd", "a\r\nx-evil: 1",
    ]),
    st.sampled_from(["[", "a", '{"a":']).map(lambda text: text * 20_000),
)  # fmt: skip
DOUBLES = st.one_of(st.floats(), st.sampled_from([0.0, -0.0, 1.0, 2.0, 1e308, 5e-324]))
ENUMS = st.one_of(st.integers(0, 8), st.sampled_from([-1, 99, 2**31 - 1, -(2**31)]))
MANY = st.sampled_from([20, 200, 20_000])
SMALL = 100  # characters of items that are repeated so often


def _whole(low: int, high: int) -> st.SearchStrategy[int]:
    return st.one_of(st.integers(0, 3), st.sampled_from([10**6 % (high + 1), low, high]), st.integers(low, high))


SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_STRING: TEXTS,
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=20),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_DOUBLE: DOUBLES,
    FieldDescriptor.TYPE_ENUM: ENUMS,
    FieldDescriptor.TYPE_UINT32: _whole(0, 2**32 - 1),
    FieldDescriptor.TYPE_INT32: _whole(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: _whole(-(2**63), 2**63 - 1),
}
DURATIONS = st.builds(
    Duration,
    seconds=st.one_of(st.integers(0, 2), st.sampled_from([-1, 2**63 - 1, -(2**63)])),
    nanos=st.one_of(st.integers(0, 999_999_999), st.sampled_from([-1, 2**31 - 1])),
)


def _listed(values: list[Value]) -> Value:
    value = Value()
    value.list_value.SetInParent()
    value.list_value.values.extend(values)
    return value


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.builds(Value),
        st.builds(Value, number_value=DOUBLES),
        st.builds(Value, string_value=TEXTS),
        st.builds(Value, bool_value=st.booleans()),
        st.just(Value(null_value=NullValue.Value("NULL_VALUE"))),
    ),
    lambda inner: st.builds(_listed, st.lists(inner, max_size=3)),
    max_leaves=6,
)
EXTENSIONS = st.dictionaries(st.sampled_from(["vllm_xargs", "echo", "documents", "guided_json"]), VALUES, max_size=2)


def _struct(fields: dict[str, Value]) -> Struct:
    struct = Struct()
    for name, value in fields.items():
        struct.fields[name].CopyFrom(value)
    return struct


WHOLE: dict[str, st.SearchStrategy[Any]] = {
    "google.protobuf.Duration": DURATIONS,
    "google.protobuf.Struct": st.builds(_struct, EXTENSIONS),
}


@st.composite
def messages(draw: st.DrawFn, kind: AnyDescriptor, fields: int = 3, base: Message | None = None) -> Message:
    """A message with up to so many of its fields set, to values of all sorts; the rest is as in `base`."""
    message: Message = GetMessageClass(kind)()
    if base is not None:
        message.CopyFrom(base)
    all_fields = tuple(kind.fields)
    if all_fields:
        chosen = st.lists(st.sampled_from(all_fields), unique_by=lambda field: field.name, max_size=fields)
        for field in draw(chosen):
            _set(draw, message, field)
    return message


def _set(draw: st.DrawFn, message: Message, field: FieldDescriptor) -> None:
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        entry = {sub.name: SCALARS[sub.type] for sub in inner.fields}
        pairs = draw(st.lists(st.tuples(entry["key"], entry["value"]), max_size=20))
        getattr(message, field.name).update(dict(pairs))
    elif field.is_repeated:
        strategy = _value(field)
        drawn = draw(st.lists(strategy, max_size=3))
        small = len(str(drawn)) < SMALL
        times = draw(MANY) if small and draw(st.integers(0, 19)) == 0 else 1
        getattr(message, field.name).extend(drawn * times)
    elif inner is not None:
        getattr(message, field.name).CopyFrom(draw(_value(field)))
    else:
        setattr(message, field.name, draw(_value(field)))


def _value(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    inner = field.message_type
    if inner is None:
        return SCALARS[field.type]
    return WHOLE[inner.full_name] if inner.full_name in WHOLE else messages(inner)
