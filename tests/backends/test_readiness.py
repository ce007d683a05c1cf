# SPDX-License-Identifier: Apache-2.0
"""How each dialect is asked whether it can serve, how busy it is, and how many tokens a prompt has."""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from llm_gateway.backends.base import Load, Readiness
from llm_gateway.backends.dialect import DIALECTS, SGLANG, VLLM
from llm_gateway.backends.load import load_of
from llm_gateway.backends.openai import OpenAIBackend
from llm_gateway.errors import BackendLost, BackendProtocolError, BackendRefused, ModelLoading
from llm_gateway.generation import Generation, Message, TokenQuery
from llm_gateway.simulator import Behaviour, Fault, Options, Simulator
from llm_gateway.simulator.dialects import DIALECTS as SIMULATED
from tests.kit.calls import until
from tests.kit.sockets import closed_port
from tests.kit.statuses import StatusServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

QUERY = TokenQuery(prompt="a")
HELLO = Generation(messages=(Message(role="user", content="hello"),))


@asynccontextmanager
async def known(url: str, dialect: str, **more: Any) -> AsyncIterator[OpenAIBackend]:
    backend = OpenAIBackend("b", url, dialect=DIALECTS[dialect], **more)
    try:
        yield backend
    finally:
        await backend.close()


@asynccontextmanager
async def simulated(dialect: str, **options: Any) -> AsyncIterator[tuple[Simulator, OpenAIBackend]]:
    async with (
        Simulator(Options(dialect=dialect, **options)) as simulator,
        known(simulator.url, dialect) as backend,
    ):
        yield simulator, backend


# ------------------------------------------------------------------------------------------------------- readiness


@pytest.mark.parametrize(
    ("dialect", "asked"),
    [("vllm", "/health"), ("openai", "/v1/models"), ("sglang", "/ready"), ("llamacpp", "/health"), ("ollama", "/")],
)
async def test_a_server_that_serves_is_ready_and_asked_only_what_is_cheap(dialect: str, asked: str) -> None:
    async with simulated(dialect) as (simulator, backend):
        assert await backend.probe() is Readiness.READY
        assert [probe.path for probe in simulator.probes] == [asked]


@pytest.mark.parametrize("dialect", ["sglang", "llamacpp"])
async def test_a_model_that_is_being_read_is_loading(dialect: str) -> None:
    async with simulated(dialect) as (simulator, backend):
        simulator.loading = True

        assert await backend.probe() is Readiness.LOADING
        simulator.loading = False
        assert await backend.probe() is Readiness.READY


@pytest.mark.parametrize("dialect", SIMULATED)
async def test_a_request_to_a_model_that_is_being_read_says_so(dialect: str) -> None:
    async with simulated("llamacpp") as (simulator, _), known(simulator.url, dialect) as backend:
        simulator.loading = True

        with pytest.raises(ModelLoading):
            await backend.open(HELLO, "sim", "r-1")


async def test_an_engine_that_is_dead_is_down() -> None:
    async with simulated("vllm") as (simulator, backend):
        simulator.healthy = False

        assert await backend.probe() is Readiness.DOWN


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_server_that_nobody_reaches_is_down(dialect: str) -> None:
    with closed_port() as port:
        async with known(f"http://127.0.0.1:{port}", dialect) as backend:
            assert await backend.probe() is Readiness.DOWN


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_server_that_does_not_answer_in_time_is_silent(dialect: str) -> None:
    async with StatusServer(None) as server, known(server.url, dialect, timeout=0.02) as backend:
        assert await backend.probe() is Readiness.SILENT


STATUSES = [
    *((status, name, Readiness.READY) for status in (200, 401, 403, 429) for name in DIALECTS),
    *((status, name, Readiness.DOWN) for status in (302, 500, 502) for name in DIALECTS),
    *((status, "generic", Readiness.READY) for status in (404, 405)),
    *((404, name, Readiness.DOWN) for name in DIALECTS if name != "generic"),
    *((503, name, Readiness.LOADING) for name in ("sglang", "llamacpp")),
    *((503, name, Readiness.DOWN) for name in ("vllm", "openai", "ollama", "generic")),
]


@pytest.mark.parametrize(("status", "dialect", "readiness"), STATUSES)
async def test_what_a_status_says(status: int, dialect: str, readiness: Readiness) -> None:
    async with StatusServer(status) as server, known(server.url, dialect) as backend:
        assert await backend.probe() is readiness


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_an_error_that_says_it_loads_is_believed_of_anybody(dialect: str) -> None:
    body = {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}
    async with StatusServer(503, body) as server, known(server.url, dialect) as backend:
        assert await backend.probe() is Readiness.LOADING


async def test_all_probes_go_over_one_connection() -> None:
    """A new one each time, with TLS, would cost more than what is asked over it."""
    async with StatusServer(200, b"x" * 60_000) as server, known(server.url, "openai") as backend:
        for _ in range(3):
            await backend.probe()

        assert server.asked == ["/v1/models"] * 3
        assert server.connections == 1


