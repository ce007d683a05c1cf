# SPDX-License-Identifier: Apache-2.0
"""How long a prompt is, by the backend that would read it."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict

from llm_gateway.v1 import llm_service_pb2 as pb
from tests.kit.gateway import failure_of, start_gateway
from tests.kit.scripted import ScriptedBackend, json_response

COUNTED = json_response("200 OK", {"count": 3, "tokens": [5, 6, 7], "max_model_len": 99, "token_strs": None})
HELLO = {"role": "ROLE_USER", "content": "hello"}


async def count(fields: dict[str, Any], answer: bytes = COUNTED) -> tuple[pb.CountTokensResponse, ScriptedBackend]:
    """The answer to a request in protobuf's JSON, and the backend that gave it."""
    async with ScriptedBackend([answer]) as backend, start_gateway(backend.url) as gateway:
        response = await gateway.stub.CountTokens(ParseDict(fields, pb.CountTokensRequest()), timeout=30)
    return response, backend


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({"prompt": "hello"}, {"prompt": "hello"}),
        ({"prompt": ""}, {"prompt": ""}),
        ({"messages": [HELLO]}, {"messages": [{"role": "user", "content": "hello"}]}),
        (
            {"messages": [HELLO], "tools": [{"name": "f", "parameters": '{"type": "object"}', "strict": True}]},
            {
                "messages": [{"role": "user", "content": "hello"}],
                "tools": [
                    {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}
                ],
            },
        ),
    ],
    ids=["prompt", "empty prompt", "messages", "tools"],
)
async def test_what_is_to_be_counted_reaches_the_tokenizer(fields: dict[str, Any], sent: dict[str, Any]) -> None:
    _, backend = await count(fields)

    [(path, _, body)] = backend.requests
    assert path == "/tokenize"
    assert body == {"model": "tiny"} | sent


async def test_the_count_comes_with_the_context_and_with_who_counted() -> None:
    response, _ = await count({"prompt": "hello", "model": "mine"})

    assert (response.token_count, response.context_length) == (3, 99)
    assert (response.model, response.backend) == ("mine", "vllm")
    assert not response.token_ids


async def test_the_ids_come_on_request() -> None:
    response, _ = await count({"prompt": "hello", "include_token_ids": True})

    assert list(response.token_ids) == [5, 6, 7]


async def test_a_context_that_the_backend_does_not_tell_is_absent() -> None:
    response, _ = await count({"prompt": "hello"}, json_response("200 OK", {"count": 3}))

    assert response.token_count == 3
    assert not response.HasField("context_length")


async def test_an_unknown_model_is_not_found() -> None:
    error = {"message": "no", "type": "NotFoundError", "param": "model", "code": 404}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await count({"prompt": "hello", "model": "nobody"}, json_response("404 Not Found", {"error": error}))

    failure = failure_of(caught.value)
    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    assert failure.info.metadata["model"] == "nobody"
