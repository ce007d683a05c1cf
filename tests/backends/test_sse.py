# SPDX-License-Identifier: Apache-2.0
"""The parser of server-sent events: it splits on bytes, and however the bytes are cut, the events are the same."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.backends.sse import SseParser, simple_events

LIMIT = 1024 * 1024
LINE_ENDS = (b"\n", b"\r\n", b"\r")

# Data as JSON may have it: no line ends, but all that text functions take for one.
line_data = st.text(
    st.characters(codec="utf-8", exclude_characters="\r\n") | st.sampled_from("\u2028\u2029\x85\x0b\x0c")
).map(str.encode)
comments = line_data.map(lambda data: b":" + data)
fields = st.sampled_from([b"event: message", b"id: 7", b"retry: 10", b"data-like: x", b"unknown"])


def parse(*reads: bytes, limit: int = LIMIT) -> list[bytes]:
    """The events of a stream that arrives in these reads."""
    parser = SseParser(limit)
    return [event for read in reads for event in parser.feed(read)]


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """The stream, cut at these places."""
    borders = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(borders)]


@given(
    events=st.lists(st.lists(line_data, min_size=1, max_size=3), max_size=8),
    noise=st.lists(comments | fields, max_size=3),
    line_end=st.sampled_from(LINE_ENDS),
    space=st.sampled_from([b" ", b""]),
    bom=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    places=st.lists(st.integers(0, 10_000), max_size=12),
)
def test_the_events_are_the_same_wherever_the_stream_is_cut(
    events: list[list[bytes]], noise: list[bytes], line_end: bytes, space: bytes, bom: bytes, places: list[int]
) -> None:
    lines = []
    for event in events:
        # A blank after the colon is not data: a line that begins with one needs another before it.
        lines += [*noise, *(b"data:" + (b" " if line.startswith(b" ") else space) + line for line in event), b""]
    stream = bom + b"".join(line + line_end for line in lines)

    assert parse(*cut(stream, places)) == [b"\n".join(event) for event in events]


@given(
    texts=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n")), max_size=20),
    places=st.lists(st.integers(0, 10_000), max_size=30),
)
def test_events_as_vllm_writes_them_come_out_one_for_one(texts: list[str], places: list[int]) -> None:
    stream = b"".join(b"data: " + text.encode() + b"\n\n" for text in texts)

    assert parse(*cut(stream, places)) == [text.encode() for text in texts]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
def test_what_splits_lines_of_text_does_not_split_an_event(separator: str) -> None:
    data = f'{{"content":"a{separator}b"}}'.encode()

    assert parse(b"data: " + data + b"\n\n") == [data]
    assert parse(b": late start\n\n", b"data: " + data + b"\n\n") == [data]


def test_a_character_that_is_cut_between_reads_stays_whole() -> None:
    stream = "data: {“🦙”}\n\n".encode()

    assert parse(*(bytes([byte]) for byte in stream)) == ["{“🦙”}".encode()]


@pytest.mark.parametrize("line_end", LINE_ENDS, ids=["lf", "crlf", "cr"])
def test_every_line_end_of_the_standard_ends_a_line_byte_by_byte(line_end: bytes) -> None:
    stream = line_end.join([b"data: one", b"", b"data: two", b"data: more", b"", b""])

    assert parse(stream) == [b"one", b"two\nmore"]
    assert parse(*(bytes([byte]) for byte in stream)) == [b"one", b"two\nmore"]


def test_a_line_feed_after_a_lone_carriage_return_of_the_read_before_is_part_of_it() -> None:
    assert parse(b"data: one\r", b"\ndata: two\r", b"\n\r", b"\n") == [b"one\ntwo"]
    assert parse(b"data: one\r", b"\r", b"data: two\n\n") == [b"one", b"two"]


def test_comments_and_other_fields_give_no_events() -> None:
    assert parse(b": keep-alive\n\n", b"event: x\nid: 1\nretry: 5\n\n", b"\n\n\n") == []


def test_a_data_field_without_a_colon_or_a_value_is_an_empty_line_of_data() -> None:
    assert parse(b"data\n\n") == [b""]
    assert parse(b"data:\n\n") == [b""]
    assert parse(b"data: a\ndata\ndata: b\n\n") == [b"a\n\nb"]


def test_only_the_first_blank_after_the_colon_is_not_data() -> None:
    assert parse(b"data:  a\n\n") == [b" a"]


def test_a_byte_order_mark_is_passed_over_at_the_start_and_only_there() -> None:
    bom = b"\xef\xbb\xbf"

    assert parse(bom[:1], bom[1:] + b"data: a\n\n", bom + b"data: b\n\n") == [b"a"]


def test_an_event_that_no_blank_line_ends_is_discarded_and_told_of() -> None:
    parser = SseParser(LIMIT)

    assert parser.feed(b"data: a\n\ndata: b\n") == [b"a"]
    assert parser.unterminated
    assert parser.feed(b"\n") == [b"b"]
    assert not parser.unterminated


@pytest.mark.parametrize(
    "reads",
    [
        [b"data: " + b"x" * 60],
        [b"data: " + b"x" * 20, b"x" * 20, b"x" * 20],
        [b"data: " + b"x" * 20 + b"\n", b"data: " + b"x" * 20 + b"\n", b"data: " + b"x" * 20 + b"\n"],
    ],
    ids=["one line", "a line in pieces", "many lines"],
)
def test_an_event_above_the_limit_ends_the_parsing_after_the_events_before_it(reads: list[bytes]) -> None:
    parser = SseParser(50)

    assert parser.feed(b"data: before\n\n" + reads[0]) == [b"before"]
    assert [event for read in reads[1:] for event in parser.feed(read)] == []
    assert parser.overflowed
    assert parser.feed(b"data: after\n\n") == []


def test_the_limit_is_of_one_event_and_not_of_the_stream() -> None:
    event = b"data: " + b"x" * 40 + b"\n\n"

    assert parse(*[event] * 10, limit=50) == [b"x" * 40] * 10
    assert parse(*[event[:20], event[20:]] * 10, limit=50) == [b"x" * 40] * 10


def test_an_event_of_exactly_the_limit_is_taken() -> None:
    assert parse(b"data: " + b"x" * 44 + b"\n\n", limit=50) == [b"x" * 44]
    assert parse(b"data: " + b"x" * 22, b"x" * 22 + b"\n", b"\n", limit=50) == [b"x" * 44]


def test_the_limit_counts_the_bytes_that_wait_from_none_on() -> None:
    line = b"data: " + b"x" * 44

    assert parse(line, b"\n\n", line, b"\n\n", limit=50) == [b"x" * 44] * 2
    assert parse(b": c\n", line, b"\n\n", line, b"\n\n", limit=50) == [b"x" * 44] * 2


def test_a_byte_order_mark_after_a_simple_event_is_no_beginning() -> None:
    assert parse(b"data: a\n\n", b"\xef\xbb\xbfdata: b\n\n") == [b"a"]


def test_one_line_feed_is_part_of_a_carriage_return_and_the_next_is_not() -> None:
    assert parse(b"data: a\r", b"\ndata: b", b"\n\n") == [b"a\nb"]
    assert parse(b"data: a\r", b"", b"\ndata: b\n", b"\n") == [b"a\nb"]


@pytest.mark.parametrize(
    ("chunk", "events", "rest"),
    [
        (b"data: a\n\ndata: bc\n\n", [b"a", b"bc"], b""),
        (b"data: \n\n", [b""], b""),
        (b"data: a\n\n: comment\n\n", [b"a"], b": comment\n\n"),
        (b"data: a\ndata: b\n\n", [], b"data: a\ndata: b\n\n"),
        (b"data: a\n\ndata: b", [b"a"], b"data: b"),
        (b"data: a\n\ndata: b\n", [b"a"], b"data: b\n"),
        (b"data:a\n\n", [], b"data:a\n\n"),
        (b"", [], b""),
    ],
)
def test_the_short_way_takes_what_is_simple_and_leaves_the_rest(chunk: bytes, events: list[bytes], rest: bytes) -> None:
    assert simple_events(chunk) == (events, rest)


def test_the_error_field_of_older_llama_cpp_is_data_as_newer_ones_send_it() -> None:
    stream = b'data: {"choices":[]}\n\nerror: {"code":500,"message":"a"}\n\n'

    assert parse(stream) == [b'{"choices":[]}', b'{"error": {"code":500,"message":"a"}}']
