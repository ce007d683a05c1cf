# SPDX-License-Identifier: Apache-2.0
"""What a caller asks for arrives at vLLM under vLLM's names; what it leaves open is not sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.json_format import ParseDict

from llm_gateway.v1 import llm_service_pb2 as pb
from tests.backends.request_rows import CHAT, GENERATE, OTHERS, OTHERS_OF_CHAT, RAW_PROMPT, paths
from tests.kit.gateway import start_gateway
from tests.kit.scripted import DONE, STREAM_HEAD, ScriptedBackend, chunk, json_response, usage

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

    from tests.backends.request_rows import Row

BEAMS = json_response(
    "200 OK",
    {
        "object": "chat.completion",
        "model": "tiny",
        "choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    },
    ["connection: close"],
)
HELLO = {"role": "user", "content": "hello"}
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
CONTEXT = 99  # what the scripted backend says of its model


def exact(body: Any) -> str:
    """JSON as text, so that 1, 1.0 and true differ."""
    return json.dumps(body, sort_keys=True, indent=1)


async def ask(method: str, request: Message, n: int) -> tuple[str, dict[str, str], Any]:
    """Send a request for `n` choices through a gateway; gives the path, the headers and the body at the backend."""
    answer = [STREAM_HEAD, *(chunk("Hi", finish="stop", index=index) for index in range(n)), usage(1, 1), DONE]
    async with ScriptedBackend(answer) as backend, start_gateway(backend.url) as gateway:
        async for _ in getattr(gateway.stub, method)(request, timeout=30):
            pass
    return backend.requests[0]


async def ask_chat(fields: dict[str, Any]) -> tuple[str, dict[str, str], Any]:
    """Ask with a chat in protobuf's JSON, of one message if it has none."""
    hello = {"messages": [{"role": "ROLE_USER", "content": "hello"}]}
    request = ParseDict(hello | fields, pb.ChatCompletionRequest())
    return await ask("ChatCompletionStream", request, request.params.n or 1)


async def ask_generate(fields: dict[str, Any]) -> tuple[str, dict[str, str], Any]:
    """Ask with a prompt in protobuf's JSON."""
    request = ParseDict({"prompt": "hello"} | fields, pb.GenerateRequest())
    return await ask("StreamGenerate", request, request.params.n or 1)


def numbered(rows: list[Row]) -> list[Any]:
    return [pytest.param(row, id=f"{number}-{row[0]}") for number, row in enumerate(rows)]


@pytest.mark.parametrize("row", numbered(CHAT))
async def test_a_field_of_a_chat_arrives_at_vllm_and_nothing_else_does(row: Row) -> None:
    _, fields, expected = row

    path, _, body = await ask_chat(fields)

    assert path == "/v1/chat/completions"
    assert exact(body) == exact({"model": "tiny", "messages": [HELLO]} | STREAMED | expected)


@pytest.mark.parametrize("row", numbered(GENERATE))
async def test_a_field_of_a_prompt_arrives_at_vllm_as_a_chat(row: Row) -> None:
    _, fields, expected = row

    path, _, body = await ask_generate(fields)

    assert path == "/v1/chat/completions"
    assert exact(body) == exact({"model": "tiny", "messages": [HELLO]} | STREAMED | expected)


@pytest.mark.parametrize("row", numbered(RAW_PROMPT))
async def test_a_field_of_a_raw_prompt_arrives_at_vllm_as_a_completion(row: Row) -> None:
    _, fields, expected = row

    path, _, body = await ask_generate(fields | {"raw": True})

    assert path == "/v1/completions"
    assert exact(body) == exact({"model": "tiny", "prompt": "hello", "max_tokens": CONTEXT} | STREAMED | expected)


async def test_a_raw_prompt_without_max_tokens_may_fill_the_context_and_not_vllms_sixteen() -> None:
    _, _, body = await ask_generate({"raw": True, "params": {"temperature": 0.5}})

    assert body["max_tokens"] == CONTEXT


@pytest.mark.parametrize("fields", [{}, {"params": {}}, {"params": {"time_limit": "10s"}}, {"user": "ada"},
                                    {"metadata": {"team": "blue"}}, {"stream_options": {"max_merge_bytes": 9}},
                                    {"stream_options": {"min_flush_interval": "0.001s"}}, {"reasoning": {}},
                                    {"structured_output": {}}, {"tool_choice": {}}, {"backend_extensions": {}},
                                    {"tool_choice": {"mode": "MODE_UNSPECIFIED"}}], ids=str)  # fmt: skip
async def test_what_is_unset_or_meant_for_the_gateway_is_left_out(fields: dict[str, Any]) -> None:
    _, _, body = await ask_chat(fields)

    assert exact(body) == exact({"model": "tiny", "messages": [HELLO]} | STREAMED)


async def test_beams_do_not_stream() -> None:
    request = ParseDict(
        {"messages": [{"role": "ROLE_USER", "content": "hello"}], "params": {"use_beam_search": True}},
        pb.ChatCompletionRequest(),
    )
    async with ScriptedBackend([BEAMS]) as backend, start_gateway(backend.url) as gateway:
        response = await gateway.stub.ChatCompletion(request, timeout=30)

    assert response.choices[0].message.content == "Hi"
    expected = {"model": "tiny", "messages": [HELLO], "use_beam_search": True, "stream": False}
    assert exact(backend.requests[0][2]) == exact(expected)


async def test_a_tool_message_follows_the_call_that_it_answers() -> None:
    _, _, body = await ask_chat({
        "messages": [
            {"role": "ROLE_USER", "content": "Weather?"},
            {"role": "ROLE_ASSISTANT", "tool_calls": [{"id": "c1", "name": "weather", "arguments": "{}"}]},
            {"role": "ROLE_TOOL", "tool_call_id": "c1", "content": "rain"},
        ]
    })  # fmt: skip

    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "tool"]
    assert "content" not in body["messages"][1]


async def test_the_key_and_the_request_id_go_into_headers_and_the_caller_adds_none() -> None:
    metadata = (("x-request-id", "mine-1"), ("authorization", "Bearer callers"), ("x-vllm-priority", "9"))
    answer = [STREAM_HEAD, chunk("Hi", finish="stop"), usage(1, 1), DONE]
    async with ScriptedBackend(answer) as backend, start_gateway(backend.url, vllm_api_key="sk-1") as gateway:
        await gateway.stub.Generate(pb.GenerateRequest(prompt="hello"), metadata=metadata, timeout=30)

    headers = backend.requests[0][1]
    assert headers["authorization"] == "Bearer sk-1"
    assert headers["x-request-id"] == "mine-1"
    assert headers.keys() == {
        "host", "authorization", "x-request-id", "content-type", "content-length", "accept-encoding", "user-agent",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "covered"),
    [
        (pb.ChatCompletionRequest.DESCRIPTOR, {row[0] for row in CHAT} | OTHERS_OF_CHAT),
        (pb.GenerateRequest.DESCRIPTOR, {row[0] for row in GENERATE} | OTHERS),
    ],
    ids=["chat", "generate"],
)
def test_every_field_of_a_request_is_in_the_table(kind: Descriptor, covered: set[str]) -> None:
    assert set(paths(kind)) == covered


@pytest.mark.parametrize("row", numbered([*CHAT, *GENERATE]))
def test_a_row_of_the_table_sets_the_field_that_it_is_about(row: Row) -> None:
    inner: Any = row[1]
    for step in row[0].split("."):
        inner = inner[0] if isinstance(inner, list) else inner
        if step == "role" or (step == "name" and "weather" in str(inner)):
            return
        inner = inner[step]
