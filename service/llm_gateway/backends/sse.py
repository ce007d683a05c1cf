# SPDX-License-Identifier: Apache-2.0
"""Bytes in, the data of server-sent events out (WHATWG HTML, section 9.2).

It splits on bytes and never on text: vLLM puts U+2028, U+2029 and U+0085 into JSON as they are, and whatever splits
"lines" of text breaks events there. A character that is cut by a read stays whole, for no line ends inside one.
"""

from __future__ import annotations

BOM = b"\xef\xbb\xbf"


class SseParser:
    r"""Cuts a stream into events and gives the data of each, its lines joined by "\n".

    Comments and the fields event, id and retry are passed over. The field "error", which no standard has and older
    llama.cpp sends in the place of data, gives the data that newer ones send: {"error": …}.

    An event that no blank line ends is discarded, as the standard has it; `unterminated` tells of it. The limit is of
    what has to be kept of one event: above it the parsing ends, `overflowed` tells of it, and nothing is kept from
    there on.
    """

    __slots__ = ("_data", "_line", "_max_bytes", "_size", "_skip_lf", "_started", "overflowed")

    def __init__(self, max_event_bytes: int) -> None:
        self._max_bytes = max_event_bytes
        self._line: list[bytes] = []  # pieces of the line that is not ended yet
        self._data: list[bytes] = []  # data lines of the event that is not ended yet
        self._size = 0  # bytes in both
        self._skip_lf = False
        self._started = False
        self.overflowed = False

    @property
    def unterminated(self) -> bool:
        """Whether bytes wait for the end of their event."""
        return bool(self._line or self._data)

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the bytes of one read and give the data of every event they complete."""
        if self.overflowed:
            return []
        if not self.unterminated and not self._skip_lf and b"\r" not in chunk and chunk.startswith(b"data: "):
            self._started = True
            events, rest = simple_events(chunk)
            return events + self._lines(rest) if rest else events
        return self._lines(chunk)

    def _lines(self, chunk: bytes) -> list[bytes]:
        """The whole standard, line by line: any line ending, several data lines, a BOM, what a read cut off."""
        if self._skip_lf and chunk:
            self._skip_lf = False
            chunk = chunk.removeprefix(b"\n")
        # A CR at the very end may be half of a CRLF: it ends its line now, and an LF that follows is passed over.
        self._skip_lf = self._skip_lf or chunk.endswith(b"\r")
        *lines, rest = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        events = []
        for line in lines:
            event = self._end_line(line)
            if self.overflowed:
                break
            if event is not None:
                events.append(event)
        if rest:
            self._keep(self._line, rest)
        return events

    def _keep(self, where: list[bytes], piece: bytes) -> None:
        self._size += len(piece)
        self.overflowed = self.overflowed or self._size > self._max_bytes
        if not self.overflowed:
            where.append(piece)

    def _end_line(self, last_piece: bytes) -> bytes | None:
        """End a line; a blank one ends the event and gives its data."""
        line = b"".join((*self._line, last_piece))
        self._size -= sum(map(len, self._line))
        self._line = []
        if not self._started:
            self._started = True
            line = line.removeprefix(BOM)
        if line:
            name, _, value = line.partition(b":")
            if name == b"data":
                self._keep(self._data, value.removeprefix(b" "))
            elif name == b"error":
                self._keep(self._data, b'{"error":' + value + b"}")
            return None
        data, self._data = self._data, []
        self._size = 0
        return b"\n".join(data) if data else None


def simple_events(chunk: bytes) -> tuple[list[bytes], bytes]:
    """The events of a read as vLLM writes them, one data line each; and the rest, from the first that is not so."""
    events: list[bytes] = []
    start = 0
    while chunk.startswith(b"data: ", start):
        end = chunk.find(b"\n", start)
        if end < 0 or not chunk.startswith(b"\n", end + 1):
            break
        events.append(chunk[start + 6 : end])
        start = end + 2
    return events, chunk[start:]
