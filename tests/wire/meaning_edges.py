# SPDX-License-Identifier: Apache-2.0
"""Edge cases of the JSON in an answer and of what it means."""

from __future__ import annotations

from tests.kit.scripted import DONE, chunk, event, usage
from tests.wire.edges import (
    END,
    HELLO,
    LOST,
    NOT_THE_PROTOCOL,
    STOP,
    Fault,
    Row,
    Whole,
    calling,
    choice,
    completion,
    corrupted,
    fails,
    interrupted,
    raw_chunk,
    says,
    streamed,
    whole,
)

CORRUPTED, INTERRUPTED = corrupted("Hel"), interrupted("Hel")
OVERLOADED = Fault("UNAVAILABLE", "BACKEND_OVERLOADED")
INVALID = Fault("INVALID_ARGUMENT", "INVALID_REQUEST")
ROLE = choice(delta={"role": "assistant", "content": ""})
HELLO_DELTA = {"content": "Hello"}
SAID = chunk("Hel")
HIGH, LOW = '"\\ud83e"', '"\\udd9c"'
LOGPROB = {"token": "Hello", "logprob": -0.5, "bytes": [72], "top_logprobs": []}
MANY = [{"index": 0, "id": "c1", "function": {"name": "f", "arguments": '{"a": "'}}]


def error(**fields: object) -> bytes:
    """An error in the place of a chunk."""
    return event({"error": {"message": "no", "type": "InternalServerError", "param": None} | fields})


def content(json_string: str) -> bytes:
    """A chunk whose content is this piece of JSON."""
    return b'data: {"choices": [{"index": 0, "delta": {"content": ' + json_string.encode() + b"}}]}\n\n"


def stopped(**fields: object) -> bytes:
    """The end of a choice."""
    return choice(delta={}, finish_reason="stop", **fields)


def scored(**fields: object) -> bytes:
    """A chunk with a token's log-probability."""
    return choice(delta=HELLO_DELTA, logprobs={"content": [LOGPROB | fields]})


