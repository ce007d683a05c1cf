# SPDX-License-Identifier: Apache-2.0
"""`llm-gateway chat` with a prompt: one answer, and one exit code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import grpc
import pytest
from typer.testing import CliRunner

from llm_gateway.cli import app
from llm_gateway.simulator import Behaviour, Fault, Options, Simulator
from tests.cli.program import Program, run
from tests.kit.gateway import start_gateway

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.gateway import RunningGateway

STALL = "[[sim fault=stall after=3]]"


async def test_the_answer_is_on_stdout_and_what_it_cost_on_stderr(gateway: RunningGateway) -> None:
    done = await run("chat", "--address", gateway.address, '[[sim text="There you are."]]')

    assert (done.code, done.out) == (0, "There you are.\n")
    assert done.err.startswith("stop · ")


async def test_a_prompt_comes_from_stdin_where_none_is_given(gateway: RunningGateway, simulator: Simulator) -> None:
    done = await run("chat", stdin="What is\nthat?\n", LLM_GATEWAY_ADDR=gateway.address)

    assert done.code == 0
    assert simulator.requests[-1].body["messages"] == [{"role": "user", "content": "What is\nthat?\n"}]


async def test_options_become_fields_of_the_request(gateway: RunningGateway, simulator: Simulator) -> None:
    options = (
        "--max-tokens",
        "9",
        "--temperature",
        "0",
        "--seed",
        "0",
        "--stop",
        "x",
        "--stop",
        "y",
        "--time-limit",
        "9",
    )
    done = await run(
        "chat", "--address", gateway.address, "--system", "Be brief.", *options, "Hi", LLM_DEFAULT_MODEL="sim"
    )

    body = simulator.requests[-1].body
    assert done.code == 0
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert {name: body[name] for name in ("model", "max_completion_tokens", "temperature", "seed", "stop")} == {
        "model": "sim",
        "max_completion_tokens": 9,
        "temperature": 0.0,
        "seed": 0,
        "stop": ["x", "y"],
    }


async def test_what_is_not_given_is_not_sent(gateway: RunningGateway, simulator: Simulator) -> None:
    await run("chat", "--address", gateway.address, "Hi")

    assert set(simulator.requests[-1].body) == {"model", "messages", "stream", "stream_options"}


async def test_a_time_limit_ends_the_answer_well(gateway: RunningGateway) -> None:
    done = await run("chat", "--address", gateway.address, "--time-limit", "0.2", STALL)

    assert done.code == 0
    assert done.err.startswith("time limit · ")


async def test_json_prints_every_event_as_one_line_with_the_names_of_the_proto(gateway: RunningGateway) -> None:
    done = await run("chat", "--address", gateway.address, "--json", "--max-tokens", "2", "Hi")

    events = [json.loads(line) for line in done.out.splitlines()]
    assert (done.code, done.err) == (0, "")
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert "request_id" in events[0]["started"]
    assert events[-1]["completed"]["usage"]["completion_tokens"] == 2


async def test_an_answer_that_breaks_off_is_one_line_and_exit_code_1(gateway: RunningGateway) -> None:
    done = await run("chat", "--address", gateway.address, "[[sim fault=cut after=3]]")

    assert done.code == 1
    assert done.out != ""
    assert done.err.startswith("ABORTED STREAM_INTERRUPTED: ")
    assert "(request " in done.err
    assert done.err.count("\n") == 1


async def test_every_wrong_field_is_named(gateway: RunningGateway, tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    request.write_text('{"params": {"temperature": 3, "top_p": 0}}', encoding="utf-8")

    done = await run("chat", "--address", gateway.address, "--request", str(request), "Hi")

    first, *fields = done.err.splitlines()
    assert done.code == 1
    assert first.startswith("INVALID_ARGUMENT INVALID_REQUEST: ")
    assert fields == [
        "  params.temperature: must be at least 0 and at most 2",
        "  params.top_p: must be above 0 and at most 1",
    ]


async def test_a_deadline_that_passes_is_an_error(gateway: RunningGateway) -> None:
    done = await run("chat", "--address", gateway.address, "--timeout", "0.5", STALL)

    assert done.code == 1
    assert done.err.startswith("DEADLINE_EXCEEDED DEADLINE_EXCEEDED: ")


async def test_nobody_at_the_address_is_one_line_and_exit_code_1() -> None:
    done = await run("chat", "--address", "127.0.0.1:1", "Hi")

    assert done.code == 1
    assert done.err.startswith("UNAVAILABLE: ")
    assert done.err.endswith("(gateway: 127.0.0.1:1)\n")


async def test_something_else_at_the_address_is_one_line_and_exit_code_1() -> None:
    stranger = grpc.aio.server()
    port = stranger.add_insecure_port("127.0.0.1:0")
    await stranger.start()
    try:
        done = await run("chat", "--address", f"127.0.0.1:{port}", "Hi")
    finally:
        await stranger.stop(0)

    assert done.code == 1
    assert done.err.startswith("UNIMPLEMENTED: ")


async def test_ctrl_c_cancels_the_answer_down_to_the_backend(gateway: RunningGateway, simulator: Simulator) -> None:
    async with Program("chat", "--address", gateway.address, STALL) as chat:
        await chat.until(" one night a")
        chat.interrupt()

        assert await chat.exit_code() == 130
        assert chat.output.endswith("\ncancelled\n")
    assert (await simulator.wait_for(lambda now: now.aborted == 1)).running == 0


async def test_ctrl_c_cancels_before_the_first_token_too(gateway: RunningGateway, simulator: Simulator) -> None:
    async with Program("chat", "--address", gateway.address, "[[sim fault=stall]]") as chat:
        await simulator.wait_for(lambda now: now.running == 1, 50)
        chat.interrupt()

        assert await chat.exit_code() == 130
        assert chat.output == "cancelled\n"
    await simulator.wait_for(lambda now: now.aborted == 1)


async def test_a_request_in_a_file_brings_what_has_no_option(tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    tool = {"name": "get_weather", "parameters": '{"type": "object"}'}
    request.write_text(json.dumps({"tools": [tool], "tool_choice": {"function_name": "get_weather"}}), encoding="utf-8")
    async with Simulator(Options(tool_parser=True)) as simulator, start_gateway(simulator.url) as gateway:
        done = await run("chat", "--address", gateway.address, "--request", str(request), "Hi")

    assert done.code == 0
    assert done.out == "→ get_weather({})\n"
    assert done.err.startswith("tool calls · ")


async def test_reasoning_is_kept_apart_from_the_answer() -> None:
    async with Simulator(Options(reasoning_parser=True)) as simulator, start_gateway(simulator.url) as gateway:
        simulator.script(Behaviour(reasoning="Let me see.", text="Yes."))
        done = await run("chat", "--address", gateway.address, "Is it?")

    assert done.out == "Yes.\n"
    assert done.err.startswith("Let me see.\nstop · ")


async def test_an_answer_that_is_lost_before_its_first_token_is_tried_again_and_that_is_said(
    gateway: RunningGateway, simulator: Simulator
) -> None:
    simulator.script(Behaviour(fault=Fault.REFUSE))

    done = await run("chat", "--address", gateway.address, "Hi")

    assert done.code == 0
    assert done.err.endswith(" · 2 attempts\n")


@pytest.mark.parametrize(
    ("content", "arguments"),
    [
        pytest.param(b"{", (), id="no-json"),
        pytest.param(b"\xff", (), id="no-text"),
        pytest.param(b'{"modle": "sim"}', (), id="an-unknown-field"),
        pytest.param(b"{}", ("--seed", "99999999999999999999"), id="a-number-out-of-range"),
        pytest.param(b"{}", ("--timeout", "0"), id="no-time"),
    ],
)
def test_what_makes_no_request_is_exit_code_2(tmp_path: Path, content: bytes, arguments: tuple[str, ...]) -> None:
    request = tmp_path / "request.json"
    request.write_bytes(content)

    done = CliRunner().invoke(app, ["chat", "--address", "127.0.0.1:1", "--request", str(request), *arguments, "Hi"])

    assert done.exit_code == 2
    assert "Invalid value" in done.stderr
