# SPDX-License-Identifier: Apache-2.0
"""The load generator's parsers, fed by hand: how the network cuts the bytes changes nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from llm_gateway.v1 import llm_service_pb2 as pb
from tests.bench import grpc_client, sse_client
from tests.bench.grpc_client import DATA, END_HEADERS, END_STREAM, HEADERS, PING, RESET, SETTINGS, frame
from tests.bench.streams import Stream, StreamError

if TYPE_CHECKING:
    from collections.abc import Iterator

AUTHORITY = "127.0.0.1:1"
SIZES = [1, 2, 3, 5, 7, 64, 100_000]
EVENTS = [b'data: {"delta":"%d"}\n\n' % i for i in range(9)]
EVENTS += [b'data: {"usage":{"completion_tokens":8}}\n\n', b"data: [DONE]\n\n"]


class Wire(asyncio.Transport):
    """Keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        pass


def cut(data: bytes, size: int) -> Iterator[bytes]:
    """Into reads of one size."""
    return (data[i : i + size] for i in range(0, len(data), size))


def message(event: pb.ChatCompletionStreamResponse) -> bytes:
    """As gRPC frames it."""
    encoded = event.SerializeToString()
    return b"\0" + len(encoded).to_bytes(4, "big") + encoded


def sse_answer() -> bytes:
    """An answer in chunks, an event each."""
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in EVENTS)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def grpc_answer() -> bytes:
    """Started, eight deltas over three frames with one cut through a message, completed, trailers."""
    events = [pb.ChatCompletionStreamResponse(sequence=1)]
    events[0].started.model = "sim"
    for i in range(2, 10):
        delta = pb.ChatCompletionStreamResponse(sequence=i)
        delta.delta.text = f" word {i}"
        events.append(delta)
    completed = pb.ChatCompletionStreamResponse(sequence=10)
    completed.completed.usage.completion_tokens = 8
    completed.completed.merged_deltas = 3
    body = b"".join(message(event) for event in [*events, completed])
    thirds = (body[:40], body[40:100], body[100:])
    data = b"".join(frame(DATA, 0, 1, third) for third in thirds)
    trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x88")
    return frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, b"\x88") + data + trailers


def grpc_stream() -> tuple[grpc_client.Connection, Wire, Stream]:
    """A connection with one request under way."""
    connection, wire = grpc_client.Connection(AUTHORITY), Wire()
    connection.connection_made(wire)
    stream = Stream(grpc_client.FIRST_PIECE)
    connection.send(b"request", stream)
    return connection, wire, stream


@pytest.mark.parametrize("size", SIZES)
async def test_events_are_counted_however_they_are_cut(size: int) -> None:
    connection = sse_client.Connection()
    connection.connection_made(Wire())
    stream = Stream(sse_client.FIRST_PIECE)
    connection.send(b"request", stream)

    for read in cut(sse_answer(), size):
        connection.data_received(read)
    await stream.done

    assert (stream.pieces, stream.tokens) == (len(EVENTS), 8)


@pytest.mark.parametrize("size", SIZES)
async def test_messages_are_counted_however_they_are_cut(size: int) -> None:
    connection, _, stream = grpc_stream()

    for read in cut(grpc_answer(), size):
        connection.data_received(read)
    await stream.done

    assert (stream.pieces, stream.tokens, stream.merged) == (10, 8, 3)


async def test_pings_and_settings_are_acknowledged() -> None:
    connection, wire, _ = grpc_stream()
    wire.written = b""

    connection.data_received(frame(SETTINGS, 0, 0) + frame(PING, 0, 0, b"12345678"))

    assert wire.written == frame(SETTINGS, 1, 0) + frame(PING, 1, 0, b"12345678")


async def test_the_window_of_the_connection_is_topped_up() -> None:
    connection, wire, _ = grpc_stream()
    wire.written = b""
    many = frame(DATA, 0, 99, bytes(16_000))

    for _ in range(grpc_client.TOP_UP // 16_000):
        connection.data_received(many)

    assert wire.written != b""


async def test_a_reset_stream_has_failed() -> None:
    connection, _, stream = grpc_stream()

    connection.data_received(frame(RESET, 0, 1, (8).to_bytes(4, "big")))

    with pytest.raises(StreamError, match="code 8"):
        await stream.done


async def test_a_cancelled_stream_is_reset_and_its_connection_goes_on() -> None:
    connection, wire, first = grpc_stream()
    second = Stream(grpc_client.FIRST_PIECE)
    connection.send(b"request", second)
    wire.written = b""

    assert connection.cancel(first)
    connection.data_received(grpc_answer())  # what was under way to the first one
    await first.done

    assert wire.written.startswith(frame(RESET, 0, 1, (8).to_bytes(4, "big")))
    assert (first.tokens, second.done.done()) == (0, False)


async def test_only_a_stream_that_is_under_way_can_be_cancelled() -> None:
    connection, _, stream = grpc_stream()
    connection.data_received(grpc_answer())

    assert not connection.cancel(stream)


async def test_an_answer_without_completed_has_failed() -> None:
    connection, _, stream = grpc_stream()

    connection.data_received(frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x88"))

    with pytest.raises(StreamError, match="not a whole answer"):
        await stream.done


async def test_a_request_over_a_closed_connection_has_failed() -> None:
    connection, _, first = grpc_stream()
    connection.connection_lost(None)
    second = Stream(grpc_client.FIRST_PIECE)
    connection.send(b"request", second)

    for stream in (first, second):
        with pytest.raises(StreamError, match="connection"):
            await stream.done
