# SPDX-License-Identifier: Apache-2.0
"""`llm-gateway chat` at a terminal: it remembers, and Ctrl-C ends what is running and no more."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from llm_gateway.simulator import Behaviour, Options, Simulator
from tests.cli.program import Program
from tests.kit.gateway import start_gateway

if TYPE_CHECKING:
    from tests.kit.gateway import RunningGateway

PROMPT = "> "
CTRL_D = "\x04"


def conversation(gateway: RunningGateway) -> Program:
    return Program("chat", terminal=True, env={"LLM_GATEWAY_ADDR": gateway.address})


async def interrupted(chat: Program) -> None:
    """Press Ctrl-C at the prompt, again if readline was just about to wait: Python heeds it with the next key then."""
    for _ in range(10):
        chat.interrupt()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3):
                await chat.until("\n")
                return


def messages(simulator: Simulator) -> list[tuple[str, Any]]:
    """What the last request said: who, and what."""
    return [(message["role"], message.get("content")) for message in simulator.requests[-1].body["messages"]]


async def test_it_remembers_what_was_said(gateway: RunningGateway, simulator: Simulator) -> None:
    simulator.script(Behaviour(text="First."), Behaviour(text="Second."))
    async with conversation(gateway) as chat:
        await chat.until(PROMPT)
        chat.type("one\n")
        await chat.until("First.")
        await chat.until(PROMPT)
        chat.type("two\n")
        await chat.until("Second.")
        await chat.until(PROMPT)
        chat.type(CTRL_D)

        assert await chat.exit_code() == 0
    assert messages(simulator) == [("user", "one"), ("assistant", "First."), ("user", "two")]


async def test_ctrl_c_cancels_the_answer_and_not_the_program(gateway: RunningGateway, simulator: Simulator) -> None:
    async with conversation(gateway) as chat:
        await chat.until(PROMPT)
        chat.type("[[sim fault=stall after=3]]\n")
        await chat.until(" one night a")
        chat.interrupt()
        await chat.until("cancelled")
        await chat.until(PROMPT)
        await simulator.wait_for(lambda now: now.aborted == 1)
        simulator.script(Behaviour(text="Here."))
        chat.type("still there?\n")
        await chat.until("Here.")
        await chat.until(PROMPT)
        chat.type(CTRL_D)

        assert await chat.exit_code() == 0
    assert messages(simulator) == [("user", "still there?")]


async def test_ctrl_c_at_the_prompt_leaves(gateway: RunningGateway) -> None:
    async with conversation(gateway) as chat:
        await chat.until(PROMPT)
        await interrupted(chat)

        assert await chat.exit_code() == 0
        assert "Traceback" not in chat.output


async def test_a_turn_that_failed_is_forgotten(gateway: RunningGateway, simulator: Simulator) -> None:
    async with conversation(gateway) as chat:
        await chat.until(PROMPT)
        chat.type("[[sim fault=cut after=3]]\n")
        await chat.until("ABORTED STREAM_INTERRUPTED")
        await chat.until(PROMPT)
        chat.type("again\n")
        await chat.until("stop · ")
        await chat.until(PROMPT)
        chat.type(CTRL_D)

        assert await chat.exit_code() == 0
    assert messages(simulator) == [("user", "again")]


async def test_an_empty_answer_is_an_answer(gateway: RunningGateway, simulator: Simulator) -> None:
    simulator.script(Behaviour(text=""))
    async with conversation(gateway) as chat:
        await chat.until(PROMPT)
        chat.type("one\n")
        await chat.until("stop · ")
        await chat.until(PROMPT)
        chat.type("two\n")
        await chat.until("stop · ")
        await chat.until(PROMPT)
        chat.type(CTRL_D)
        await chat.exit_code()

    assert messages(simulator) == [("user", "one"), ("assistant", ""), ("user", "two")]


async def test_an_empty_line_is_no_question(gateway: RunningGateway, simulator: Simulator) -> None:
    async with conversation(gateway) as chat:
        await chat.until(PROMPT)
        chat.type("\n")
        await chat.until(PROMPT)
        chat.type(CTRL_D)

        assert await chat.exit_code() == 0
    assert simulator.requests == []


async def test_the_result_of_a_function_that_the_model_called_is_asked_for() -> None:
    async with Simulator(Options(tool_parser=True)) as simulator, start_gateway(simulator.url) as gateway:
        simulator.script(Behaviour(tool_calls=(("get_weather", '{"city": "Oslo"}'),)), Behaviour(text="Cold."))
        async with conversation(gateway) as chat:
            await chat.until(PROMPT)
            chat.type("How is it in Oslo?\n")
            await chat.until('→ get_weather({"city": "Oslo"})')
            await chat.until("get_weather = ")
            chat.type("-20\n")
            await chat.until("Cold.")
            await chat.until(PROMPT)
            chat.type(CTRL_D)
            await chat.exit_code()
        _, assistant, tool = simulator.requests[-1].body["messages"]

    assert tool == {"role": "tool", "content": "-20", "tool_call_id": assistant["tool_calls"][0]["id"]}
    assert assistant["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": '{"city": "Oslo"}'}


async def test_control_characters_of_a_model_do_not_reach_the_terminal(
    gateway: RunningGateway, simulator: Simulator
) -> None:
    simulator.script(Behaviour(text="Watch\x1b]0;taken\x07 out."))
    async with conversation(gateway) as chat:
        await chat.until(PROMPT)
        chat.type("Hi\n")
        await chat.until("Watch]0;taken out.")
        await chat.until(PROMPT)
        chat.type(CTRL_D)

        assert await chat.exit_code() == 0
        assert "\x1b]0" not in chat.output


async def test_json_wants_a_prompt_for_a_conversation_is_for_people(gateway: RunningGateway) -> None:
    async with Program("chat", "--json", terminal=True, env={"LLM_GATEWAY_ADDR": gateway.address}) as chat:
        await chat.until("needs a PROMPT")

        assert await chat.exit_code() == 2
