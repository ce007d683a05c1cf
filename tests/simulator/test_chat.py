# SPDX-License-Identifier: Apache-2.0
"""What `/v1/chat/completions` says and how it ends: beyond what the recordings show."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from llm_gateway.simulator import Behaviour, Options, Simulator
from llm_gateway.simulator.story import SENTENCES
from tests.simulator import asking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_USAGE = {"include_usage": True}


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(Options(tool_parser=True)) as started:
        yield started


async def test_the_newer_version_adds_its_keys_to_a_stream() -> None:
    async with Simulator(Options()) as simulator:
        lines = await asking.lines(simulator, asking.chat(max_tokens=2))

    created = json.loads(lines[0])
    head = f'{{"id":"{created["id"]}","object":"chat.completion.chunk","created":{created["created"]},"model":"sim",'
    opened = head + '"choices":[{"index":0,"delta":'
    expected = [
        opened + '{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],'
        '"prompt_token_ids":null,"prompt_text":null}',
        opened
        + '{"content":" one"},"logprobs":null,"finish_reason":null,"token_ids":null}],"kv_transfer_params":null}',
        opened + '{"content":" night"},"logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":null,'
        '"weight_versions":null}],"system_fingerprint":"vllm-0.33.0-51a0517e","kv_transfer_params":null}',
        "[DONE]",
    ]
    assert expected == lines


async def test_every_event_is_an_http_chunk_of_its_own(simulator: Simulator) -> None:
    raw = await asking.raw(simulator, asking.chat(max_tokens=3, stream=True))

    body = raw.partition(b"\r\n\r\n")[2]
    sizes = []
    while body:
        size, _, body = body.partition(b"\r\n")
        chunk, body = body[: int(size, 16)], body[int(size, 16) + 2 :]
        sizes.append((chunk.count(b"data: "), chunk.endswith(b"\n\n")))
    assert sizes == [(1, True)] * 5 + [(0, False)]


async def test_a_reply_that_ends_by_itself_has_the_default_length(simulator: Simulator) -> None:
    answer = await asking.answer(simulator, asking.chat())

    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == 60


async def test_a_stream_says_what_the_whole_answer_says(simulator: Simulator) -> None:
    whole = await asking.answer(simulator, asking.chat(seed=4))

    streamed = await asking.events(simulator, asking.chat(seed=4, stream_options=_USAGE))

    text = "".join(delta.get("content", "") for delta in asking.deltas(streamed))
    assert whole["choices"][0]["message"]["content"] == text
    assert whole["usage"]["total_tokens"] == streamed[-1]["usage"]["total_tokens"]


async def test_the_same_seed_tells_the_same_story_and_another_seed_another(simulator: Simulator) -> None:
    texts = [
        (await asking.answer(simulator, asking.chat(seed=seed)))["choices"][0]["message"]["content"]
        for seed in (1, 1, 2)
    ]

    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


async def test_a_story_goes_on_up_to_the_context(simulator: Simulator) -> None:
    answer = await asking.answer(simulator, asking.chat(ignore_eos=True, max_tokens=2040))

    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == 2048


async def test_a_story_that_is_told_again_begins_again() -> None:
    async with Simulator(Options(max_model_len=1000)) as simulator:
        answer = await asking.answer(simulator, asking.chat(ignore_eos=True))

    assert answer["choices"][0]["message"]["content"].count(SENTENCES[0]) == 5


@pytest.mark.parametrize("min_tokens", [5, 80])
async def test_no_reply_is_shorter_than_min_tokens(simulator: Simulator, min_tokens: int) -> None:
    answer = await asking.answer(simulator, asking.chat(min_tokens=min_tokens, stop=[" night"]))

    assert answer["usage"]["completion_tokens"] > min_tokens


async def test_a_stop_string_is_cut_off_though_it_spans_tokens(simulator: Simulator) -> None:
    simulator.script(Behaviour(text=" one small star"))

    answer = await asking.answer(simulator, asking.chat(stop=["all st"]))

    assert answer["choices"][0]["message"]["content"] == " one sm"
    assert answer["choices"][0]["stop_reason"] == "all st"


async def test_text_that_may_become_a_stop_string_is_held_back() -> None:
    async with Simulator(Options()) as simulator:
        simulator.script(Behaviour(text=" one small star"))
        streamed = await asking.events(simulator, asking.chat(stop=["xyz1"]))

    assert [delta["content"] for delta in asking.deltas(streamed)] == ["", " ", "one sm", "all s", "tar"]


async def test_a_stop_string_can_be_included(simulator: Simulator) -> None:
    body = asking.chat(stop=[" small"], include_stop_str_in_output=True)

    answer = await asking.answer(simulator, body)

    assert answer["choices"][0]["message"]["content"] == " one night a small"


async def test_a_stop_token_is_named_but_not_shown(simulator: Simulator) -> None:
    _, raw = await asking.post(simulator, "/tokenize", {"prompt": " small"})
    [small] = json.loads(raw)["tokens"]

    choice = (await asking.answer(simulator, asking.chat(stop_token_ids=[small])))["choices"][0]

    assert (" one night a", "stop", small) == (
        choice["message"]["content"],
        choice["finish_reason"],
        choice["stop_reason"],
    )


async def test_several_choices_open_together_and_differ(simulator: Simulator) -> None:
    streamed = await asking.events(simulator, asking.chat(n=2, max_tokens=3, stream_options=_USAGE))

    assert [choice["index"] for choice in asking.choices(streamed)] == [0, 1] * 4
    assert asking.deltas(streamed)[2] != asking.deltas(streamed)[3]
    assert streamed[-1]["usage"]["completion_tokens"] == 6


async def test_usage_on_the_way_counts_up(simulator: Simulator) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}

    streamed = await asking.events(simulator, asking.chat(max_tokens=3, stream_options=options))

    assert [event["usage"]["completion_tokens"] for event in streamed] == [0, 1, 2, 3, 3]


async def test_a_character_of_several_tokens_is_sent_when_it_is_whole() -> None:
    async with Simulator(Options()) as simulator:
        simulator.script(Behaviour(text="é👋"))
        streamed = await asking.events(simulator, asking.chat())

    assert [delta["content"] for delta in asking.deltas(streamed)] == ["", "", "é", "", "", "", "👋", ""]


async def test_separators_that_are_no_line_ends_in_sse_are_sent_raw(simulator: Simulator) -> None:
    simulator.script(Behaviour(text="a\u2028b\u2029c\u0085d"))

    raw = await asking.raw(simulator, asking.chat(stream=True))

    assert all(sign.encode() in raw for sign in "\u2028\u2029\u0085")


async def test_logprobs_name_each_token_with_its_alternatives(simulator: Simulator) -> None:
    answer = await asking.answer(simulator, asking.chat(max_tokens=2, logprobs=True, top_logprobs=3))

    content = answer["choices"][0]["logprobs"]["content"]
    assert [entry["token"] for entry in content] == [" one", " night"]
    assert [len(entry["top_logprobs"]) for entry in content] == [3, 3]
    assert list(b" one") == content[0]["bytes"]


async def test_tokens_can_be_named_by_their_ids(simulator: Simulator) -> None:
    body = asking.chat(max_tokens=1, logprobs=True, return_tokens_as_token_ids=True, return_token_ids=True)

    choice = (await asking.answer(simulator, body))["choices"][0]

    assert f"token_id:{choice['token_ids'][0]}" == choice["logprobs"]["content"][0]["token"]


async def test_a_scripted_call_is_streamed_name_first_and_then_its_arguments(simulator: Simulator) -> None:
    simulator.script(Behaviour(tool_calls=(("get_weather", '{"unit": "c"}'), ("get_time", "{}"))))

    streamed = await asking.events(simulator, asking.chat(tools=[asking.TOOL]))

    calls = [call for delta in asking.deltas(streamed) for call in delta.get("tool_calls", ())]
    names = [call["function"]["name"] for call in calls if "name" in call["function"]]
    arguments = ["".join(c["function"].get("arguments", "") for c in calls if c["index"] == i) for i in (0, 1)]
    assert names == ["get_weather", "get_time"]
    assert arguments == ['{"unit": "c"}', "{}"]
    assert asking.choices(streamed)[-1]["finish_reason"] == "tool_calls"


async def test_auto_makes_no_call_unless_told_to(simulator: Simulator) -> None:
    message = (await asking.answer(simulator, asking.chat(tools=[asking.TOOL])))["choices"][0]["message"]

    assert message["content"]
    assert "tool_calls" not in message


@pytest.mark.parametrize(
    ("choice", "finish_reason"),
    [("required", "tool_calls"), ({"type": "function", "function": {"name": "get_weather"}}, "stop")],
)
async def test_a_demanded_call_follows_the_schema(simulator: Simulator, choice: object, finish_reason: str) -> None:
    answer = await asking.answer(simulator, asking.chat(tools=[asking.TOOL], tool_choice=choice))

    [call] = answer["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"unit": "c"}
    assert finish_reason == answer["choices"][0]["finish_reason"]


async def test_a_call_that_is_cut_ends_with_length(simulator: Simulator) -> None:
    simulator.script(Behaviour(tool_calls=(("get_weather", '{"unit": "celsius"}'),)))

    streamed = await asking.events(simulator, asking.chat(tools=[asking.TOOL], max_tokens=35))

    assert asking.choices(streamed)[-1]["finish_reason"] == "length"


async def test_reasoning_comes_before_the_text_and_is_counted() -> None:
    async with Simulator(Options(reasoning_parser=True)) as simulator:
        simulator.script(Behaviour(reasoning=" so wait.", text=" yes"))
        streamed = await asking.events(simulator, asking.chat(stream_options=_USAGE))

    said = [delta for delta in asking.deltas(streamed) if "role" not in delta]
    assert said == [{"reasoning": " so"}, {"reasoning": " wait"}, {"reasoning": "."}, {"content": " yes"}, {}]
    assert streamed[-1]["usage"]["completion_tokens_details"]["reasoning_tokens"] == 3


async def test_reasoning_can_be_hidden() -> None:
    async with Simulator(Options(reasoning_parser=True)) as simulator:
        answer = await asking.answer(simulator, asking.chat(include_reasoning=False))

    assert answer["choices"][0]["message"]["reasoning"] is None


async def test_a_finish_reason_can_be_invented(simulator: Simulator) -> None:
    simulator.script(Behaviour(tokens=3, finish_reason="content_filter"))

    assert (await asking.answer(simulator, asking.chat()))["choices"][0]["finish_reason"] == "content_filter"


@pytest.mark.parametrize("given", [{"X-Request-Id": "mine"}, None])
async def test_a_request_id_becomes_part_of_the_id(simulator: Simulator, given: dict[str, str] | None) -> None:
    _, raw = await asking.post(simulator, asking.CHAT, asking.chat(request_id="theirs"), given)

    assert ("chatcmpl-mine" if given else "chatcmpl-theirs") == json.loads(raw)["id"]


async def test_an_alias_is_answered_with_the_first_name() -> None:
    async with Simulator(Options(models=("big", "small"))) as simulator:
        answer = await asking.answer(simulator, asking.chat(model="small"))

    assert answer["model"] == "big"
