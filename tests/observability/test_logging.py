# SPDX-License-Identifier: Apache-2.0
"""Logs for machines and for people: JSON lines, or text on a terminal, each record on its own line."""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from llm_gateway.generation import Attempt, AttemptOutcome, Usage
from llm_gateway.observability.call import Call
from llm_gateway.observability.logging import configure_logging, log_call
from tests.kit.logs import captured_logs

if TYPE_CHECKING:
    from collections.abc import Iterator

LOG = logging.getLogger("llm_gateway.of_this_test")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    """What a test configures ends with it."""
    with captured_logs():
        yield


def logged(stream: io.StringIO, *, as_json: bool | None = None, level: str = "info") -> io.StringIO:
    configure_logging(level, as_json=as_json, stream=stream)
    return stream


def test_a_record_is_one_json_line_with_its_fields() -> None:
    stream = logged(io.StringIO())
    LOG.warning("hello %s", "you", extra={"answer": 42})

    [line] = stream.getvalue().splitlines()
    record = json.loads(line)
    assert record.pop("timestamp")
    assert record == {
        "message": "hello you", "level": "WARNING", "logger": "llm_gateway.of_this_test", "answer": 42,
        "service": "llm-gateway",
    }  # fmt: skip


def test_on_a_terminal_a_record_is_one_readable_line() -> None:
    stream = logged(Terminal())
    LOG.warning("hello", extra={"answer": 42, "who": "you"})

    [line] = stream.getvalue().splitlines()
    assert line[8:] == " WARNING hello answer=42 who=you"


@pytest.mark.parametrize("kind", [Terminal, io.StringIO], ids=["terminal", "file"])
@pytest.mark.parametrize("as_json", [True, False])
def test_the_form_can_be_chosen(kind: type[io.StringIO], as_json: bool) -> None:
    stream = logged(kind(), as_json=as_json)
    LOG.info("hello")

    assert stream.getvalue().startswith("{") == as_json


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "text"])
@pytest.mark.parametrize("words", ["a\nb", "a\r\nb", "\x1b[31mred", "a\u2028b"])
def test_a_callers_words_neither_begin_a_line_nor_colour_it(words: str, as_json: bool) -> None:
    stream = logged(io.StringIO(), as_json=as_json)
    LOG.info("hello", extra={"user": words, "metadata": {words: words}})

    assert stream.getvalue().count("\n") == 1
    assert "\r" not in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "text"])
def test_a_traceback_is_in_it(as_json: bool) -> None:
    stream = logged(io.StringIO(), as_json=as_json)
    try:
        json.loads("{}")["a bug"]
    except KeyError:
        LOG.exception("it failed", extra={"request_id": "r-1"})

    text = stream.getvalue()
    assert "Traceback" in text
    assert "KeyError" in text
    assert "r-1" in text
    assert len(text.splitlines()) == 1 or not as_json


@pytest.mark.parametrize(("level", "expected"), [("debug", 3), ("info", 2), ("WARNING", 1)])
def test_the_level_decides_what_is_told(level: str, expected: int) -> None:
    stream = logged(io.StringIO(), level=level)
    LOG.debug("one")
    LOG.info("two")
    LOG.warning("three")

    assert len(stream.getvalue().splitlines()) == expected


def test_configured_twice_each_record_is_told_once() -> None:
    first, second = logged(io.StringIO()), logged(io.StringIO())
    LOG.info("hello")

    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1


def test_grpcs_own_tracebacks_are_not_told() -> None:
    """They have an exception's text in them, on its way to the caller; ours was there before."""
    stream = logged(io.StringIO(), level="debug")
    logging.getLogger("grpc._cython.cygrpc").error("Unexpected [ValueError] raised by servicer method")

    assert stream.getvalue() == ""


# ------------------------------------------------------------------------------------------------- the line of a call


def line_of(call: Call) -> dict[str, Any]:
    stream = logged(io.StringIO())
    log_call(call)
    line: dict[str, Any] = json.loads(stream.getvalue())
    return line


def a_call() -> Call:
    return Call("r-1", "ChatCompletion", deadline=0.0, timeout=1.5)


@pytest.mark.parametrize(
    ("status", "level"),
    [("OK", "INFO"), ("CANCELLED", "INFO"), ("INTERNAL", "ERROR"), ("UNAVAILABLE", "WARNING"), (None, "WARNING")],
)
def test_the_status_decides_the_level(status: str | None, level: str) -> None:
    call = a_call()
    call.status = status

    assert line_of(call)["level"] == level


def test_a_call_that_has_been_nowhere_has_nothing_to_tell_of_it() -> None:
    line = line_of(a_call())

    assert (line["request_id"], line["rpc"], line["timeout_ms"]) == ("r-1", "ChatCompletion", 1500)
    assert (line["model"], line["backend"], line["vllm_url"], line["time_to_first_token_ms"]) == (None,) * 4
    assert (line["prompt_tokens"], line["completion_tokens"], line["attempts"]) == (0, 0, 0)
    assert {"user", "session_id", "metadata"}.isdisjoint(line)


def test_a_call_that_was_served_tells_where_and_what_it_cost() -> None:
    call = a_call()
    call.model, call.backend, call.address = "tiny", "vllm", "http://there"
    call.usage = Usage(prompt_tokens=3, completion_tokens=4, estimated=True)
    call.attempts = [Attempt("vllm", AttemptOutcome.SERVED, None, 0.1)]
    call.stopwatch.arrived(call.stopwatch.started + 0.25)
    call.user, call.session_id, call.metadata = "ann", "s-1", {"team": "search"}

    line = line_of(call)

    assert (line["model"], line["backend"], line["vllm_url"]) == ("tiny", "vllm", "http://there")
    assert (line["prompt_tokens"], line["completion_tokens"], line["usage_estimated"]) == (3, 4, True)
    assert (line["attempts"], line["time_to_first_token_ms"]) == (1, 250.0)
    assert (line["user"], line["session_id"], line["metadata"]) == ("ann", "s-1", {"team": "search"})
