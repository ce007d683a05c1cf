# SPDX-License-Identifier: Apache-2.0
"""Function calls of a real vLLM with a parser of tool calls."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from llm_gateway.v1 import message_pb2
from tests.vllm.asking import calling, stream_of

if TYPE_CHECKING:
    from tests.kit.calls import Outcome
    from tests.kit.gateway import RunningGateway

pytestmark = pytest.mark.vllm

REQUIRED = message_pb2.ToolChoice(mode=message_pb2.ToolChoice.MODE_REQUIRED)
NAMED = message_pb2.ToolChoice(function_name="get_weather")
NONE = message_pb2.ToolChoice(mode=message_pb2.ToolChoice.MODE_NONE)
AUTO = message_pb2.ToolChoice(mode=message_pb2.ToolChoice.MODE_AUTO)
each_forced_choice = pytest.mark.parametrize("choice", [REQUIRED, NAMED], ids=["required", "named"])


def _arguments(outcome: Outcome) -> str:
    return "".join(call.arguments for delta in outcome.deltas for call in delta.tool_calls)


@each_forced_choice
async def test_a_call_is_streamed_in_pieces(
    gateway: RunningGateway, tools: list[message_pb2.Tool], choice: message_pb2.ToolChoice
) -> None:
    outcome = await stream_of(gateway, calling(tools, choice, max_tokens=200, seed=1))

    calls = [call for delta in outcome.deltas for call in delta.tool_calls]
    arguments = json.loads(_arguments(outcome))
    assert outcome.finish() == "TOOL_CALLS"
    assert [call.name for call in calls if call.HasField("name")] == ["get_weather"]
    assert [call.id != "" for call in calls if call.HasField("id")] == [True]
    assert arguments["unit"] in {"c", "f"}
    assert 1 <= arguments["days"] <= 9


@each_forced_choice
async def test_a_whole_answer_has_the_whole_call(
    gateway: RunningGateway, tools: list[message_pb2.Tool], choice: message_pb2.ToolChoice
) -> None:
    answer = await gateway.stub.ChatCompletion(calling(tools, choice, max_tokens=200, seed=1))

    (call,) = answer.choices[0].message.tool_calls
    assert call.name == "get_weather"
    assert json.loads(call.arguments).keys() == {"unit", "days"}


async def test_a_call_that_is_cut_is_not_malformed(gateway: RunningGateway, tools: list[message_pb2.Tool]) -> None:
    outcome = await stream_of(gateway, calling(tools, REQUIRED, max_tokens=30, seed=1))

    assert outcome.finish() == "LENGTH"


@pytest.mark.parametrize("choice", [NONE, AUTO], ids=["none", "auto"])
async def test_a_model_that_calls_nothing_speaks(
    gateway: RunningGateway, tools: list[message_pb2.Tool], choice: message_pb2.ToolChoice
) -> None:
    outcome = await stream_of(gateway, calling(tools, choice, max_tokens=8, ignore_eos=True, seed=2))

    assert outcome.finish() == "LENGTH"
    assert outcome.text() != ""


async def test_the_result_of_a_call_is_a_turn(gateway: RunningGateway, tools: list[message_pb2.Tool]) -> None:
    request = calling(tools, AUTO, max_tokens=5, ignore_eos=True)
    call = message_pb2.ToolCall(id="c1", name="get_weather", arguments='{"unit": "c", "days": 1}')
    request.messages.append(message_pb2.Message(role=message_pb2.ROLE_ASSISTANT, tool_calls=[call]))
    request.messages.append(message_pb2.Message(role=message_pb2.ROLE_TOOL, tool_call_id="c1", content="warm"))

    outcome = await stream_of(gateway, request)

    assert outcome.finish() == "LENGTH"
