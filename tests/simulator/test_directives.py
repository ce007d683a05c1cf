# SPDX-License-Identifier: Apache-2.0
"""A behaviour can be asked for in a prompt, or over HTTP, and what cannot be read is refused clearly."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from llm_gateway.simulator import Behaviour, Fault, Simulator
from llm_gateway.simulator.directives import behaviour_of, find_directive
from llm_gateway.simulator.errors import ApiError
from tests.simulator import asking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as started:
        yield started


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no directive", None),
        ("[[simmer]]", None),
        ("[[sim]]", Behaviour()),
        ("please [[sim fault=cut after=3 tokens=20]] now", Behaviour(fault=Fault.CUT, after=3, tokens=20)),
        ("[[sim pace_ms=5 ttft_ms=100]]", Behaviour(pace=0.005, time_to_first_token=0.1)),
        ("[[sim fault=stall seconds=2]]", Behaviour(fault=Fault.STALL, seconds=2.0)),
        ('[[sim text="it is ]] \\"so\\"" tokens=3]]', Behaviour(text='it is ]] "so"', tokens=3)),
        ("[[sim\nstatus=503\nfault=http\n]]", Behaviour(status=503, fault=Fault.HTTP)),
        ("[[sim role_first=true reasoning=hm]]", Behaviour(role_first=True, reasoning="hm")),
        ("[[sim body=oops]]", Behaviour(body=b"oops")),
    ],
)
def test_a_directive_is_read(text: str, expected: Behaviour | None) -> None:
    assert expected == find_directive(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[sim fault=fire]]", "fault=fire should be one of refuse, "),
        ("[[sim after=-1]]", "after=-1 should be a number, 0 or more"),
        ("[[sim pace_ms=fast]]", "pace_ms=fast should be a number"),
        ("[[sim speed=9]]", "unknown speed; known are after, "),
        ("[[sim cut]]", "'cut' is not of the form name=value"),
        ("[[sim text='open]]", "No closing quotation"),
        ("[[sim headers=x]]", "headers can only be given through POST /simulator/script"),
    ],
)
def test_a_bad_directive_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ApiError) as refused:
        find_directive(text)

    assert complaint in refused.value.message


def test_json_can_say_what_a_directive_cannot() -> None:
    behaviour = behaviour_of({"headers": {"Retry-After": 1}, "tool_calls": [["f", "{}"]], "text": None})

    assert Behaviour(headers={"Retry-After": "1"}, tool_calls=(("f", "{}"),)) == behaviour


async def test_the_last_user_message_decides(simulator: Simulator) -> None:
    messages = [
        {"role": "user", "content": "[[sim tokens=9]]"},
        {"role": "user", "content": [{"type": "text", "text": "[[sim tokens=4]]"}]},
        {"role": "assistant", "content": "[[sim tokens=7]]"},
    ]

    answer = await asking.answer(simulator, {"messages": messages})

    assert answer["usage"]["completion_tokens"] == 4


async def test_a_raw_prompt_can_have_a_directive(simulator: Simulator) -> None:
    answer = await asking.answer(simulator, {"prompt": '[[sim text=" yes"]]'}, asking.TEXT)

    assert answer["choices"][0]["text"] == " yes"


async def test_a_bad_directive_is_a_clear_400(simulator: Simulator) -> None:
    status, body = await asking.post(simulator, asking.CHAT, asking.chat("[[sim fault=fire]]", stream=True))

    assert status == 400
    assert json.loads(body)["error"]["message"].startswith("Bad simulator directive: fault=fire")


async def test_a_script_beats_a_directive(simulator: Simulator) -> None:
    simulator.script(Behaviour(tokens=3))

    answer = await asking.answer(simulator, asking.chat("[[sim tokens=9]]"))

    assert answer["usage"]["completion_tokens"] == 3


async def test_of_what_a_script_leaves_open_a_directive_still_holds(simulator: Simulator) -> None:
    simulator.script(Behaviour(finish_reason="content_filter"))

    answer = await asking.answer(simulator, asking.chat("[[sim text=yes finish_reason=abort]]"))

    choice = answer["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("yes", "content_filter")


async def test_a_script_can_be_posted(simulator: Simulator) -> None:
    script = [{"tokens": 3}, {"fault": "http", "status": 418, "body": "short and stout"}]
    queued = await asking.post(simulator, "/simulator/script", script)

    first = await asking.answer(simulator, asking.chat())
    second = await asking.post(simulator, asking.CHAT, asking.chat())

    assert queued == (200, b'{"queued":2}')
    assert first["usage"]["completion_tokens"] == 3
    assert second == (418, b"short and stout")


@pytest.mark.parametrize("script", [{"tokens": 3}, [3], [{"speed": 9}], [{"fault": 1}]])
async def test_a_bad_script_is_refused(simulator: Simulator, script: object) -> None:
    status, _ = await asking.post(simulator, "/simulator/script", script)

    assert status == 400
