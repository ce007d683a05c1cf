# SPDX-License-Identifier: Apache-2.0
"""A gateway and a simulator as containers of one network: they start, stream, and end as they should."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from llm_gateway.v1 import llm_service_pb2_grpc
from tests.image.containers import GRPC_PORT, Contained, gateway, simulator
from tests.kit.calls import chat_request, read_stream
from tests.kit.health import NOT_SERVING, SERVING, becomes, status_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from testcontainers.core.network import Network

TOKENS = 40
KEY = "sk-only-in-a-file"

pytestmark = pytest.mark.image


@asynccontextmanager
async def channel_to(container: Contained) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a gateway in a container."""
    async with grpc.aio.insecure_channel(container.address(GRPC_PORT)) as channel:
        yield channel


def streaming(channel: grpc.aio.Channel, tokens: int = TOKENS) -> Any:
    """A stream of so many tokens."""
    return llm_service_pb2_grpc.LLMServiceStub(channel).ChatCompletionStream(
        chat_request(max_tokens=tokens, ignore_eos=True), timeout=20
    )


async def test_health_says_that_it_lives_takes_calls_and_has_a_backend(served: Contained) -> None:
    async with channel_to(served) as channel:
        await becomes(channel, "llm_gateway.v1.LLMService", SERVING)

        assert [await status_of(channel, name) for name in ("liveness", "readiness", "")] == [SERVING] * 3


async def test_an_answer_streams_from_the_simulator_to_the_caller(served: Contained) -> None:
    async with channel_to(served) as channel:
        outcome = await read_stream(streaming(channel))

    assert outcome.finish() == "LENGTH"
    assert outcome.completed.usage.completion_tokens == TOKENS
    assert len(outcome.deltas) > 1


async def test_sigterm_finishes_running_streams_refuses_new_calls_and_ends_with_exit_code_0(served: Contained) -> None:
    async with channel_to(served) as channel:
        running = streaming(channel)
        rest = aiter(running)
        first = await anext(rest)
        served.terminate()
        await becomes(channel, "readiness", NOT_SERVING)
        refused = await read_stream(streaming(channel))
        outcome = await read_stream(running, [first], rest)

    assert refused.failure is not None
    assert refused.failure.reason == "DRAINING"
    assert outcome.completed.usage.completion_tokens == TOKENS
    assert await asyncio.to_thread(served.wait) == 0


async def test_a_simulator_that_is_told_to_end_finishes_its_streams_too(network: Network) -> None:
    options = ("--pace-ms", "20", "--shutdown-timeout", "20")
    with (
        simulator(network, *options, alias="another") as another,
        gateway(network, "another") as before,
    ):
        async with channel_to(before) as channel:
            running = streaming(channel)
            rest = aiter(running)
            first = await anext(rest)
            another.terminate()
            outcome = await read_stream(running, [first], rest)

        assert outcome.completed.usage.completion_tokens == TOKENS
        assert await asyncio.to_thread(another.wait) == 0


async def test_wrong_settings_end_the_start_with_a_line_for_each(network: Network) -> None:
    container = Contained("serve", network=network, alias="wrong", ready="SERVER__PROT").with_env("SERVER__PROT", "1")
    with container as wrong:
        assert await asyncio.to_thread(wrong.wait) == 2
        assert "SERVER__PROT: there is no such setting" in wrong.logs()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A directory as a mounted Secret's: a file for each variable."""
    (tmp_path / "VLLM_API_KEY").write_text(KEY)
    tmp_path.chmod(0o755)
    return tmp_path


async def test_a_key_in_a_mounted_directory_is_sent_to_the_backend_and_never_said(
    network: Network, secret: Path
) -> None:
    with (
        simulator(network, alias="guarded").with_env("VLLM_API_KEY", KEY),
        gateway(network, "guarded").with_volume_mapping(secret, "/run/secrets/llm-gateway") as served,
    ):
        async with channel_to(served) as channel:
            outcome = await read_stream(streaming(channel, tokens=2))

        assert outcome.failure is None
        assert KEY not in served.logs()
