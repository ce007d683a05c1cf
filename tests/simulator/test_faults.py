# SPDX-License-Identifier: Apache-2.0
"""Every fault does to a client what its one comment line says, and is counted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from aiohttp import ClientSession, ClientTimeout

from llm_gateway.simulator import Behaviour, Fault, Options, Simulator
from tests.simulator import asking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_DONE = b"data: [DONE]\n\n"
_LAST_CHUNK = b"0\r\n\r\n"
_SOON = ClientTimeout(total=0.05)
_HELLO = asking.chat()
_STREAM = asking.chat(stream=True, stream_options={"include_usage": True})


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(Options(default_tokens=6)) as started:
        yield started


def _texts(raw: bytes) -> int:
    return raw.count(b'"delta":{"content":" ')


@pytest.mark.parametrize("fault", Fault, ids=str)
async def test_a_fault_is_counted_once(simulator: Simulator, fault: Fault) -> None:
    simulator.script(Behaviour(fault=fault, after=2, seconds=0.001))

    try:
        await asking.raw(simulator, _STREAM)
    except ConnectionResetError:
        assert fault in (Fault.REFUSE, Fault.RESET)

    statistics = await simulator.wait_for(lambda now: now.finished == 1)
    assert {fault: 1} == statistics.faults
    assert (statistics.requests_seen, statistics.running, statistics.waiting, statistics.aborted) == (1, 0, 0, 0)


async def test_refused_means_no_byte(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.REFUSE))

    with pytest.raises(ConnectionResetError):
        await asking.raw(simulator, _STREAM)


async def test_a_cut_stream_has_its_tokens_but_no_terminal_chunk(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.CUT, after=3))

    raw = await asking.raw(simulator, _STREAM)

    assert _texts(raw) == 3
    assert not raw.endswith(_LAST_CHUNK)


async def test_eof_is_a_proper_end_without_finish_and_done(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.EOF, after=3))

    raw = await asking.raw(simulator, _STREAM)

    assert _texts(raw) == 3
    assert raw.endswith(_LAST_CHUNK)
    assert b'"finish_reason":"' not in raw
    assert _DONE not in raw


async def test_a_fault_beyond_the_reply_strikes_before_its_finish(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.EOF, after=100))

    raw = await asking.raw(simulator, _STREAM)

    assert _texts(raw) == 5
    assert b'"finish_reason":"' not in raw


async def test_a_fault_at_zero_comes_before_the_role(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.EOF))

    assert b"data:" not in await asking.raw(simulator, _STREAM)


async def test_a_fault_at_zero_can_let_the_role_pass(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.EOF, role_first=True))

    raw = await asking.raw(simulator, _STREAM)

    assert raw.count(b"data:") == 1
    assert b'"role":"assistant"' in raw


@pytest.mark.parametrize("fault", [Fault.STALL, Fault.KEEP_ALIVES])
async def test_a_silence_that_ends_costs_no_token(simulator: Simulator, fault: Fault) -> None:
    simulator.script(Behaviour(fault=fault, after=2, seconds=0.002))

    raw = await asking.raw(simulator, _STREAM)

    assert _texts(raw) == 5
    assert (fault is Fault.KEEP_ALIVES) == (b": keep-alive\n\n" in raw)


@pytest.mark.parametrize("fault", [Fault.STALL, Fault.KEEP_ALIVES, Fault.SLOW_HEADER])
async def test_a_silence_without_end_lasts_until_the_client_leaves(simulator: Simulator, fault: Fault) -> None:
    simulator.script(Behaviour(fault=fault))

    async with ClientSession() as session:
        with pytest.raises(TimeoutError):
            async with session.post(simulator.url + asking.CHAT, json=_STREAM, timeout=_SOON) as response:
                await response.read()

    statistics = await simulator.wait_for(lambda now: now.aborted == 1)
    assert (statistics.running, statistics.waiting) == (0, 0)


async def test_an_error_event_is_followed_by_done(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.ERROR_EVENT, after=2))

    *_, error, done = await asking.lines(simulator, _STREAM)

    assert json.loads(error)["error"]["code"] == 500
    assert done == "[DONE]"


async def test_the_older_version_writes_its_error_event_with_spaces() -> None:
    async with Simulator(Options(version="0.32.0")) as simulator:
        simulator.script(Behaviour(fault=Fault.ERROR_EVENT))

        error, _ = await asking.lines(simulator, _STREAM)

    expected = (
        '{"error": {"message": "EngineCore encountered an issue. See stack trace (above) for the root cause.", '
        '"type": "InternalServerError", "param": null, "code": 500}}'
    )
    assert expected == error


async def test_an_abort_ends_a_stream_with_its_own_finish_reason(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.ABORT, after=2))

    streamed = await asking.events(simulator, _STREAM)

    assert [choice["finish_reason"] for choice in asking.choices(streamed)] == [None, None, None, "abort"]
    assert streamed[-1]["usage"]["completion_tokens"] == 2


async def test_a_silent_drain_has_a_role_and_no_finish(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.SILENT_DRAIN))

    streamed = await asking.events(simulator, asking.chat())

    assert asking.deltas(streamed) == [{"role": "assistant", "content": ""}]


async def test_a_stream_without_done_still_ends_properly(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.NO_DONE))

    raw = await asking.raw(simulator, _STREAM)

    assert b'"finish_reason":"stop"' in raw
    assert _DONE not in raw
    assert raw.endswith(_LAST_CHUNK)


async def test_done_can_come_without_a_finish(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.NO_FINISH, after=2))

    streamed = await asking.events(simulator, _STREAM)

    assert [choice["finish_reason"] for choice in asking.choices(streamed)] == [None, None, None]


async def test_usage_can_be_withheld(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.NO_USAGE))

    assert not any("usage" in event for event in await asking.events(simulator, _STREAM))


async def test_the_role_can_be_withheld(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.NO_ROLE))

    assert not any("role" in delta for delta in asking.deltas(await asking.events(simulator, _STREAM)))


async def test_the_role_can_be_repeated(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.REPEATED_ROLE))

    assert all("role" in delta for delta in asking.deltas(await asking.events(simulator, _STREAM)))


@pytest.mark.parametrize(
    ("behaviour", "line"),
    [
        (Behaviour(fault=Fault.GARBAGE, after=1), "{not json"),
        (Behaviour(fault=Fault.GARBAGE, after=1, body=b"<html>"), "<html>"),
        (Behaviour(fault=Fault.NULL_EVENT, after=1), "null"),
    ],
)
async def test_a_strange_event_comes_after_its_token(simulator: Simulator, behaviour: Behaviour, line: str) -> None:
    simulator.script(behaviour)

    streamed = await asking.lines(simulator, _STREAM)

    assert line == streamed[2]
    assert streamed[-1] == "[DONE]"


async def test_a_huge_event_is_larger_than_any_sane_buffer(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.HUGE_EVENT, after=1))

    longest = max(len(line) for line in await asking.lines(simulator, _STREAM))

    assert longest > 4_000_000


async def test_a_finish_can_come_twice(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.DUPLICATE_FINISH))

    streamed = await asking.events(simulator, _STREAM)

    assert [choice["finish_reason"] for choice in asking.choices(streamed)].count("stop") == 2


async def test_data_can_follow_done(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.LATE_DATA))

    *_, done, late = await asking.lines(simulator, _STREAM)

    assert done == "[DONE]"
    assert late.startswith("{")


@pytest.mark.parametrize("fault", [Fault.DRIBBLE, Fault.BURST])
async def test_a_strange_framing_changes_no_byte_of_the_body(simulator: Simulator, fault: Fault) -> None:
    usual = await asking.events(simulator, _STREAM)
    simulator.script(Behaviour(fault=fault))

    strange = await asking.events(simulator, _STREAM)

    assert asking.choices(usual) == asking.choices(strange)


async def test_dribbled_bytes_come_one_a_chunk(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.DRIBBLE))

    raw = await asking.raw(simulator, _STREAM)

    assert b"1\r\nd\r\n1\r\na\r\n1\r\nt\r\n1\r\na\r\n1\r\n:\r\n" in raw


async def test_a_burst_is_one_chunk(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.BURST))

    raw = await asking.raw(simulator, _STREAM)

    assert raw.endswith(_DONE + b"\r\n" + _LAST_CHUNK)
    assert raw.count(b"\r\ndata: ") == 1


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault.CRLF, b"data: [DONE]\r\n\r\n"),
        (Fault.NO_SPACE, b"data:[DONE]\n\n"),
        (Fault.MULTI_LINE, b'"object":"chat.completion.chunk",'),
    ],
)
async def test_sse_may_be_spelled_otherwise(simulator: Simulator, fault: Fault, expected: bytes) -> None:
    simulator.script(Behaviour(fault=fault))

    raw = await asking.raw(simulator, _STREAM)

    assert expected in raw
    assert (fault is Fault.MULTI_LINE) == (b",\ndata: " in raw)


async def test_an_http_fault_is_the_answer_word_for_word(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.HTTP, status=429, body=b"{}", headers={"Retry-After": "7"}))

    async with ClientSession() as session, session.post(simulator.url + asking.CHAT, json=_STREAM) as response:
        answered = (response.status, response.headers["Retry-After"], await response.read())

    assert answered == (429, "7", b"{}")


@pytest.mark.parametrize(
    ("fault", "content_type"),
    [
        (Fault.EMPTY, "text/event-stream; charset=utf-8"),
        (Fault.HTML, "text/html"),
        (Fault.NOT_STREAMED, "application/json"),
    ],
)
async def test_a_stream_may_be_no_stream(simulator: Simulator, fault: Fault, content_type: str) -> None:
    simulator.script(Behaviour(fault=fault))

    async with ClientSession() as session, session.post(simulator.url + asking.CHAT, json=_STREAM) as response:
        assert response.status == 200
        assert content_type == response.headers["Content-Type"]


@pytest.mark.parametrize(("fault", "status"), [(Fault.ERROR_EVENT, 500), (Fault.ABORT, 200), (Fault.HTTP, 503)])
async def test_a_whole_answer_can_fail(simulator: Simulator, fault: Fault, status: int) -> None:
    simulator.script(Behaviour(fault=fault))

    answered, body = await asking.post(simulator, asking.CHAT, _HELLO)

    assert status == answered
    assert (fault is Fault.ABORT) == (b'"finish_reason":"abort"' in body)


async def test_a_cut_answer_is_shorter_than_announced(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.CUT))

    raw = await asking.raw(simulator, _HELLO)

    head, _, body = raw.partition(b"\r\n\r\n")
    announced = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    assert len(body) < announced


async def test_a_garbled_answer_is_no_json(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.GARBAGE))

    assert await asking.post(simulator, asking.CHAT, _HELLO) == (200, b"{not json")


async def test_a_script_is_played_in_order_and_then_all_is_normal(simulator: Simulator) -> None:
    simulator.script(Behaviour(fault=Fault.HTTP, status=500), Behaviour(fault=Fault.HTTP, status=429))

    statuses = [(await asking.post(simulator, asking.CHAT, _HELLO))[0] for _ in range(3)]

    assert statuses == [500, 429, 200]
