# SPDX-License-Identifier: Apache-2.0
"""`llm-gateway status` and `llm-gateway cancel`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration

from llm_gateway import __version__
from llm_gateway.cli.screen import show
from llm_gateway.cli.status import OFF, REJECTED, page, span
from llm_gateway.simulator import Behaviour, Fault
from llm_gateway.v1.admin_service_pb2 import GatewayStatus
from tests.cli.program import Program, run
from tests.kit.calls import read_stream
from tests.kit.operating import operate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llm_gateway.simulator import Simulator
    from tests.kit.gateway import RunningGateway
    from tests.kit.operating import Operated


@pytest.fixture
async def operated(simulator: Simulator) -> AsyncIterator[Operated]:
    """A gateway whose backend stands still after three tokens."""
    simulator.script(*[Behaviour(fault=Fault.STALL, after=3)] * 3)
    async with operate(simulator.url) as operated:
        yield operated


def shown(capsys: pytest.CaptureFixture[str], **fields: Any) -> list[str]:
    """The lines of a status, which is given as JSON has it."""
    show(page(json_format.ParseDict(fields, GatewayStatus())))
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


async def test_a_status_is_a_line_and_two_tables(operated: Operated, simulator: Simulator) -> None:
    call = operated.call("r-7")
    await operated.when(lambda now: now.calls and now.calls[0].completion_tokens)
    done = await run("status", "--address", operated.address)
    call.cancel()

    lines = done.out.splitlines()
    assert (done.code, done.err) == (0, "")
    assert lines[0].startswith(f"llm-gateway {__version__} · serving · up ")
    assert lines[0].endswith(" · 1 of 1024 seats taken · 0 queued (0 bytes)")
    assert lines[3].split()[:4] == ["any", "1", "0", "vllm"]
    assert simulator.url in lines[3]
    assert lines[6].split()[:5] == ["r-7", "ChatCompletionStream", "sim", "vllm", "streaming"]


async def test_the_address_comes_from_the_environment_and_json_has_all_of_it(operated: Operated) -> None:
    done = await run("status", "--json", LLM_GATEWAY_ADMIN_ADDR=operated.address)

    status = json.loads(done.out)
    assert done.code == 0
    assert status["seats"] == {"limit": 1024, "in_flight": 0, "queued": 0, "queued_bytes": 0}
    assert json_format.ParseDict(status, GatewayStatus()).models[0].backends[0].name == "vllm"


async def test_a_watch_goes_on_until_the_gateway_ends(operated: Operated) -> None:
    async with Program("status", "--watch", "--interval", "0.1", "--address", operated.address) as watching:
        await watching.until("serving")
        await watching.until("serving")
        await operated.gateway.server.drain()
        await watching.until("draining")

        assert await watching.exit_code() == 0
        assert watching.output.endswith("the gateway has ended\n")


@pytest.mark.parametrize("terminal", ["dumb", "xterm"])
async def test_ctrl_c_ends_a_watch_at_a_terminal_without_a_complaint(operated: Operated, terminal: str) -> None:
    command = ("status", "--watch", "--address", operated.address)
    async with Program(*command, terminal=True, env={"TERM": terminal}) as watching:
        await watching.until("no calls")
        watching.interrupt()

        assert await watching.exit_code() == 130
        assert "Traceback" not in watching.output


async def test_a_watch_can_be_lines_of_json(operated: Operated) -> None:
    async with Program("status", "--watch", "--json", "--interval", "0.1", "--address", operated.address) as watching:
        first, second = await watching.until("\n"), await watching.until("\n")
        watching.interrupt()
        await watching.exit_code()

    assert json.loads(first)["phase"] == json.loads(second)["phase"] == "PHASE_SERVING"


@pytest.mark.parametrize("command", [("status",), ("status", "--watch"), ("cancel", "r-1")], ids=" ".join)
async def test_where_nobody_serves_it_that_is_said_and_exit_code_1(
    gateway: RunningGateway, command: tuple[str, ...]
) -> None:
    done = await run(*command, "--address", gateway.address)

    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines() == [f"UNIMPLEMENTED: Method not found! (gateway: {gateway.address})", OFF]


async def test_a_call_is_ended(operated: Operated) -> None:
    call = operated.call("r-7")
    await operated.when(lambda now: now.calls and now.calls[0].completion_tokens == 3)
    done = await run("cancel", "r-7", "--address", operated.address)
    outcome = await read_stream(call)

    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("ended: ChatCompletionStream of sim, after ")
    assert done.out.endswith(" and 3 tokens\n")
    assert outcome.failure is not None
    assert outcome.failure.reason == "CANCELLED_BY_OPERATOR"


async def test_all_calls_of_one_id_are_ended_and_counted(operated: Operated) -> None:
    calls = [operated.call("r-7"), operated.call("r-7")]
    await operated.when(lambda now: len(now.calls) == 2)
    done = await run("cancel", "r-7", "--json", "--address", operated.address)
    for call in calls:
        await read_stream(call)

    assert (done.code, json.loads(done.out)["ended"]) == (0, 2)


async def test_a_call_that_is_not_there_is_exit_code_1(operated: Operated) -> None:
    done = await run("cancel", "nobody", "--address", operated.address)

    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("NOT_FOUND CALL_NOT_FOUND: No call with this request id runs or waits.")


def test_a_backend_that_is_ejected_says_for_how_long(capsys: pytest.CaptureFixture[str]) -> None:
    backends = [
        {"name": "a", "address": "http://a", "weight": 1, "health": "HEALTH_EJECTED", "ejected_for": "4.24s",
         "consecutive_failures": 5, "ejections": 2},
        {"name": "b", "address": "http://b", "tier": 1, "weight": 3, "health": "HEALTH_HEALTHY", "in_flight": 7,
         "reported_running": 8, "reported_waiting": 1, "reported_kv_usage": 0.404},
        {"name": "c", "address": "http://c", "tier": 2, "health": "HEALTH_LOADING",
         "reported_running": 0, "reported_waiting": 0},
    ]  # fmt: skip
    lines = shown(capsys, models=[{"name": "m", "seats": {"limit": 9, "in_flight": 7}, "backends": backends}])

    assert lines[3:6] == [
        "m 7 of 9 0 a http://a 0 1 ejected for 4.2 s 0 5 2",
        "b http://b 1 3 healthy 7 0 0 8 run, 1 wait, 40% KV",
        "c http://c 2 0 loading 0 0 0 0 run, 0 wait",
    ]


def test_a_model_whose_names_have_no_address_is_there_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, models=[{"name": "m"}])[3] == "m 0 0 none"


def test_a_file_that_was_broken_since_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, config_version="abc", config_file_rejected=True)

    assert " · configuration abc · " in lines[0]
    assert lines[1] == REJECTED


def test_what_waits_for_a_seat_has_no_backend_yet(capsys: pytest.CaptureFixture[str]) -> None:
    call = {"request_id": "r", "rpc": "Generate", "phase": "PHASE_QUEUED", "age": "75s", "priority": "PRIORITY_BATCH"}

    assert shown(capsys, calls=[call])[-1] == "r Generate queued 1 min 15 s 0 0 batch"


def test_the_words_of_others_neither_mark_up_nor_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    call = {"request_id": "r", "model": "[red]m\x1b[2J\n:smile:", "phase": "PHASE_FIRST_TOKEN", "age": "1s"}

    [*_, line] = shown(capsys, calls=[call | {"priority": "PRIORITY_INTERACTIVE"}])
    assert line.startswith("r [red]m[2J :smile: first")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (60, "1 min 0 s"), (3_599, "59 min 59 s"), (3_600, "1 h 0 min"),
     (86_400, "1 d 0 h"), (1_000_000, "11 d 13 h")],
)  # fmt: skip
def test_a_time_is_said_as_people_say_it(seconds: float, said: str) -> None:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))

    assert span(duration) == said