async def test_a_probe_whose_answer_is_endless_is_ready_all_the_same() -> None:
    async with StatusServer(200, b"x" * 200_000) as server, known(server.url, "openai") as backend:
        assert await backend.probe() is Readiness.READY


async def test_an_older_sglang_is_asked_for_its_models() -> None:
    async with StatusServer(404, others={"/v1/models": 200}) as server, known(server.url, "sglang") as backend:
        assert await backend.probe() is Readiness.READY
        assert server.asked == ["/ready", "/v1/models"]


async def test_a_key_that_is_refused_is_for_the_calls_to_tell() -> None:
    async with simulated("openai", api_key="sk-1") as (_, backend):
        assert await backend.probe() is Readiness.READY
        with pytest.raises(BackendRefused):
            await backend.open(HELLO, "sim", "r-1")


# ------------------------------------------------------------------------------------------------------------- load


@pytest.mark.parametrize("dialect", ["vllm", "sglang", "llamacpp"])
async def test_the_load_is_what_runs_and_waits(dialect: str) -> None:
    async with simulated(dialect, max_num_seqs=1) as (simulator, backend):
        idle = await backend.load()
        simulator.script(*[Behaviour(fault=Fault.STALL)] * 2)
        answers = [await backend.open(HELLO, "sim", f"r-{number}") for number in range(2)]
        await simulator.wait_for(lambda counts: (counts.running, counts.waiting) == (1, 1))
        busy = await backend.load()
        for answer in answers:
            await answer.close()

    assert idle is not None
    assert (idle.running, idle.waiting) == (0, 0)
    assert busy is not None
    assert (busy.running, busy.waiting) == (1, 1)
    assert (busy.kv_usage is None) == (dialect == "llamacpp")


@pytest.mark.parametrize("dialect", ["openai", "ollama", "generic"])
async def test_who_has_no_metrics_is_not_asked_for_them(dialect: str) -> None:
    async with simulated("openai") as (simulator, _), known(simulator.url, dialect) as backend:
        assert await backend.load() is None
        assert simulator.probes == []


@pytest.mark.parametrize("status", [200, 404, 401, 500])
async def test_metrics_that_do_not_come_are_no_load(status: int) -> None:
    async with StatusServer(status) as server, known(server.url, "vllm") as backend:
        assert await backend.load() is None


async def test_models_that_are_not_listed_in_time_are_no_load() -> None:
    async with StatusServer(None) as server, known(server.url, "vllm", timeout=0.02) as backend:
        assert await backend.load() is None


async def test_whoever_asks_for_the_load_says_how_long_that_may_take() -> None:
    """Its own `timeout` has passed."""
    models: Any = {"/v1/models": {"data": []}}
    async with (
        StatusServer(200, others={"/metrics": None}, bodies=models) as server,
        known(server.url, "vllm", timeout=0.01) as backend,
    ):
        while True:
            with contextlib.suppress(BackendLost):  # a busy machine does not list them in time
                await backend.list_models()
                break
        asking = asyncio.create_task(backend.load())
        await until(lambda: "/metrics" in server.asked)
        await asyncio.sleep(0.015)

        assert not asking.done()
        asking.cancel()
        await asyncio.wait([asking])


@pytest.mark.parametrize(("more", "load"), [(1_000_000, Load(1, 2)), (2_200_000, None)])
async def test_a_page_of_metrics_is_not_read_for_ever(more: int, load: Load | None) -> None:
    page = b"vllm:num_requests_running 1\nvllm:num_requests_waiting 2\n" + b"#" * more
    bodies = {"/v1/models": {"data": []}, "/metrics": page}
    async with StatusServer(200, bodies=bodies) as server, known(server.url, "vllm") as backend:
        assert await backend.load() == load


def test_how_many_models_a_backend_lists_costs_a_page_next_to_nothing() -> None:
    """Else a backend with many holds up all calls each second."""
    page = b"".join(b'%s{model_name="no"} 1\n' % VLLM.load.running for _ in range(1000)) if VLLM.load else b""
    few, many = ([f"model-{number}" for number in range(count)] for count in (10, 5_000))

    assert _cost(page, many) < 100 * _cost(page, few)


def _cost(page: bytes, models: list[str]) -> float:
    """Seconds of this thread's own that a page takes, at best."""
    assert VLLM.load is not None
    costs = []
    for _ in range(3):
        began = time.thread_time()
        load_of(page, VLLM.load, models)
        costs.append(time.thread_time() - began)
    return min(costs)


