# SPDX-License-Identifier: Apache-2.0
"""A whole body of a backend is either what was asked for or not of the protocol."""

from __future__ import annotations

from contextlib import nullcontext

import msgspec
import pytest

from llm_gateway.backends.wire import ModelListWire, NotTheProtocolError, TokenizeWire, decode_as

DEEP = b"[" * 5000 + b"]" * 5000


@pytest.mark.parametrize("kind", [ModelListWire, TokenizeWire])
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"\xff", DEEP, b'{"unknown":' + DEEP + b"}"],
    ids=["empty", "cut", "an array", "no utf-8", "deep", "deep in a field that is not read"],
)
def test_a_body_that_is_something_else_is_not_of_the_protocol(kind: type, body: bytes) -> None:
    with pytest.raises(NotTheProtocolError):
        decode_as(body, kind)


@pytest.mark.parametrize(("listed", "taken"), [(10_000, True), (10_001, False)])
def test_a_backend_lists_no_more_models_than_anybody_serves(listed: int, taken: bool) -> None:
    body = msgspec.json.encode({"data": [{"id": "m"}] * listed})

    with nullcontext() if taken else pytest.raises(NotTheProtocolError):
        assert len(decode_as(body, ModelListWire).data) == listed
