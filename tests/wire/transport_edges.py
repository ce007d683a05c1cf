# SPDX-License-Identifier: Apache-2.0
"""Edge cases of HTTP and of server-sent events."""

from __future__ import annotations

import gzip

from tests.kit.scripted import DONE, STREAM_HEAD, Close, Pause, Reset, chunk, json_response
from tests.wire.edges import (
    CHUNKED,
    END,
    HELLO,
    LOST,
    NOT_THE_PROTOCOL,
    STOP,
    Fault,
    Row,
    Whole,
    answered,
    chunked,
    completion,
    corrupted,
    fails,
    interrupted,
    line,
    says,
    streamed,
    whole,
)

NOW = Pause(0)
LARGEST_EVENT = 64 * 1024
SCHOOL = "Grüß 日本 🦜"
SCHOOL_BYTES = chunk(SCHOOL)
SEPARATORS = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg"
LINES = b"".join(HELLO)
TOO_LARGE = chunk("x" * 2_000_000)  # more than one read brings
ERROR_400 = {"error": {"message": "no", "type": "BadRequestError", "param": "temperature", "code": 400}}

ROWS = {
    # --- events and lines
    "lines end with CR LF": whole(LINES.replace(b"\n", b"\r\n")),
    "lines end with a lone CR": whole(LINES.replace(b"\n", b"\r"), b"\r"),
    "CR and LF come in two reads": whole(
        *[step for one in HELLO for step in (one.replace(b"\n", b"\r\n")[:-1], NOW, b"\n", NOW)]),
    "a character is cut between reads": says(
        SCHOOL, *[step for byte in SCHOOL_BYTES for step in (bytes([byte]), NOW)], *END),
    "a character is cut between HTTP chunks": Row(
        chunked(SCHOOL_BYTES[:-40], *[bytes([byte]) for byte in SCHOOL_BYTES[-40:]], *END), Whole((SCHOOL,))),
    "U+2028 and its like stand in the JSON": says(
        SEPARATORS, b"data: " + line(SEPARATORS).replace(b"\\u000b", b"\\u000B") + b"\n\n", *END),
    "every byte comes by itself": whole(*[step for byte in LINES for step in (bytes([byte]), NOW)]),
    "fifty events come at once": says("x" * 50, chunk("x") * 50, *END),
    "an event has several lines of data": whole(
        b"data: " + line("Hello").replace(b', "', b',\ndata: "') + b"\n\n", *END),
    "there is no blank after the colon": whole(LINES.replace(b"data: ", b"data:")),
    "a byte order mark leads": whole(b"\xef\xbb\xbf" + LINES),
    "comments and other fields stand between": whole(
        b": keep-alive\n\nevent: message\nid: 7\nretry: 10\n" + HELLO[0], b": keep-alive\n\n", *HELLO[1:]),
    "a thousand blank lines come first": whole(b"\n" * 1000, *HELLO),
    "data that is empty is no event": whole(b"data:\n\ndata: \n\n", *HELLO),
    "the last event is not ended: it is lost, and the answer is cut": fails(
        interrupted("Hel"), chunk("Hel"), chunk("lo", finish="stop")[:-1]),
    "[DONE] is not ended, the answer is whole": whole(*HELLO[:-1], DONE.rstrip()),
    # --- how it ends
    "no [DONE], but every choice ended": whole(*HELLO[:-1]),
    "no [DONE], and no usage": whole(*HELLO[:-2], usage=None),
    "no [DONE] and no end, nothing said": fails(LOST, chunk("")),
    "no [DONE] and no end, something said": fails(interrupted("Hel"), chunk("Hel")),
    "[DONE] alone": fails(LOST, chunk(""), DONE),
    "[DONE] without an end, something said": fails(interrupted("Hel"), chunk("Hel"), DONE),
    "[DONE] has blanks after it": whole(*HELLO[:-1], b"data: [DONE]  \n\n"),
    "data after [DONE] is passed over": whole(*HELLO, chunk(" more"), b"data: {nonsense\n\n"),
    # --- other answers than a stream
    "a whole answer as JSON": Row(completion(), Whole(more={"usage": (3, 2)})),
    "an error as JSON under 200": Row(
        [json_response("200 OK", ERROR_400)], Fault("INVALID_ARGUMENT", "INVALID_REQUEST")),
    "a page of HTML": Row(answered("200 OK\r\ncontent-type: text/html", b"<p>hi</p>"), NOT_THE_PROTOCOL),
    "an empty stream": Row(answered("200 OK\r\ncontent-type: text/event-stream"), LOST),
    "an empty response": Row(answered("200 OK"), NOT_THE_PROTOCOL),
    "JSON that is empty": Row([json_response("200 OK", b"")], LOST),
    "JSON that is no answer": Row([json_response("200 OK", {"hello": 1})], LOST),
    "204": Row([b"HTTP/1.1 204 No Content\r\n\r\n"], NOT_THE_PROTOCOL),
    "a redirect is not followed": Row(answered("307 Temporary Redirect\r\nlocation: /v1/x"), NOT_THE_PROTOCOL),
    "a lasting redirect is not followed": Row(answered("308 Permanent Redirect\r\nlocation: /v1/x"), NOT_THE_PROTOCOL),
    "a compressed stream": Row(
        answered("200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip", gzip.compress(LINES)),
        NOT_THE_PROTOCOL),
    "an encoding that is empty": Row(
        answered("200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: ", LINES), Whole()),
    "a compressed document": Row(
        answered("200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip", gzip.compress(b"0" * 10**6)),
        NOT_THE_PROTOCOL),
    # --- how the connection breaks
    "HTTP chunks end early, the answer is whole": Row(chunked(*HELLO, end=b""), Whole()),
    "HTTP chunks end early, nothing said": Row(chunked(chunk(""), end=b""), LOST),
    "HTTP chunks end early, something said": Row(chunked(chunk("Hel"), end=b""), interrupted("Hel")),
    "an HTTP chunk is cut": Row(chunked(chunk("Hel"), end=b"ff\r\ndata: {"), interrupted("Hel")),
    "an HTTP chunk has no size": Row([CHUNKED + b"2\r\nhi\r\nzz\r\n"], NOT_THE_PROTOCOL),
    "reset in the middle of an event": fails(
        interrupted("Hel"), chunk("Hel"), NOW, chunk("lo")[:9], NOW, Reset),
    "reset before the head": Row([Reset], LOST),
    "closed before the head": Row([Close], LOST),
    "closed in the middle of the head": Row([b"HTTP/1.1 200 OK\r\ncontent-", Close], LOST),
    # --- sizes and versions
    "an event that is large, but not too large": says("x" * 60_000, chunk("x" * 60_000), *END),
    "an event that is too large, nothing said": fails(NOT_THE_PROTOCOL, TOO_LARGE, *END),
    "an event that is too large, something said": fails(corrupted("Hel"), chunk("Hel"), NOW, TOO_LARGE, *END),
    "an event that never ends": fails(corrupted("Hel"), chunk("Hel"), NOW, b"data: " + b"x" * 70_000, Pause()),
    "a status line without end": Row([b"HTTP/1.1 200 " + b"O" * 20_000 + b"\r\n\r\n", Pause()], NOT_THE_PROTOCOL),
    "a flood of headers": Row([b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 40_000, b"\r\n", Close], NOT_THE_PROTOCOL),
    "what answers is not HTTP": Row([b"220 mail.example.org ESMTP\r\n", Close], NOT_THE_PROTOCOL),
    "HTTP/1.0, ended by its connection": Row(
        [STREAM_HEAD.replace(b"HTTP/1.1", b"HTTP/1.0"), *HELLO, Close], Whole()),
    "the media type is in capitals and has parameters": Row(
        [STREAM_HEAD.replace(b"text/event-stream; charset=utf-8", b"Text/Event-Stream ;charset=UTF-8"), *HELLO],
        Whole()),
    "an end without a usage and an open connection": whole(chunk("Hello"), STOP, DONE, Pause(), usage=None),
    "the head comes alone": Row(streamed(NOW, *HELLO), Whole()),
}  # fmt: skip
