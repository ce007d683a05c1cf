# SPDX-License-Identifier: Apache-2.0
"""Row 55: what a bare HTTP/2 client can pour out, and that others notice nothing of it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from tests.faults.invariants import MODEL, asking, scene
from tests.faults.matrix import Expected, ending_of, row
from tests.kit.calls import chat_request, until
from tests.kit.http2 import ACK, END_HEADERS, END_STREAM, STREAM, Kind, framed, http2_client
from tests.kit.memory import resident

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llm_gateway.simulator import Simulator
    from tests.faults.invariants import Witness
    from tests.kit.http2 import Http2Client

    Flood = Callable[[Http2Client], Awaitable[int]]

CANCEL = (8).to_bytes(4, "big")
MOST_MEMORY = 100_000_000
MOST_HANDLERS = 64
"""In flight at once; a call that is reset at once hardly gets there."""


async def resets(client: Http2Client) -> int:
    """Calls that are begun and soon reset. Gives how many calls may have come to a handler."""
    request = chat_request(asking())
    request.model = MODEL
    for _ in range(100):
        numbers = [client.call(STREAM, request) for _ in range(10)]
        await client.flush()
        await asyncio.sleep(0.001)
        for number in numbers:
            client.send(Kind.RST_STREAM, CANCEL, stream=number)
    return 1_000


async def continuations(client: Http2Client) -> int:
    """Headers that never end."""
    client.send(Kind.HEADERS, b"\0\x01a\x01b", stream=1)
    for _ in range(2_000):
        client.send(Kind.CONTINUATION, b"\0\x05x-pad\x7f\x81\x06" + b"x" * 896, stream=1)
        await client.flush()
    return 0


async def settings(client: Http2Client) -> int:
    """Settings, each of which wants to be acknowledged."""
    for _ in range(200):
        client.send(Kind.SETTINGS, b"\0\x04\0\0\xff\xff", times=100)
        await client.flush()
    return 0


async def pings(client: Http2Client) -> int:
    """Pings, likewise."""
    for _ in range(200):
        client.send(Kind.PING, bytes(8), times=100)
        await client.flush()
    return 0


async def crumbs(client: Http2Client) -> int:
    """A message that comes byte by byte, and never whole."""
    number = client.begin(STREAM)
    for byte in framed(bytes(20_000))[:-1]:
        client.send(Kind.DATA, bytes((byte,)), stream=number)
    await client.flush()
    return 1


async def halves(client: Http2Client) -> int:
    """Calls whose message never comes."""
    for _ in range(500):
        client.begin(STREAM)
    await client.flush()
    return 500


async def empty_data(client: Http2Client) -> int:
    """Frames with nothing in them."""
    number = client.begin(STREAM)
    client.send(Kind.DATA, b"", stream=number, times=20_000)
    await client.flush()
    return 1


async def rubbish(client: Http2Client) -> int:
    """Frames of a kind that there is not, and a message that ends within its length."""
    client.send(Kind.DATA, b"\xff" * 100, stream=99, flags=END_STREAM)
    number = client.begin(STREAM)
    client.send(Kind.DATA, b"\0\xff\xff\xff\xff", flags=END_STREAM | END_HEADERS, stream=number)
    await client.flush()
    return 1


FLOODS: dict[str, Flood] = {
    flood.__name__: flood for flood in (resets, continuations, settings, pings, crumbs, halves, empty_data, rubbish)
}


async def pour(witness: Witness, flood: Flood) -> None:
    """Pour it out; and see that the gateway has come to its end, or has closed the connection over it."""
    async with http2_client(witness.gateway.server.port) as client:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            count = await flood(client)
            witness.others, witness.lost = witness.others + count, witness.lost + count
            client.send(Kind.PING, b"the last")
            while (await client.receive_until(Kind.PING, flags=ACK)).payload != b"the last":
                pass


@row(55)
async def test_row_55_a_flood_drowns_nobody(simulator: Simulator, expected: Expected) -> None:
    async with scene(simulator.url, admission={"max_in_flight": MOST_HANDLERS}) as witness:
        before = resident()
        for name, flood in FLOODS.items():
            pouring = asyncio.create_task(pour(witness, flood), name=name)
            outcomes = [await witness.stream()]
            while not pouring.done():
                outcomes.append(await witness.stream())
                await asyncio.sleep(0)
            await pouring

            for outcome in outcomes:
                assert ending_of(outcome) in expected
            assert resident() - before < MOST_MEMORY
        await until(lambda: simulator.statistics().running == simulator.statistics().waiting == 0)
