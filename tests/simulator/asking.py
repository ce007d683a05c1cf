# SPDX-License-Identifier: Apache-2.0
"""Asks a simulator over real sockets."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from aiohttp import ClientSession

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_gateway.simulator import Simulator

Json = dict[str, Any]

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"unit": {"type": "string", "enum": ["c", "f"]}}},
    },
}


def chat(prompt: str = "Tell me a story.", **fields: object) -> Json:
    """A chat request."""
    return {"messages": [{"role": "user", "content": prompt}], **fields}


async def get(simulator: Simulator, path: str) -> tuple[int, bytes]:
    """Status and body."""
    async with ClientSession() as session, session.get(simulator.url + path, allow_redirects=False) as response:
        return response.status, await response.read()


async def post(
    simulator: Simulator, path: str, body: object, headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """Status and body."""
    async with (
        ClientSession() as session,
        session.post(simulator.url + path, json=body, headers=headers) as response,
    ):
        return response.status, await response.read()


async def answer(simulator: Simulator, body: Json, path: str = CHAT) -> Json:
    """The JSON of a whole answer."""
    _, raw = await post(simulator, path, body)
    answered: Json = json.loads(raw)
    return answered


async def lines(simulator: Simulator, body: Json, path: str = CHAT) -> list[str]:
    """The events of a stream, as text without their `data: `."""
    _, raw = await post(simulator, path, body | {"stream": True})
    return [line.removeprefix("data: ") for line in raw.decode().split("\n\n") if line]


async def events(simulator: Simulator, body: Json, path: str = CHAT) -> list[Json]:
    """The decoded events of a stream that ends well."""
    *all_but_done, done = await lines(simulator, body, path)
    assert done == "[DONE]"
    return [json.loads(line) for line in all_but_done]


def choices(streamed: list[Json]) -> list[Json]:
    """The only choice of every event that has one."""
    return [event["choices"][0] for event in streamed if event["choices"]]


def deltas(streamed: list[Json]) -> list[Json]:
    """What each event adds."""
    return [choice["delta"] for choice in choices(streamed)]


async def raw(simulator: Simulator, body: Json, path: str = CHAT) -> bytes:
    """Every byte the server sends until the connection ends; ConnectionResetError if it ends with RST."""
    return await exchange(simulator, request_bytes(body, path))


async def exchange(simulator: Simulator, sent: bytes) -> bytes:
    """Bytes for bytes."""
    reader, writer = await asyncio.open_connection(simulator.options.host, simulator.port)
    try:
        writer.write(sent)
        return await reader.read()
    finally:
        writer.close()


def request_bytes(body: Json, path: str = CHAT) -> bytes:
    """A request as HTTP/1.1 text, for a connection of its own."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: sim\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
