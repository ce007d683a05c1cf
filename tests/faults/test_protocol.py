# SPDX-License-Identifier: Apache-2.0
"""Rows 53, 54, 56 and 57: odd metadata, odd paths, messages of odd sizes, hostile fields."""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Any

import grpc

from llm_gateway.simulator import Options, Simulator
from llm_gateway.v1 import llm_service_pb2 as pb
from tests.faults.invariants import CANARY, MODEL, PROMPT, Streaming, asking, scene
from tests.faults.matrix import Ending, Expected, ending_of, row, told
from tests.kit.calls import chat_request
from tests.kit.http2 import END_STREAM, STREAM, USUAL, Kind, framed, http2_client
from tests.kit.memory import resident

if TYPE_CHECKING:
    from tests.kit.http2 import Frame

MADE = re.compile(r"[0-9a-f]{32}")
NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


def request_to_the_model(**params: Any) -> pb.ChatCompletionRequest:
    """A request that the scene's model takes."""
    request = chat_request(**params)
    request.model = MODEL
    return request


def status_of(frame: Frame) -> Ending:
    """How gRPC itself has ended the first call of a connection."""
    assert frame.grpc_status is not None
    assert b"grpc-status-details-bin" not in frame.payload
    return Ending(NAMES[frame.grpc_status], "–")


# ------------------------------------------------------------------------------------------------------------ metadata

ODD = (
    [("x-request-id", b"a\r\nx-injected: 1")],
    [("x-request-id", b"a\n")],
    [("x-request-id", b"a\0b")],
    [("x-request-id", b"a\x1b[31m")],
    [("x-request-id", b"\xff\xfe")],
    [("x-request-id", b"a b"), ("x-request-id", b"one"), ("x-request-id", b"two")],
    [("x-request-id", b"x" * 9_000)],
    [("x-other", b"a\r\nx-injected: 1"), ("x-other", b"\x1b[2J"), ("cookie", CANARY.encode())],
)


@row(53, "odd")
async def test_row_53_odd_metadata_goes_no_further(simulator: Simulator, expected: Expected) -> None:
    """No library of gRPC's sends these. That the log is of JSON lines, one for each call, the witness reads."""
    async with scene(simulator.url) as witness:
        for metadata in ODD:
            witness.others += 1
            async with http2_client(witness.gateway.server.port) as client:
                await client.receive_end(client.call(STREAM, request_to_the_model(), metadata))
        lines = await witness.strange_lines(len(ODD))

    for line, request in zip(lines, simulator.requests, strict=True):
        assert told(line) in expected
        assert MADE.fullmatch(line["request_id"])
        assert request.headers["x-request-id"] == line["request_id"]
        assert {"x-injected", "x-other", "cookie"} & set(request.headers) == set()


@row(53, "too large")
async def test_row_53_metadata_that_is_too_large_is_refused_by_grpc(simulator: Simulator, expected: Expected) -> None:
    async with scene(simulator.url) as witness:
        call = witness.gateway.stub.ChatCompletionStream(
            request_to_the_model(), timeout=30, metadata=(("x-large", "x" * 20_000),)
        )

        assert Ending((await call.code()).name, "–") in expected
    assert simulator.statistics().requests_seen == 0


# --------------------------------------------------------------------------------------------------------------- paths

ODD_PATHS = (
    "", "*", "/", "/x", f"{STREAM}/", f"/{STREAM}", f"{STREAM}?x=1", f"{STREAM}\0", STREAM.lower(),
    STREAM.replace("v1", "v2"), f"/..{STREAM}", f"http://gateway{STREAM}", STREAM.rpartition("/")[0],
)  # fmt: skip


async def ended_by_grpc(port: int, path: str, fields: dict[str, bytes]) -> Ending:
    """How a call to an odd path, or with odd headers, ends."""
    async with http2_client(port) as client:
        number = client.begin(path, fields=fields)
        client.send(Kind.DATA, framed(request_to_the_model().SerializeToString()), flags=END_STREAM, stream=number)
        return status_of(await client.receive_end(number))


@row(54, "path")
async def test_row_54_an_odd_path_reaches_no_handler(simulator: Simulator, expected: Expected) -> None:
    async with scene(simulator.url) as witness:
        for path in ODD_PATHS:
            assert await ended_by_grpc(witness.gateway.server.port, path, dict(USUAL)) in expected
    assert simulator.statistics().requests_seen == 0


@row(54, "te")
async def test_row_54_what_does_not_take_trailers_reaches_no_handler(simulator: Simulator, expected: Expected) -> None:
    async with scene(simulator.url) as witness:
        for value in (b"gzip", b"", b"trailers, gzip"):
            assert await ended_by_grpc(witness.gateway.server.port, STREAM, {**USUAL, "te": value}) in expected
        async with http2_client(witness.gateway.server.port) as client:
            number = client.begin(STREAM, fields={"content-type": USUAL["content-type"]})
            await client.receive_until(Kind.RST_STREAM, stream=number)
    assert simulator.statistics().requests_seen == 0


