# SPDX-License-Identifier: Apache-2.0
"""What the simulated servers of other dialects do that vLLM does not, as docs/dialects.md and its sources have it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_gateway.backends.dialect import OPENAI
from llm_gateway.backends.refusal import refusal_of
from llm_gateway.backends.request import generation_request
from llm_gateway.simulator import Behaviour, Fault, Options, Simulator
from llm_gateway.simulator.dialects import DIALECTS, OpenAIManner
from tests.backends.request_rows import CHAT
from tests.backends.test_dialects import chat as generation_of
from tests.simulator.asking import CHAT as PATH
from tests.simulator.asking import TOOL, chat, get, lines, post

STREAM = {"stream_options": {"include_usage": True}}


async def events(dialect: str, *behaviours: Behaviour, tool_parser: bool = False, **fields: Any) -> list[Any]:
    """The events of one stream, decoded; [DONE] as it is."""
    async with Simulator(Options(dialect=dialect, tool_parser=tool_parser, reasoning_parser=True)) as simulator:
        simulator.script(*behaviours)
        told = await lines(simulator, chat(**(STREAM | fields)))
    return [line if line == "[DONE]" else json.loads(line) for line in told if line]


def deltas(told: list[Any]) -> list[dict[str, Any]]:
    return [event["choices"][0]["delta"] for event in told if event != "[DONE]" and event.get("choices")]


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"top_k": 3}, "top_k", "unknown_parameter"),
        ({"session_id": "s"}, "session_id", "unknown_parameter"),
        ({"max_tokens": 3}, "max_tokens", "unsupported_parameter"),
        (
            {"stream_options": {"continuous_usage_stats": True}},
            "stream_options.continuous_usage_stats",
            "unknown_parameter",
        ),
    ],
)
async def test_openai_refuses_what_it_does_not_know(fields: dict[str, Any], param: str, code: str) -> None:
    async with Simulator(Options(dialect="openai")) as simulator:
        status, body = await post(simulator, PATH, chat(**fields))

    error = json.loads(body)["error"]
    assert status == 400
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)


@pytest.mark.parametrize("row", [pytest.param(row, id=f"{number}-{row[0]}") for number, row in enumerate(CHAT)])
def test_openai_knows_whatever_the_gateway_sends_it(row: Any) -> None:
    if row[0] == "backend_extensions":  # the operator's own risk
        return
    generation = generation_of(row[1])
    if refusal_of(generation, OPENAI) is None:
        OpenAIManner().read(json.loads(generation_request(generation, "m", OPENAI, None)[1]), chat=True)


async def test_openai_has_an_empty_usage_and_padding_in_every_event() -> None:
    *told, done = await events("openai", max_completion_tokens=4)

    assert done == "[DONE]"
    assert all("obfuscation" in event for event in told)
    assert [event["usage"] is None for event in told] == [True] * (len(told) - 1) + [False]


async def test_openai_ends_in_an_event_of_its_own_and_pads_nothing_where_that_is_declined() -> None:
    options = {"include_usage": True, "include_obfuscation": False}
    *told, _, done = await events("openai", max_completion_tokens=4, stream_options=options)

    assert done == "[DONE]"
    assert told[-1]["choices"][0] | {"index": 0} == {
        "index": 0,
        "delta": {},
        "logprobs": None,
        "finish_reason": "length",
    }
    assert not any("obfuscation" in event for event in told)


async def test_sglang_ends_all_choices_after_all_content() -> None:
    told = await events("sglang", max_completion_tokens=3, n=2)

    reasons = [event["choices"][0]["finish_reason"] for event in told[:-1] if event["choices"]]
    assert reasons == [None] * (len(reasons) - 2) + ["length"] * 2


async def test_sglang_says_what_stopped_it_under_its_own_name() -> None:
    told = await events("sglang", Behaviour(text="one two three"), stop=[" two"])

    last = [event for event in told[:-1] if event["choices"]][-1]["choices"][0]
    assert last["matched_stop"] == " two"
    assert "stop_reason" not in last


@pytest.mark.parametrize("dialect", ["sglang", "llamacpp"])
async def test_thoughts_are_reasoning_content(dialect: str) -> None:
    told = await events(dialect, Behaviour(reasoning="Hm.", text="Yes."))

    assert "".join(delta.get("reasoning_content") or "" for delta in deltas(told)) == "Hm."
    assert not any("reasoning" in delta for delta in deltas(told))


async def test_sglangs_errors_are_without_an_envelope() -> None:
    async with Simulator(Options(dialect="sglang")) as simulator:
        status, body = await post(simulator, PATH, chat(n=None))

    assert status == 400
    assert json.loads(body)["object"] == "error"


async def test_llamacpp_ends_after_an_error_without_a_word() -> None:
    told = await events("llamacpp", Behaviour(fault=Fault.ERROR_EVENT, after=2))

    assert told[-1]["error"]["type"] == "server_error"


async def test_llamacpp_says_that_it_loads() -> None:
    async with Simulator(Options(dialect="llamacpp")) as simulator:
        simulator.loading = True
        answers = [await get(simulator, "/health"), await post(simulator, PATH, chat())]

    assert [status for status, _ in answers] == [503, 503]
    assert {json.loads(body)["error"]["type"] for _, body in answers} == {"unavailable_error"}


async def test_ollama_says_the_role_every_time_and_calls_whole() -> None:
    told = await events(
        "ollama", Behaviour(tool_calls=(("get_weather", '{"unit": "c"}'),)), tool_parser=True, tools=[TOOL]
    )

    assert {delta["role"] for delta in deltas(told)} == {"assistant"}
    calls = [delta["tool_calls"] for delta in deltas(told) if "tool_calls" in delta]
    assert [[call["function"] for call in whole] for whole in calls] == [
        [{"name": "get_weather", "arguments": '{"unit": "c"}'}]
    ]


async def test_ollama_ignores_what_it_does_not_know() -> None:
    told = await events("ollama", max_completion_tokens=2)

    assert [event["choices"][0]["finish_reason"] for event in told[:-2]][-1] == "stop"


async def test_a_failure_of_ollama_is_a_stream_that_just_ends() -> None:
    told = await events("ollama", Behaviour(fault=Fault.ERROR_EVENT, after=2))

    assert told
    assert told[-1] != "[DONE]"
    assert "error" not in told[-1]


@pytest.mark.parametrize("dialect", [name for name in DIALECTS if name != "vllm"])
async def test_what_a_server_does_not_have_is_not_there(dialect: str) -> None:
    async with Simulator(Options(dialect=dialect)) as simulator:
        status, _ = await get(simulator, "/version")

    assert status == 404