def call(
    index: int | None = 0, id_: str | None = None, name: str | None = None, arguments: object = None
) -> dict[str, object]:
    """A piece of a function call."""
    return {"index": index, "id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def calls(*expected: tuple[str, str, str], finish: str = "TOOL_CALLS") -> Whole:
    """An answer that calls."""
    return Whole(("",), (finish,), {"calls": list(expected)})


ONE = [call(0, "c1", "f", '{"a": '), call(0, None, None, "1}")]
ONE_CALL = calls(("c1", "f", '{"a": 1}'))

ROWS = {
    # --- errors in the place of an answer
    "the first event is an error of the request": fails(INVALID, error(type="BadRequestError", code=400), DONE),
    "an error after the role": fails(INVALID, ROLE, error(type="BadRequestError", code=400), DONE),
    "an error in the middle": fails(INTERRUPTED, SAID, error(code=500), DONE),
    "an error of the request in the middle": fails(
        INTERRUPTED, SAID, error(type="BadRequestError", code=400), DONE),
    "an error whose code is a string": fails(INVALID, error(code="400"), DONE),
    "an error whose code is a word": fails(INVALID, error(type="invalid_request_error", code="bad_value"), DONE),
    "an error without a code": fails(OVERLOADED, error(type="Service Unavailable"), DONE),
    "an error with neither type nor code": fails(LOST, event({"error": {"message": ""}}), DONE),
    "an error that is a string": fails(LOST, event({"error": "Unauthorized"}), DONE),
    "an error at the top level, as SGLang's": fails(INVALID, event({"object": "error", "message": "no", "code": 400})),
    "an error that is null, beside choices": whole(raw_chunk(error=None, choices=[
        {"index": 0, "delta": HELLO_DELTA}]), *END),
    # --- JSON that is none
    "an event that is no JSON, nothing said": fails(NOT_THE_PROTOCOL, b"data: {\n\n", *END),
    "an event that is no JSON, something said": fails(CORRUPTED, SAID, b"data: {\n\n", *END),
    "an event that is null": fails(CORRUPTED, SAID, b"data: null\n\n", *END),
    "an event that is a list": fails(CORRUPTED, SAID, b"data: []\n\n", *END),
    "an event that is not UTF-8": fails(CORRUPTED, SAID, content('"\xff"').replace(b"\xc3\xbf", b"\xff")),
    "JSON that is nested 5,000 deep": fails(
        CORRUPTED, SAID, b'data: {"choices": [], "error": ' + b"[" * 5000 + b"]" * 5000 + b"}\n\n", *END),
    "NaN": fails(CORRUPTED, SAID, b'data: {"choices": [], "usage": {"prompt_tokens": NaN}}\n\n', *END),
    "choices of the wrong type": fails(CORRUPTED, SAID, event({"choices": 7}), *END),
    "content of the wrong type": fails(CORRUPTED, SAID, choice(delta={"content": 7}), *END),
    # --- roles and empty deltas
    "a chunk with a role alone": whole(ROLE, *HELLO),
    "a role in every chunk": whole(chunk("Hel", role="assistant"), chunk("lo", role="assistant"), *END),
    "empty deltas of every kind": whole(
        choice(delta={}), choice(delta=None), choice(), choice(delta={"content": None}), choice(delta={"content": ""}),
        *HELLO),
    "the index is left out": whole(raw_chunk(choices=[{"delta": HELLO_DELTA}]), *END),
    "the index is null": whole(choice(index=None, delta=HELLO_DELTA), *END),
    # --- ends
    "the end brings text": whole(chunk("Hel"), chunk("lo", finish="stop"), usage(3, 2), DONE),
    "a choice ends twice": whole(chunk("Hello"), STOP, *END),
    "a choice goes on after its end": fails(CORRUPTED, SAID, STOP, chunk("lo"), *END),
    "a choice that was not asked for": fails(CORRUPTED, SAID, chunk("x", index=1), *END),
    "a choice below the first": fails(CORRUPTED, SAID, chunk("x", index=-1), *END),
    # --- usage
    "a usage without choices": whole(*HELLO, usage=(3, 2)),
    "a usage whose choices are left out": whole(chunk("Hello"), STOP, raw_chunk(
        usage={"prompt_tokens": 3, "completion_tokens": 2}), DONE, usage=(3, 2)),
    "a usage whose choices are null": whole(chunk("Hello"), STOP, raw_chunk(
        choices=None, usage={"prompt_tokens": 3, "completion_tokens": 2}), DONE, usage=(3, 2)),
    "a usage before the end is an estimate": whole(chunk("Hello"), usage(3, 2), STOP, DONE, usage=None),
    "a usage with the end": whole(raw_chunk(
        choices=[{"index": 0, "delta": {"content": "Hello"}, "finish_reason": "stop"}],
        usage={"prompt_tokens": 3, "completion_tokens": 2}), DONE, usage=(3, 2)),
    "running usages are not added": whole(*[raw_chunk(
        choices=[{"index": 0, "delta": {"content": text}}], usage={"prompt_tokens": 3, "completion_tokens": n})
        for n, text in enumerate(["Hel", "lo"], start=1)], *END, usage=(3, 2)),
    "a usage that is null": whole(raw_chunk(choices=[{"index": 0, "delta": HELLO_DELTA}], usage=None), *END),
    "no usage, although asked for": whole(chunk("Hello"), STOP, DONE, usage=None),
    "a usage without the completion's tokens": whole(chunk("Hello"), STOP, raw_chunk(
        choices=[], usage={"prompt_tokens": 3, "completion_tokens": None}), DONE, usage=None),
    # --- several choices
    "three choices, interleaved": Row(streamed(
        chunk("a", index=2), chunk("b"), chunk("c", index=1), chunk("d", index=2), chunk(finish="stop", index=1),
        chunk(finish="length"), chunk(finish="stop", index=2), usage(3, 6), DONE,
    ), Whole(("b", "c", "ad"), ("CONTEXT_LENGTH", "STOP", "STOP")), {"n": 3, "temperature": 1.0}),
    "one of three choices is aborted": Row(streamed(
        chunk("b"), chunk("c", index=1), STOP, chunk(finish="stop", index=1), chunk(finish="abort", index=2), DONE,
    ), Fault("ABORTED", "BACKEND_ABORTED", "b"), {"n": 3, "temperature": 1.0}),
    "one of two choices does not end": Row(streamed(
        chunk("b"), STOP, chunk("c", index=1), usage(3, 4), DONE,
    ), interrupted("b"), {"n": 2, "temperature": 1.0}),
    # --- nothing said
    "nothing said, stopped": says("", ROLE, chunk("", finish="stop"), usage(3, 0), DONE, usage=(3, 0)),
    "nothing said, cut by the context": says(
        "", ROLE, chunk("", finish="length"), usage(3, 0), DONE, finish="CONTEXT_LENGTH"),
    "nothing said, aborted": fails(LOST, ROLE, chunk("", finish="abort"), DONE),
    "aborted with the last text": fails(
        Fault("ABORTED", "BACKEND_ABORTED", "Hello"), chunk("Hel"), chunk("lo", finish="abort"), DONE),
    "the engine failed": fails(INTERRUPTED, SAID, chunk("", finish="error"), DONE),
    # --- reasoning
    "thoughts alone, then cut": Row(streamed(
        chunk(reasoning="Hm"), chunk(finish="length"), usage(3, 8), DONE,
    ), Whole(("",), ("LENGTH",), {"reasoning": "Hm"}), {"max_tokens": 8}),
    "thoughts under the older name": whole(chunk(reasoning_content="Hm"), *HELLO, reasoning="Hm"),
    "thoughts under both names": whole(chunk(reasoning="Hm", reasoning_content="Hm"), *HELLO, reasoning="Hm"),
    "thoughts after the text": whole(*HELLO[:2], chunk(reasoning="Hm"), *END, reasoning="Hm"),
    # --- function calls
    "a call in pieces": Row(streamed(*map(calling, ONE), calling(finish="tool_calls"), DONE), ONE_CALL),
    "a call of a named function ends with stop": Row(streamed(*map(calling, ONE), STOP, DONE), ONE_CALL),
    "both pieces of a call in one delta": Row(streamed(calling(*ONE), STOP, DONE), ONE_CALL),
    "two calls in one delta": Row(streamed(
        calling(call(0, "c1", "f", "{}"), call(1, "c2", "g", "[]")), STOP, DONE,
    ), calls(("c1", "f", "{}"), ("c2", "g", "[]"))),
    "calls whose indexes have a gap": Row(streamed(
        calling(call(0, "c1", "f", "{}"), call(2, "c2", "g", "[]")), STOP, DONE,
    ), calls(("c1", "f", "{}"), ("c2", "g", "[]"))),
    "calls without indexes": Row(streamed(
        calling(call(None, "c1", "f", "{")), calling(call(None, None, None, "}")), calling(call(None, "c2", "g", "[]")),
        STOP, DONE,
    ), calls(("c1", "f", "{}"), ("c2", "g", "[]"))),
    "the id and the name in every piece": Row(streamed(
        calling(call(0, "c1", "f", "{")), calling(call(0, "c1", "f", "}")), STOP, DONE), calls(("c1", "f", "{}"))),
    "arguments that are empty first": Row(streamed(
        calling(call(0, "c1", "f", "")), calling(call(0, None, None, "{}")), STOP, DONE), calls(("c1", "f", "{}"))),
    "arguments that are an object": Row(streamed(
        calling(call(0, "c1", "f", {"a": 1})), STOP, DONE), calls(("c1", "f", '{"a":1}'))),
    "arguments in a thousand pieces": Row(streamed(
        calling(*MANY), *[calling(call(0, arguments="x"))] * 1000, calling(call(0, arguments='"}')), STOP, DONE,
    ), calls(("c1", "f", '{"a": "' + "x" * 1000 + '"}'))),
    "arguments that are no JSON": Row(streamed(
        calling(call(0, "c1", "f", "{a")), STOP, DONE), calls(("c1", "f", "{a"), finish="MALFORMED_TOOL_CALL")),
    "arguments that are deeper than anybody reads": Row(streamed(
        calling(call(0, "c1", "f", "[" * 3000)), STOP, DONE,
    ), calls(("c1", "f", "[" * 3000), finish="MALFORMED_TOOL_CALL")),
    "the halves of a character come apart in the arguments": Row(streamed(
        calling(call(0, "c1", "f", '{"a":"\ud83e')), calling(call(0, None, None, '\udd9c"}')), STOP, DONE,
    ), calls(("c1", "f", '{"a":"🦜"}'))),
    "half of a character in all that a call has": Row(streamed(
        calling(call(0, "c\ud83e", "f\ud83e", {"a": "\ud83e"})), STOP, DONE,
    ), calls(("c\ufffd", "f\ufffd", '{"a":"\ufffd"}'))),
    "arguments that are cut": Row(streamed(
        calling(call(0, "c1", "f", "{")), chunk(finish="length"), usage(3, 9), DONE,
    ), calls(("c1", "f", "{"), finish="LENGTH"), {"max_tokens": 9}),
    # --- words for the end
    "repetition": says("Hello", chunk("Hello"), chunk(finish="repetition"), DONE, finish="REPETITION"),
    "eos_token, as TGI's": says("Hello", chunk("Hello"), chunk(finish="eos_token"), DONE, finish="STOP"),
    "content_filter": says("Hello", chunk("Hello"), chunk(finish="content_filter"), DONE, finish="CONTENT_FILTER"),
    "a word that nobody knows": says(
        "Hello", chunk("Hello"), chunk(finish="bored"), DONE, finish="OTHER", backend_finish_reason="bored"),
    "stopped by a text": whole(chunk("Hello"), stopped(stop_reason=" the"), DONE, stop_sequence=" the"),
    "stopped by a token": whole(chunk("Hello"), stopped(stop_reason=42), DONE, stop_token_id=42),
    "stopped by a token, as SGLang says it": whole(chunk("Hello"), stopped(matched_stop=42), DONE, stop_token_id=42),
    "half of a character in a word that nobody knows": says(
        "Hello", chunk("Hello"), choice(delta={}, finish_reason="bored\ud83e"), DONE, finish="OTHER",
        backend_finish_reason="bored\ufffd"),
    "half of a character in what stopped it": whole(
        chunk("Hello"), stopped(stop_reason="\ud83e"), DONE, stop_sequence="\ufffd"),
    "stopped by nothing in particular": whole(
        chunk("Hello"), stopped(stop_reason=None), DONE, stop_sequence="", stop_token_id=0),
    # --- characters
    "the halves of a character come apart": says("🦜", content(HIGH), content(LOW), *END),
    "half of a character stays alone": says("\ufffdHello", content(HIGH), chunk("Hello"), *END),
    "half of a character is the last": says("Hello\ufffd", chunk("Hello"), content(HIGH), *END),
    "NUL in the text": says("a\0b", content('"a\\u0000b"'), *END),
    # --- logprobs and numbers
    "an impossible token": whole(scored(logprob=-9999.0), *END, logprobs=[-9999.0]),
    "a token without bytes": whole(scored(bytes=None), *END, logprobs=[-0.5]),
    "log-probabilities alone": whole(
        choice(delta={"content": ""}, logprobs={"content": [LOGPROB]}), *HELLO, logprobs=[-0.5]),
    "a token's byte that is none": fails(CORRUPTED, SAID, scored(bytes=[256]), *END),
    "a token id beyond 32 bits": fails(CORRUPTED, SAID, choice(delta={"content": "x"}, token_ids=[2**32]), *END),
    "a token id below 0": fails(CORRUPTED, SAID, choice(delta={"content": "x"}, token_ids=[-1]), *END),
    "a usage beyond 32 bits: it counts as none": whole(chunk("Hello"), STOP, raw_chunk(
        choices=[], usage={"prompt_tokens": 2**40, "completion_tokens": 2}), DONE, usage=None),
    "a usage below 0: it counts as none": whole(chunk("Hello"), STOP, raw_chunk(
        choices=[], usage={"prompt_tokens": -1, "completion_tokens": 2}), DONE, usage=None),
    "a stop token beyond 32 bits": fails(CORRUPTED, SAID, stopped(stop_reason=2**32), DONE),
    "a call's index beyond 32 bits": fails(CORRUPTED, SAID, calling(call(2**32, "c1", "f", "{}")), STOP, DONE),
    "`created` has 64 bits": whole(raw_chunk(created=2**62, choices=[{"index": 0, "delta": HELLO_DELTA}]), *END),
    # --- names and strangers
    "the id and the model change on the way": whole(chunk("Hel"), raw_chunk(
        id="other", model="other", choices=[{"index": 0, "delta": {"content": "lo"}}]), *END, model="tiny"),
    "the model is another than the one asked for": whole(raw_chunk(
        model="served", choices=[{"index": 0, "delta": HELLO_DELTA}]), *END, model="served"),
    "the model has half of a character": whole(raw_chunk(
        model="m\ud83e", choices=[{"index": 0, "delta": HELLO_DELTA}]), *END, model="m\ufffd"),
    "the model has a name of 20 kB": whole(raw_chunk(
        model="m" * 20_000, choices=[{"index": 0, "delta": HELLO_DELTA}]), *END, model="m" * 256),
    "the model has a name of 20 kB, and the answer breaks off": fails(INTERRUPTED, raw_chunk(
        model="🦜" * 5_000, choices=[{"index": 0, "delta": {"content": "Hel"}}])),
    "keys that nobody knows": whole(raw_chunk(obfuscation="x9", timings={"a": 1}, kv_transfer_params=None, choices=[
        {"index": 0, "delta": {"content": "Hello", "refusal": None}, "weight_versions": [1]}]), *END),
    "a whole answer that is cut by max_tokens": Row(completion(choices=[
        {"index": 0, "message": HELLO_DELTA, "finish_reason": "length"}]),
        Whole(finishes=("LENGTH",)), {"max_tokens": 2}),
    "a whole answer that was aborted": Row(completion(choices=[
        {"index": 0, "message": HELLO_DELTA, "finish_reason": "abort"}]),
        Fault("ABORTED", "BACKEND_ABORTED", "Hello")),
    "a whole answer that calls": Row(completion(choices=[
        {"index": 0, "finish_reason": "tool_calls", "message": {"tool_calls": [call(None, "c1", "f", "{}")]}}]),
        calls(("c1", "f", "{}"))),
}  # fmt: skip