@row(54, "content type")
async def test_row_54_whatever_it_is_called_it_is_read_as_grpc(simulator: Simulator, expected: Expected) -> None:
    kinds = (b"text/html", b"application/json", b"application/grpc-web", b"")
    message = framed(request_to_the_model().SerializeToString())
    async with scene(simulator.url) as witness:
        for kind in kinds:
            witness.others += 1
            async with http2_client(witness.gateway.server.port) as client:
                number = client.begin(STREAM, fields={**USUAL, "content-type": kind})
                client.send(Kind.DATA, message, flags=END_STREAM, stream=number)
                await client.receive_end(number)
        for line in await witness.strange_lines(len(kinds)):
            assert told(line) in expected

    assert simulator.statistics().finished == len(kinds)


# --------------------------------------------------------------------------------------------------------------- sizes

LIMIT = 100_000
BOMB = 40_000_000
"""Bytes of nothing, which are a thousandth of that when they are compressed."""


def request_of(size: int) -> pb.ChatCompletionRequest:
    """A request of exactly so many bytes."""
    request = request_to_the_model()
    request.messages[0].content = asking()
    for _ in range(2):  # the length of a length may grow
        request.messages[0].content += "x" * (size - request.ByteSize())
        request.messages[0].content = request.messages[0].content[: size - request.ByteSize() or None]
    assert request.ByteSize() == size
    return request


@row(56, "at the limit", "above")
async def test_row_56_the_limit_of_a_message_is_exact(case: str, expected: Expected) -> None:
    async with Simulator(Options(max_model_len=LIMIT)) as patient:
        async with scene(patient.url, server={"max_message_bytes": LIMIT}) as witness:
            request = request_of(LIMIT if case == "at the limit" else LIMIT + 1)

            assert ending_of(await witness.send(request).end()) in expected
        assert patient.statistics().requests_seen == (case == "at the limit")


@row(56, "bomb")
async def test_row_56_a_message_that_grows_is_refused_before_it_has_grown(
    simulator: Simulator, expected: Expected
) -> None:
    packer = zlib.compressobj(wbits=31)
    bomb = framed(b"".join(packer.compress(bytes(BOMB // 100)) for _ in range(100)) + packer.flush(), compressed=True)
    assert LIMIT > len(bomb) < BOMB / 500
    async with scene(simulator.url, server={"max_message_bytes": LIMIT}) as witness:
        before = resident()
        async with http2_client(witness.gateway.server.port) as client:
            number = client.begin(STREAM, [("grpc-encoding", b"gzip")])
            for start in range(0, len(bomb), 16_384):
                client.send(Kind.DATA, bomb[start : start + 16_384], stream=number)
            client.send(Kind.DATA, flags=END_STREAM, stream=number)

            assert status_of(await client.receive_end(number)) in expected
        assert resident() - before < BOMB / 2
    assert simulator.statistics().requests_seen == 0


# -------------------------------------------------------------------------------------------------------------- fields


def hostile() -> dict[str, pb.ChatCompletionRequest | bytes]:
    """Requests that no backend is to see, each with what is wrong."""
    deep = '{"a":' * 10_000 + "1" + "}" * 10_000
    whole = request_to_the_model()
    requests: dict[str, Any] = {
        "a million choices": request_to_the_model(n=10**6),
        "a hundred thousand stops": request_to_the_model(stop=["x"] * 10**5),
        "not a number": request_to_the_model(temperature=float("nan")),
        "an infinite number": request_to_the_model(top_p=float("inf")),
        "a large number": request_to_the_model(temperature=1e308),
        "a huge bias": request_to_the_model(logit_bias={1: 1e30}),
        "no tokens": request_to_the_model(max_tokens=0),
        "a deep schema": request_to_the_model(),
        "no messages": pb.ChatCompletionRequest(model=MODEL),
        "both contents": request_to_the_model(),
        "a role that there is not": request_to_the_model(),
        "half a character": whole.SerializeToString().replace(b"hello", b"\xed\xa0\xbdhe"),
        "no request": b"\xff" * 100,
    }
    requests["a deep schema"].structured_output.json_schema.schema = deep
    requests["both contents"].messages[0].content_parts.add(text=PROMPT)
    requests["a role that there is not"].messages[0].role = 99
    return requests


@row(57)
async def test_row_57_hostile_fields_reach_no_backend(simulator: Simulator, expected: Expected) -> None:
    """One scene for all: that none of them spoils the next one is a part of it."""
    wrong: dict[str, Ending] = {}
    silent = []
    async with scene(simulator.url) as witness:
        for name, request in hostile().items():
            call = witness.send(request) if isinstance(request, pb.ChatCompletionRequest) else raw(witness, request)
            outcome = await call.end()
            if ending_of(outcome) not in expected:
                wrong[name] = ending_of(outcome)
            elif not isinstance(request, bytes) and not outcome.failure.violations:  # type: ignore[union-attr]
                silent.append(name)

    assert wrong == {}
    assert silent == []
    assert simulator.statistics().requests_seen == 0


def raw(witness: Any, data: bytes) -> Streaming:
    """A call whose request is no message of ours."""
    method: grpc.aio.UnaryStreamMultiCallable[bytes, Any] = witness.gateway.channel.unary_stream(
        STREAM, response_deserializer=pb.ChatCompletionStreamResponse.FromString
    )
    call = method(data, timeout=30, metadata=(("x-request-id", f"call-{len(witness.calls)}"),))
    streaming = Streaming(call, f"call-{len(witness.calls)}", said="", timeout=30)
    witness.calls.append(streaming)
    return streaming
