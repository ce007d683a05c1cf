# SPDX-License-Identifier: Apache-2.0
"""How an answer looks: its text, its further choices, and the line that says what it cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import json_format

from llm_gateway.cli.answer import Answer, Page, summary
from llm_gateway.v1 import llm_service_pb2, message_pb2, outcome_pb2

if TYPE_CHECKING:
    Event = llm_service_pb2.ChatCompletionStreamResponse

COST: dict[str, Any] = {"usage": {"prompt_tokens": 3, "completion_tokens": 5}, "timing": {"total": "2s"}}


def event(**fields: Any) -> Event:
    """One event, as JSON has it."""
    return json_format.ParseDict(fields, llm_service_pb2.ChatCompletionStreamResponse())


def printed(capsys: pytest.CaptureFixture[str], *deltas: dict[str, Any]) -> tuple[str, str]:
    """Stdout and stderr of an answer that completes."""
    page = Page()
    for delta in deltas:
        page.show(event(delta=delta))
    page.show(event(completed=COST))
    page.end()
    out, err = capsys.readouterr()
    return out, err


def test_a_second_choice_comes_after_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = printed(
        capsys,
        {"text": "Yes", "finish_reason": "FINISH_REASON_STOP"},
        {"index": 1, "text": "N"},
        {"index": 1, "text": "o", "finish_reason": "FINISH_REASON_LENGTH"},
    )

    assert out == "Yes\nNo\n"
    assert err == "choice 1:\nstop, length · 3 + 5 tokens · 2.00 s\n"


def test_calls_are_told_apart_from_text_and_from_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = printed(
        capsys,
        {"text": "Well:"},
        {"tool_calls": [{"index": 0, "id": "a", "name": "get", "arguments": '{"x"'}]},
        {"tool_calls": [{"index": 0, "arguments": ": 1}"}, {"index": 1, "id": "b", "name": "put", "arguments": "{}"}]},
        {"finish_reason": "FINISH_REASON_TOOL_CALLS"},
    )

    assert out == 'Well:\n→ get({"x": 1})\n→ put({})\n'


def test_an_answer_that_ends_its_line_itself_gets_no_other_end(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = printed(capsys, {"text": "Yes.\n", "finish_reason": "FINISH_REASON_STOP"})

    assert out == "Yes.\n"


def test_an_event_that_is_not_known_is_ignored(capsys: pytest.CaptureFixture[str]) -> None:
    page = Page()
    page.show(event(sequence=1))
    page.end()

    assert capsys.readouterr() == ("", "")


def test_text_for_a_pipe_is_not_touched(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = printed(capsys, {"text": "a\x1b[31m[bold]b"})

    assert out == "a\x1b[31m[bold]b\n"


@pytest.mark.parametrize(
    ("delta", "expected"),
    [
        ({"finish_reason": "FINISH_REASON_CONTEXT_LENGTH"}, "context length"),
        ({"finish_reason": "FINISH_REASON_STOP", "stop_sequence": "\n"}, r"stop at '\n'"),
        ({"finish_reason": "FINISH_REASON_OTHER", "finish_message": "It was eager."}, "other: It was eager."),
    ],
)
def test_an_end_is_put_in_words(capsys: pytest.CaptureFixture[str], delta: dict[str, Any], expected: str) -> None:
    _, err = printed(capsys, delta)

    assert err.partition(" · ")[0] == expected


@pytest.mark.parametrize(
    ("completed", "expected"),
    [
        pytest.param(COST, "stop · 3 + 5 tokens · 2.00 s", id="the-least-that-is-known"),
        pytest.param(
            {
                "usage": {**COST["usage"], "cached_prompt_tokens": 2, "reasoning_tokens": 1, "estimated": True},
                "timing": {"total": "2s", "time_to_first_token": "0.5s"},
                "attempts": [{}, {}],
            },
            "stop · 3 + 5 tokens (2 cached, 1 of reasoning, estimated) · first token 500 ms · 2.7 tokens/s · 2.00 s"
            " · 2 attempts",
            id="all",
        ),
        pytest.param(
            {
                "usage": {"prompt_tokens": 3, "completion_tokens": 1},
                "timing": {"total": "2s", "time_to_first_token": "1s"},
            },
            "stop · 3 + 1 tokens · first token 1000 ms · 2.00 s",
            id="one-token-has-no-pace",
        ),
    ],
)
def test_what_it_cost_is_one_line(completed: dict[str, Any], expected: str) -> None:
    assert summary(json_format.ParseDict(completed, outcome_pb2.Completed()), ["stop"]) == expected


def test_of_several_choices_the_first_one_is_remembered() -> None:
    answer = Answer(message_pb2.Message())
    for delta in ({"text": "Ye"}, {"index": 1, "text": "No"}, {"text": "s", "reasoning": "Hm"}):
        answer.take(event(delta=delta))

    assert (answer.message.content, answer.message.reasoning) == ("Yes", "Hm")


def test_calls_are_remembered_by_their_index_however_large_it_is() -> None:
    """It is the backend's word: no room is made for those below it."""
    last = 2**31 - 1
    answer = Answer(message_pb2.Message())
    for piece in ({"index": last, "id": "a", "name": "get", "arguments": "{"}, {"index": 1, "id": "b", "name": "put"}):
        answer.take(event(delta={"tool_calls": [piece]}))
    answer.take(event(delta={"tool_calls": [{"index": last, "arguments": "}"}]}))

    calls = [(call.id, call.name, call.arguments) for call in answer.message.tool_calls]
    assert calls == [("a", "get", "{}"), ("b", "put", "")]
