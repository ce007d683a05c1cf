# SPDX-License-Identifier: Apache-2.0
"""The state machine of an answer: what is a piece, what is an end, what is a failure, and what it cost."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.backends.assembly import Assembly
from llm_gateway.errors import (
    BackendGaveUp,
    BackendLost,
    BackendOverloaded,
    BackendProtocolError,
    GatewayError,
    InvalidRequest,
)
from llm_gateway.generation import Finish, FinishReason, Generation, Piece, Usage
from tests.kit.scripted import DONE, chunk, event, usage

LIMIT = 64 * 1024


def assembly_of(**sampling: Any) -> Assembly:
    """An assembly for a request with these parameters."""
    return Assembly(Generation(sampling=sampling), LIMIT)


def run(assembly: Assembly, *reads: bytes) -> list[Piece]:
    """Feed reads until one fails, then end the body; gives all pieces."""
    pieces: list[Piece] = []
    for read in reads:
        pieces += assembly.feed(read)
        if assembly.failure is not None:
            return pieces
    return pieces + assembly.end()


def text_of(pieces: list[Piece], index: int = 0) -> str:
    return "".join(piece.text for piece in pieces if piece.index == index)


def finish_of(pieces: list[Piece], index: int = 0) -> Finish | None:
    finishes = [piece.finish for piece in pieces if piece.index == index and piece.finish is not None]
    assert len(finishes) <= 1
    return finishes[0] if finishes else None


def escaped(delta: dict[str, Any], **choice: Any) -> bytes:
    """A chunk of one choice in ASCII: half a character stays what it is."""
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta} | choice]}).encode() + b"\n\n"


def tool_chunk(*calls: dict[str, Any], finish: str | None = None) -> bytes:
    return chunk(tool_calls=list(calls), finish=finish)


# ------------------------------------------------------------------------------------------------- what is an ending


def test_an_answer_is_whole_when_every_choice_has_ended() -> None:
    assembly = assembly_of(n=2)

    run(assembly, chunk("a"), chunk("b", index=1), chunk(finish="stop"))
    assert not assembly.whole
    assert isinstance(assembly.failure, BackendLost)

    assembly = assembly_of(n=2)
    run(assembly, chunk("a", finish="stop"), chunk("b", index=1, finish="length"))
    assert assembly.whole
    assert assembly.failure is None


@pytest.mark.parametrize("last", [b"", DONE, usage(3, 4) + DONE, b": bye\n\n"], ids=["eof", "done", "usage", "comment"])
def test_no_end_of_the_stream_makes_an_answer_whole_that_has_no_finish_reason(last: bytes) -> None:
    assembly = assembly_of()

    pieces = run(assembly, chunk(role="assistant"), chunk("half an ans"), last)

    assert text_of(pieces) == "half an ans"
    assert type(assembly.failure) is BackendLost


def test_an_abort_is_a_failure_although_it_comes_as_a_finish_reason() -> None:
    assembly = assembly_of()

    pieces = run(assembly, chunk("a"), chunk("b", finish="abort"), DONE)

    assert text_of(pieces) == "ab"
    assert finish_of(pieces) is None
    assert isinstance(assembly.failure, BackendGaveUp)
    assert not assembly.whole


def test_the_finish_reason_error_is_a_failure() -> None:
    assembly = assembly_of()

    run(assembly, chunk("a", finish="error"), DONE)

    assert type(assembly.failure) is BackendLost


def test_one_aborted_choice_fails_the_answer_whatever_became_of_the_others() -> None:
    assembly = assembly_of(n=2)

    run(assembly, chunk("a", finish="stop"), chunk("b", index=1, finish="abort"), DONE)

    assert isinstance(assembly.failure, BackendGaveUp)


def test_nothing_after_done_counts() -> None:
    assembly = assembly_of()

    pieces = run(assembly, chunk("a", finish="stop") + DONE + chunk("b") + event({"error": {"code": 500}}))

    assert text_of(pieces) == "a"
    assert assembly.failure is None
    assert assembly.done


def test_done_may_be_followed_by_blanks() -> None:
    assembly = assembly_of()

    run(assembly, chunk("a", finish="stop"), b"data: [DONE]  \n\n")

    assert assembly.done


def test_a_second_end_of_a_choice_is_passed_over() -> None:
    assembly = assembly_of()

    pieces = run(assembly, chunk("a", finish="stop"), chunk(finish="length"), DONE)

    assert finish_of(pieces) == Finish(FinishReason.STOP)
    assert assembly.failure is None


def test_a_choice_that_goes_on_after_its_end_is_not_of_the_protocol() -> None:
    assembly = assembly_of()

    run(assembly, chunk("a", finish="stop"), chunk("b"))

    assert isinstance(assembly.failure, BackendProtocolError)


# ---------------------------------------------------------------------------------------------------- what is a fault


@pytest.mark.parametrize(
    "bad",
    [b"data: {oops\n\n", b"data: null\n\n", b"data: []\n\n", b'data: "x"\n\n', b"data: 1\n\n", b"data: NaN\n\n",
     b'data: {"choices":{}}\n\n', b'data: {"choices":[{"index":"0"}]}\n\n', b'data: {"choices":[{"delta":7}]}\n\n',
     b'data: {"choices":[{"delta":{"content":7}}]}\n\n', b"data: \xff\n\n", event({"choices": [{"index": 1}]}),
     event({"choices": [{"index": -1}]}), b'data: {"x":"\\ud83d","y":NaN}\n\n',
     b"data: " + b"[" * 5000 + b"\\ud83d\n\n", b'data: {"error":' + b"[" * 5000 + b"]" * 5000 + b"}\n\n",
     b"data: " + b"x" * (LIMIT + 1)],
    ids=["no json", "null", "array", "string", "number", "nan", "choices", "index", "delta", "content", "no utf-8",
         "choice not asked for", "negative choice", "nan beside a half", "deep beside a half", "deep", "huge"],
)  # fmt: skip
def test_what_is_not_the_protocol_is_a_fault_after_the_pieces_before_it(bad: bytes) -> None:
    assembly = assembly_of()

    pieces = run(assembly, chunk("before") + bad + chunk("after"))

    assert text_of(pieces) == "before"
    assert type(assembly.failure) is BackendProtocolError


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"message": "m", "code": 500}, BackendLost),
        ({"message": "", "code": "503"}, BackendOverloaded),
        ({"message": "m", "type": "BadRequestError", "code": 400}, InvalidRequest),
        ("a string", BackendLost),
    ],
    ids=["500", "503 as text", "400", "string"],
)
def test_an_error_event_is_a_fault_of_its_own_kind(error: Any, expected: type[GatewayError]) -> None:
    assembly = assembly_of()

    pieces = run(assembly, chunk("a"), event({"error": error}), DONE)

    assert text_of(pieces) == "a"
    assert type(assembly.failure) is expected


def test_a_null_error_beside_choices_is_none() -> None:
    assembly = assembly_of()
    payload = {"error": None, "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}

    pieces = run(assembly, event(payload), DONE)

    assert text_of(pieces) == "a"
    assert assembly.failure is None


# ---------------------------------------------------------------------------------------------------- what is a piece


@pytest.mark.parametrize(
    "delta",
    [{}, {"content": None}, {"content": ""}, {"role": "assistant"}, {"role": "assistant", "content": ""}],
    ids=["empty", "null", "blank", "role", "role and blank"],
)
def test_what_delivers_nothing_is_no_piece_but_moves_the_idle_timer(delta: dict[str, Any]) -> None:
    assembly = assembly_of()

    assert assembly.feed(event({"choices": [{"index": 0, "delta": delta}]})) == []
    assert assembly.moved


@given(
    st.lists(
        st.sampled_from([b": keep-alive\n\n", b"event: x\n\n", b"\n", usage(1, 2), event({"choices": None})]),
        max_size=5,
    ),
    st.booleans(),
)
def test_only_an_event_with_a_choice_moves_the_idle_timer(noise: list[bytes], has_choice: bool) -> None:
    assembly = assembly_of()

    assembly.feed(b"".join(noise) + (chunk() if has_choice else b""))

    assert assembly.moved == has_choice


def test_a_missing_delta_and_a_missing_index_are_taken_for_empty_and_the_first() -> None:
    assembly = assembly_of()

    pieces = run(assembly, event({"choices": [{"delta": None}]}), event({"choices": [{"finish_reason": "stop"}]}), DONE)

    assert finish_of(pieces) == Finish(FinishReason.STOP)


def test_the_end_may_bring_text_with_it() -> None:
    pieces = run(assembly_of(), chunk("a"), chunk("b", finish="stop"), DONE)

    assert [(piece.text, piece.finish) for piece in pieces] == [("a", None), ("b", Finish(FinishReason.STOP))]


@pytest.mark.parametrize(
    ("delta", "expected"),
    [
        ({"reasoning": "x"}, "x"),
        ({"reasoning_content": "x"}, "x"),
        ({"reasoning": "x", "reasoning_content": "x"}, "x"),
        ({"reasoning": None, "reasoning_content": "x"}, "x"),
    ],
    ids=["new name", "old name", "both", "null"],
)
def test_reasoning_has_one_name_here_whatever_it_has_there(delta: dict[str, Any], expected: str) -> None:
    [piece] = assembly_of().feed(chunk(**delta))

    assert piece.reasoning == expected
    assert piece.text == ""


@given(text=st.text(min_size=1), places=st.lists(st.integers(0, 200), max_size=5))
def test_a_character_whose_halves_come_in_two_events_is_joined(text: str, places: list[int]) -> None:
    units = [text.encode("utf-16-le", "surrogatepass")[i : i + 2] for i in range(0, len(text.encode("utf-16-le")), 2)]
    borders = [0, *sorted(place % (len(units) + 1) for place in places), len(units)]
    parts = [b"".join(units[a:b]).decode("utf-16-le", "surrogatepass") for a, b in itertools.pairwise(borders)]

    pieces = run(assembly_of(), *(escaped({"content": part}) for part in parts), chunk(finish="stop"), DONE)

    assert text_of(pieces) == text


def test_a_half_of_a_character_that_stays_alone_becomes_the_replacement_character() -> None:
    half = b'data: {"choices":[{"delta":{"content":"a\\ud83d"}}]}\n\n'

    assert text_of(run(assembly_of(), half, chunk("b", finish="stop"), DONE)) == "a\ufffdb"
    assert text_of(run(assembly_of(), half, chunk(finish="stop"), DONE)) == "a\ufffd"


def test_a_half_of_a_thought_is_joined_like_one_of_text() -> None:
    first = b'data: {"choices":[{"delta":{"reasoning":"\\ud83e"}}]}\n\n'
    second = b'data: {"choices":[{"delta":{"reasoning":"\\udd99"}}]}\n\n'

    pieces = run(assembly_of(), first, second, chunk(finish="stop"), DONE)

    assert "".join(piece.reasoning for piece in pieces) == "🦙"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"id": "a\ud83d"}, ("a\ufffd", "", "")),
        ({"function": {"name": "a\ud83d"}}, ("", "a\ufffd", "")),
        ({"function": {"arguments": "a\ud83d"}}, ("", "", "a\ufffd")),
        ({"function": {"arguments": {"a\ud83d": 1.5}}}, ("", "", '{"a\ufffd":1.5}')),
        ({"function": {"arguments": ["a\ud83d", 1]}}, ("", "", '["a\ufffd",1]')),
    ],
    ids=["id", "name", "arguments", "key of an object", "value of an object"],
)
def test_half_of_a_character_in_a_call_becomes_the_replacement_character(
    fields: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    pieces = run(assembly_of(), escaped({"tool_calls": [{"index": 0} | fields]}), chunk(finish="stop"), DONE)

    assert call_texts(pieces) == {0: expected}


@pytest.mark.parametrize("at_once", [True, False], ids=["one event", "an event each"])
def test_a_character_of_the_arguments_whose_halves_come_apart_is_joined(at_once: bool) -> None:
    parts: list[dict[str, Any]] = [
        {"index": 0, "id": "i", "function": {"name": "f", "arguments": '{"a":"\ud83e'}},
        {"index": 1, "id": "j", "function": {"name": "g", "arguments": '["\ud83d'}},
        {"index": 0, "function": {"arguments": '\udd99"}'}},
        {"index": 1, "function": {"arguments": '\ude00"]'}},
    ]
    reads = [escaped({"tool_calls": parts})] if at_once else [escaped({"tool_calls": [part]}) for part in parts]

    pieces = run(assembly_of(), *reads, chunk(finish="tool_calls"), DONE)

    assert call_texts(pieces) == {0: ("i", "f", '{"a":"🦙"}'), 1: ("j", "g", '["😀"]')}
    assert finish_of(pieces) == Finish(FinishReason.TOOL_CALLS)


def test_half_of_a_character_that_the_arguments_end_with_is_not_kept_back() -> None:
    half = escaped({"tool_calls": [{"index": 0, "id": "i", "function": {"name": "f", "arguments": "\ud83e"}}]})
    cut = assembly_of()

    assert call_texts(run(assembly_of(), half, chunk(finish="stop"), DONE)) == {0: ("i", "f", "\ufffd")}
    assert call_texts(cut.feed(half) + cut.time_limit()) == {0: ("i", "f", "\ufffd")}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"finish_reason": "bored\ud83d"}, Finish(FinishReason.OTHER, backend_reason="bored\ufffd")),
        ({"finish_reason": "stop", "stop_reason": "a\ud83d"}, Finish(FinishReason.STOP, stop_sequence="a\ufffd")),
        ({"finish_reason": "stop", "matched_stop": "a\ud83d"}, Finish(FinishReason.STOP, stop_sequence="a\ufffd")),
    ],
    ids=["a word for the end", "stop_reason", "matched_stop"],
)
def test_half_of_a_character_in_an_end_becomes_the_replacement_character(
    fields: dict[str, Any], expected: Finish
) -> None:
    assert finish_of(run(assembly_of(), chunk("a"), escaped({}, **fields), DONE)) == expected


def test_an_answer_that_the_time_limit_cuts_keeps_no_half_back() -> None:
    assembly = assembly_of()
    assembly.feed(b'data: {"choices":[{"delta":{"content":"a\\ud83d"}}]}\n\n')

    assert [(piece.text, piece.finish) for piece in assembly.time_limit()] == [
        ("\ufffd", Finish(FinishReason.TIME_LIMIT))
    ]


def test_the_time_limit_ends_only_the_choices_that_have_not_ended() -> None:
    assembly = assembly_of(n=3)
    assembly.feed(chunk("a", index=1, finish="stop"))

    assert [piece.index for piece in assembly.time_limit()] == [0, 2]
    assert assembly.whole


# ------------------------------------------------------------------------------------------------ why a choice ended


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("stop", Finish(FinishReason.STOP)),
        ("eos_token", Finish(FinishReason.STOP)),
        ("stop_sequence", Finish(FinishReason.STOP)),
        ("content_filter", Finish(FinishReason.CONTENT_FILTER)),
        ("repetition", Finish(FinishReason.REPETITION)),
        ("tool_calls", Finish(FinishReason.TOOL_CALLS)),
        ("function_call", Finish(FinishReason.TOOL_CALLS)),
        ("fatigue", Finish(FinishReason.OTHER, backend_reason="fatigue")),
    ],
)
def test_a_backends_word_for_the_end_becomes_ours(word: str, expected: Finish) -> None:
    assert finish_of(run(assembly_of(), chunk("a", finish=word), DONE)) == expected


@pytest.mark.parametrize(
    ("field", "value", "sequence", "token"),
    [
        ("stop_reason", "END", "END", None),
        ("stop_reason", 17, None, 17),
        ("stop_reason", 0, None, 0),
        ("stop_reason", None, None, None),
        ("matched_stop", "END", "END", None),
        ("matched_stop", -1, None, None),
    ],
)
def test_what_stopped_a_choice_is_a_text_or_a_token(
    field: str, value: Any, sequence: str | None, token: int | None
) -> None:
    choice = {"index": 0, "delta": {}, "finish_reason": "stop", field: value}

    finish = finish_of(run(assembly_of(), chunk("a"), event({"choices": [choice]}), DONE))

    assert finish == Finish(FinishReason.STOP, stop_sequence=sequence, stop_token_id=token)


@pytest.mark.parametrize(
    ("sampling", "completion", "expected"),
    [
        ({}, 5, FinishReason.CONTEXT_LENGTH),
        ({"max_tokens": 9}, 5, FinishReason.CONTEXT_LENGTH),
        ({"max_tokens": 5}, 5, FinishReason.LENGTH),
        ({"max_tokens": 5}, None, FinishReason.LENGTH),
        ({"max_tokens": 1}, 5, FinishReason.LENGTH),
    ],
    ids=["no limit asked", "fewer than asked", "as many as asked", "no usage", "more pieces than tokens"],
)
def test_a_cut_is_the_contexts_where_the_limit_was_not_reached(
    sampling: dict[str, int], completion: int | None, expected: FinishReason
) -> None:
    counts = b"" if completion is None else usage(3, completion)

    pieces = run(assembly_of(**sampling), chunk("a"), chunk("b", finish="length"), counts, DONE)

    assert text_of(pieces) == "ab"
    assert finish_of(pieces) == Finish(expected)


def test_the_text_of_a_cut_choice_does_not_wait_for_the_usage() -> None:
    assembly = assembly_of(max_tokens=5)

    assert [piece.text for piece in assembly.feed(chunk("b", finish="length"))] == ["b"]
    assert assembly.whole


@pytest.mark.parametrize(
    ("completion", "expected"), [(10, FinishReason.CONTEXT_LENGTH), (18, FinishReason.LENGTH)], ids=["context", "limit"]
)
def test_of_several_cut_choices_each_has_its_share_of_the_usage(completion: int, expected: FinishReason) -> None:
    reads = [chunk("a", finish="length"), chunk("b", index=1, finish="length"), usage(3, completion), DONE]

    pieces = run(assembly_of(n=2, max_tokens=9), *reads)

    assert [finish_of(pieces, 0), finish_of(pieces, 1)] == [Finish(expected)] * 2


def test_a_cut_beside_a_choice_that_stopped_is_a_plain_cut() -> None:
    reads = [chunk("a", finish="stop"), chunk("b", index=1, finish="length"), usage(3, 4), DONE]

    assert finish_of(run(assembly_of(n=2, max_tokens=9), *reads), 1) == Finish(FinishReason.LENGTH)


# -------------------------------------------------------------------------------------------------- function calls


def call_texts(pieces: list[Piece]) -> dict[int, tuple[str, str, str]]:
    """The function calls that the pieces make up: index → id, name, arguments."""
    calls: dict[int, tuple[str, str, str]] = {}
    for part in (part for piece in pieces for part in piece.tool_calls):
        id_, name, arguments = calls.get(part.index, ("", "", ""))
        calls[part.index] = (id_ + (part.id or ""), name + (part.name or ""), arguments + part.arguments)
    return calls


@pytest.mark.parametrize(
    "parts",
    [
        [{"index": 0, "id": "i", "function": {"name": "f"}}, {"index": 0, "function": {"arguments": '{"a":1}'}}],
        [{"index": 0, "id": "i", "function": {"name": "f", "arguments": '{"a"'}},
         {"index": 0, "function": {"name": None, "arguments": ":1}"}}],
        [{"index": 0, "id": "i", "function": {"name": "f", "arguments": ""}},
         {"index": 0, "id": "i", "function": {"name": "f", "arguments": '{"a":1}'}}],
        [{"id": "i", "function": {"name": "f"}}, {"function": {"arguments": '{"a":1}'}}],
        [{"index": None, "id": "i", "function": {"name": "f"}}, {"id": "i", "function": {"arguments": '{"a":1}'}}],
        [{"index": 0, "id": "i", "function": {"name": "f", "arguments": {"a": 1}}}],
        [{"index": 0, "id": "i", "function": {"name": "f"}}, {"index": 0, "function": None},
         {"index": 0, "function": {"arguments": '{"a":1}'}}],
    ],
    ids=["name first", "null name", "repeated", "no index", "null index, same id", "an object", "no function"],
)  # fmt: skip
@pytest.mark.parametrize("at_once", [True, False], ids=["one event", "an event each"])
def test_a_function_call_is_the_same_however_it_is_cut(parts: list[dict[str, Any]], at_once: bool) -> None:
    reads = [tool_chunk(*parts)] if at_once else [tool_chunk(part) for part in parts]

    pieces = run(assembly_of(), *reads, chunk(finish="tool_calls"), DONE)

    assert call_texts(pieces) == {0: ("i", "f", '{"a":1}')}
    assert finish_of(pieces) == Finish(FinishReason.TOOL_CALLS)


def test_two_calls_without_an_index_are_told_apart_by_their_ids() -> None:
    calls = [{"id": i, "function": {"name": n, "arguments": "{}"}} for i, n in (("1", "f"), ("2", "g"))]

    assert call_texts(run(assembly_of(), tool_chunk(*calls), chunk(finish="stop"), DONE)) == {
        0: ("1", "f", "{}"),
        1: ("2", "g", "{}"),
    }


def test_an_index_may_be_left_out() -> None:
    calls = [{"index": i, "id": str(i), "function": {"name": "f", "arguments": "{}"}} for i in (0, 2)]

    assert set(call_texts(run(assembly_of(), tool_chunk(*calls), chunk(finish="stop"), DONE))) == {0, 2}


def test_a_negative_index_is_not_of_the_protocol() -> None:
    assembly = assembly_of()

    run(assembly, tool_chunk({"index": -1, "id": "i"}))

    assert isinstance(assembly.failure, BackendProtocolError)


@pytest.mark.parametrize(
    ("arguments", "word", "expected"),
    [
        ('{"a":1}', "stop", FinishReason.TOOL_CALLS),
        ('{"a":1}', "tool_calls", FinishReason.TOOL_CALLS),
        ("false", "stop", FinishReason.TOOL_CALLS),
        ('{"a":', "stop", FinishReason.MALFORMED_TOOL_CALL),
        ('{"a":1}}', "tool_calls", FinishReason.MALFORMED_TOOL_CALL),
        ("", "tool_calls", FinishReason.MALFORMED_TOOL_CALL),
        ("[" * 3000, "tool_calls", FinishReason.MALFORMED_TOOL_CALL),
        ('{"a":', "length", FinishReason.CONTEXT_LENGTH),
        ('{"a":', "content_filter", FinishReason.CONTENT_FILTER),
    ],
)
def test_arguments_that_are_no_json_make_a_malformed_call_unless_the_answer_was_cut(
    arguments: str, word: str, expected: FinishReason
) -> None:
    call = {"index": 0, "id": "i", "function": {"name": "f", "arguments": arguments}}

    finish = finish_of(run(assembly_of(), tool_chunk(call), chunk(finish=word), DONE))

    assert finish is not None
    assert finish.reason == expected
    assert (finish.message is not None) == (expected is FinishReason.MALFORMED_TOOL_CALL)


def test_a_malformed_call_is_named_by_its_index() -> None:
    calls = [{"index": i, "id": str(i), "function": {"name": "f", "arguments": a}} for i, a in ((0, "{}"), (1, "{"))]

    finish = finish_of(run(assembly_of(), tool_chunk(*calls), chunk(finish="tool_calls"), DONE))

    assert finish == Finish(FinishReason.MALFORMED_TOOL_CALL, message="The arguments of function call 1 are not JSON.")


# ---------------------------------------------------------------------------------------------------- what it cost


def usage_event(choices: list[Any] | None = None, **counts: Any) -> bytes:
    return event({"choices": [] if choices is None else choices, "usage": counts})


def test_the_backends_usage_is_believed() -> None:
    assembly = assembly_of()
    cached, thought = {"cached_tokens": 2}, {"reasoning_tokens": 1}
    details: dict[str, Any] = {"prompt_tokens_details": cached, "completion_tokens_details": thought}

    run(assembly, chunk("a", finish="stop"), usage_event(prompt_tokens=3, completion_tokens=4, **details), DONE)

    assert assembly.usage(100) == Usage(
        prompt_tokens=3, completion_tokens=4, cached_prompt_tokens=2, reasoning_tokens=1
    )


def test_sglangs_reasoning_tokens_are_found_at_the_top_level() -> None:
    assembly = assembly_of()

    run(
        assembly, chunk("a", finish="stop"), usage_event(prompt_tokens=3, completion_tokens=4, reasoning_tokens=2), DONE
    )

    assert assembly.usage(100).reasoning_tokens == 2


def test_running_usages_are_not_added_and_the_last_wins() -> None:
    assembly = assembly_of()
    running = [
        usage_event([{"delta": {"content": "a"}}], prompt_tokens=3, completion_tokens=1),
        usage_event([{"delta": {"content": "b"}, "finish_reason": "stop"}], prompt_tokens=3, completion_tokens=2),
    ]

    run(assembly, *running, DONE)

    assert assembly.usage(100) == Usage(prompt_tokens=3, completion_tokens=2)


def test_a_running_usage_is_an_estimate_as_long_as_the_answer_is_not_whole() -> None:
    assembly = assembly_of()

    assembly.feed(usage_event([{"delta": {"content": "a"}}], prompt_tokens=3, completion_tokens=1))

    assert assembly.usage(100) == Usage(prompt_tokens=3, completion_tokens=1, estimated=True)


def test_a_running_usage_of_one_of_several_choices_is_an_estimate() -> None:
    assembly = assembly_of(n=2)
    last = [{"index": 1, "delta": {"content": "b"}, "finish_reason": "stop"}]

    run(assembly, chunk("a", finish="stop"), usage_event(last, prompt_tokens=3, completion_tokens=1), DONE)

    assert assembly.usage(100).estimated


def test_without_a_usage_the_pieces_are_counted_and_marked_as_an_estimate() -> None:
    assembly = assembly_of(n=2)

    run(assembly, chunk("a"), chunk("b", index=1), chunk("c", finish="stop"), chunk(index=1, finish="stop"), DONE)

    assert assembly.usage(9) == Usage(prompt_tokens=3, completion_tokens=3, estimated=True)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("Hi", 1), ("a word of 15 c.", 1), ("a word of 16 ch.", 2), ("x" * 672, 84)],
    ids=["short", "long", "two", "many"],
)
def test_several_tokens_in_one_event_are_estimated_by_their_length(text: str, tokens: int) -> None:
    assembly = assembly_of()
    run(assembly, chunk(text))

    assert assembly.usage(4) == Usage(prompt_tokens=1, completion_tokens=tokens, estimated=True)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"prompt_tokens": 3, "completion_tokens": None}, Usage(prompt_tokens=3, completion_tokens=1, estimated=True)),
        ({"completion_tokens": 5}, Usage(prompt_tokens=2, completion_tokens=5, estimated=True)),
    ],
    ids=["no completion", "no prompt"],
)
def test_what_a_usage_does_not_say_is_estimated(counts: dict[str, Any], expected: Usage) -> None:
    assembly = assembly_of()

    run(assembly, chunk("a", finish="stop"), usage_event(**counts), DONE)

    assert assembly.usage(8) == expected


# --------------------------------------------------------------------------------------------- tokens and logprobs


def logprob_event(logprobs: Any, **choice: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": "ab"}, "logprobs": logprobs, **choice}]})


def test_the_logprobs_of_a_chat_keep_tokens_bytes_and_rivals() -> None:
    rivals = [{"token": "a", "logprob": -0.5, "bytes": [97]}, {"token": "\ufffd", "logprob": -9999.0, "bytes": None}]
    token = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": rivals}

    [piece] = assembly_of().feed(logprob_event({"content": [token]}))

    [logprob] = piece.logprobs
    assert (logprob.token, logprob.logprob, logprob.bytes) == ("a", -0.5, b"a")
    assert [(t.token, t.logprob, t.bytes) for t in logprob.top] == [("a", -0.5, b"a"), ("\ufffd", -9999.0, b"")]
    assert piece.token_count == 1


def test_the_logprobs_of_a_completion_are_parallel_lists() -> None:
    lists = {"tokens": ["a", "b"], "token_logprobs": [None, -1.5], "top_logprobs": [None, {"b": -1.5, "c": -2.0}]}

    [piece] = assembly_of().feed(logprob_event(lists))

    assert [(t.token, t.logprob) for t in piece.logprobs] == [("a", -9999.0), ("b", -1.5)]
    assert [(t.token, t.logprob, t.bytes) for t in piece.logprobs[1].top] == [("b", -1.5, b"b"), ("c", -2.0, b"c")]
    assert piece.token_count == 2


def test_half_of_a_character_in_a_scored_token_becomes_the_replacement_character() -> None:
    logprobs = {"tokens": ["\ud83d"], "token_logprobs": [-0.5], "top_logprobs": [{"\ud83d": -0.5}]}

    [piece] = assembly_of().feed(escaped({"content": "a"}, logprobs=logprobs))

    [token] = piece.logprobs
    assert [(t.token, t.bytes) for t in (token, *token.top)] == [("\ufffd", b"\xef\xbf\xbd")] * 2


@pytest.mark.parametrize(
    "logprobs",
    [{"tokens": ["a"], "token_logprobs": []}, {"content": [{"token": "a", "logprob": 0, "bytes": [256]}]},
     {"content": [{"token": "a", "logprob": 0, "bytes": [-1]}]}],
    ids=["lists of two lengths", "a byte above 255", "a byte below 0"],
)  # fmt: skip
def test_logprobs_that_make_no_sense_are_not_of_the_protocol(logprobs: Any) -> None:
    assembly = assembly_of()

    run(assembly, logprob_event(logprobs))

    assert isinstance(assembly.failure, BackendProtocolError)


def test_a_piece_with_nothing_but_logprobs_is_one() -> None:
    token = {"token": "a", "logprob": -0.5, "bytes": [97]}
    payload = {"choices": [{"index": 0, "delta": {}, "logprobs": {"content": [token]}}]}

    [piece] = assembly_of().feed(event(payload))

    assert piece.has_content


def test_token_ids_count_the_tokens_of_a_piece_exactly() -> None:
    [piece] = assembly_of().feed(event({"choices": [{"delta": {"content": "abc"}, "token_ids": [5, 6, 7]}]}))

    assert (piece.token_ids, piece.token_count) == ((5, 6, 7), 3)


def test_without_ids_and_logprobs_nobody_claims_to_know_the_tokens_of_a_piece() -> None:
    [piece] = assembly_of().feed(chunk("abc"))

    assert piece.token_count is None


# -------------------------------------------------------------------------------------------------- whole answers


def test_an_answer_in_one_body_has_the_same_pieces() -> None:
    calls = [{"id": str(i), "function": {"name": "f", "arguments": "{}"}} for i in range(2)]
    body = {
        "model": "m",
        "choices": [
            {"index": 0, "message": {"content": "a"}, "finish_reason": "stop"},
            {"index": 1, "message": {"content": None, "tool_calls": calls}, "finish_reason": "tool_calls"},
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
    }
    assembly = assembly_of(n=2)

    pieces = assembly.feed_whole(json.dumps(body).encode()) + assembly.end()

    assert text_of(pieces) == "a"
    assert finish_of(pieces, 0) == Finish(FinishReason.STOP)
    assert call_texts(pieces) == {0: ("0", "f", "{}"), 1: ("1", "f", "{}")}
    assert assembly.usage(9) == Usage(prompt_tokens=3, completion_tokens=4)
    assert (assembly.model, assembly.done, assembly.failure) == ("m", True, None)


def test_the_model_is_the_one_that_the_backend_names_first() -> None:
    assembly = assembly_of()

    run(assembly, event({"model": "m1", "choices": []}), event({"model": "m2", "choices": []}))

    assert assembly.model == "m1"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("m" * 20_000, "m" * 256), ("🦙" * 20_000, "🦙" * 64), ("ü" * 129, "ü" * 128), ("m\ud83d", "m\ufffd")],
    ids=["long", "long and wide", "a byte too long", "half a character"],
)
def test_of_a_model_no_more_is_believed_than_a_request_may_name(name: str, expected: str) -> None:
    assembly = assembly_of()

    assembly.feed(b"data: " + json.dumps({"model": name, "choices": []}).encode() + b"\n\n")

    assert assembly.model == expected