NO_NUMBERS = (b"NaN", b"-1", b"inf", b"1e308", b"2147483649", b"9" * 5000, b"many")
PAGE = b"""\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a"} 3.0
vllm:num_requests_running{engine="1",model_name="a"} 4.0
vllm:num_requests_running{engine="0",model_name="other"} 50.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="a"} 1.0
vllm:num_requests_waiting{engine="1",model_name="a"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="a",reason="capacity"} 70.0
vllm:kv_cache_usage_perc{engine="0",model_name="a"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="a"} 0.5 1795384246000
vllm:kv_cache_usage_perc{engine="0",model_name="other"} 0.9
"""


@pytest.mark.parametrize(
    ("page", "models", "load"),
    [
        (PAGE, ["a"], Load(7, 3, 0.5)),
        (PAGE, ["a", "other"], Load(57, 3, 0.9)),
        (PAGE.replace(b"\n", b"\r\n"), ["a"], Load(7, 3, 0.5)),
        (PAGE[PAGE.index(b"\nvllm:") + 1 :], ["a"], Load(7, 3, 0.5)),
        (PAGE.rpartition(b"vllm:kv")[0].rstrip(), ["a"], Load(7, 3, 0.5)),
        (PAGE, ["none of them"], None),
        (b"", ["a"], None),
        (b"<html>", ["a"], None),
        (b"vllm:num_requests_running{} 1\n", ["a"], None),
        (b"vllm:num_requests_running 1\nvllm:num_requests_waiting 2\n", [], Load(1, 2)),
        *((b"vllm:num_requests_running %s\nvllm:num_requests_waiting 2\n" % no, [], None) for no in NO_NUMBERS),
        (b"vllm:num_requests_running 2147483648\nvllm:num_requests_waiting 2\n", [], Load(2**31, 2)),
        (b"vllm:num_requests_running 1\n" * 1000 + b"vllm:num_requests_waiting 2\n", [], Load(1000, 2)),
        (b"vllm:num_requests_running 1\n" * 1001 + b"vllm:num_requests_waiting 2\n", [], None),
        (b"vllm:num_requests_running\nvllm:num_requests_waiting{a=\n", [], None),
        (
            b"vllm:num_requests_running 1e3\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc 7\n",
            [],
            Load(1000, 0, 1.0),
        ),
        (b'vllm:num_requests_running{model_name="a\\"}\\\\"} 1\nvllm:num_requests_waiting 2\n', ['a"}\\'], Load(1, 2)),
    ],
)
def test_the_load_of_a_page(page: bytes, models: list[str], load: Load | None) -> None:
    assert VLLM.load is not None
    assert load_of(page, VLLM.load, models) == load


# ----------------------------------------------------------------------------------------------------------- tokens


@pytest.mark.parametrize("dialect", ["vllm", "sglang", "llamacpp"])
async def test_a_prompt_has_as_many_tokens_whoever_counts_them(dialect: str) -> None:
    async with simulated(dialect) as (_, backend):
        counted = await backend.count_tokens(TokenQuery(prompt="one two three"), "sim", "r-1")

    assert counted.count == len(counted.token_ids) == 6


async def test_tokens_without_a_count_are_counted() -> None:
    """As llama.cpp answers."""
    async with StatusServer(200, {"tokens": [5, 6]}) as server, known(server.url, "llamacpp") as backend:
        counted = await backend.count_tokens(TokenQuery(prompt="a b"), "m", "r-1")

    assert (counted.count, counted.token_ids, counted.context_length) == (2, (5, 6), None)


async def test_an_answer_that_counts_nothing_is_not_of_the_protocol() -> None:
    async with StatusServer(200, {}) as server, known(server.url, "sglang") as backend:
        with pytest.raises(BackendProtocolError):
            await backend.count_tokens(QUERY, "m", "r-1")


@pytest.mark.parametrize("what", ["models", "tokens"])
async def test_an_answer_that_is_too_long_for_the_question_is_not_read(what: str) -> None:
    """It would be decoded while all calls wait."""
    async with StatusServer(200, b"x" * 2_200_000) as server, known(server.url, "vllm") as backend:
        asked: Any = backend.list_models() if what == "models" else backend.count_tokens(QUERY, "m", "r-1")

        with pytest.raises(BackendProtocolError, match="larger than the gateway takes"):
            await asked


async def test_a_long_prompt_has_room_for_all_its_tokens() -> None:
    tokens = [151_643] * 400_000
    async with StatusServer(200, {"tokens": tokens}) as server, known(server.url, "llamacpp") as backend:
        counted = await backend.count_tokens(TokenQuery(prompt="a" * len(tokens)), "m", "r-1")

    assert counted.count == len(tokens)


async def test_a_probe_reads_no_more_of_an_error_than_it_needs() -> None:
    """A page of an ingress: it is down, and the next probe finds its connection closed and asks on another."""
    async with StatusServer(503, b"<html>" + b"x" * 200_000) as server, known(server.url, "vllm") as backend:
        assert [await backend.probe() for _ in range(3)] == [Readiness.DOWN] * 3


def test_sglang_is_never_asked_for_its_health() -> None:
    assert "/health" not in SGLANG.probing.paths
