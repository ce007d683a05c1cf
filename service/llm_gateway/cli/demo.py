# SPDX-License-Identifier: Apache-2.0
"""`llm-gateway demo`."""

from __future__ import annotations

import asyncio

from llm_gateway.app import running
from llm_gateway.cli.answer import Ending, Page, ask
from llm_gateway.cli.client import Client
from llm_gateway.cli.screen import aside, say
from llm_gateway.observability.logging import configure_logging
from llm_gateway.settings import ServerSettings, Settings
from llm_gateway.simulator import Options, Simulator
from llm_gateway.v1 import message_pb2
from llm_gateway.v1.llm_service_pb2 import ChatCompletionRequest

LOOPBACK = "127.0.0.1"
QUESTION = "Tell me a story."
A_VISIBLE_PACE = Options(host=LOOPBACK, time_to_first_token=0.2, pace=0.03)
DEADLINE = 30.0
GO_ON = """
Now with a vLLM of your own:  VLLM_URL=http://localhost:8000 make llm-gateway
and call it, for a start by:  grpcurl -plaintext -d '{"messages":[{"role":"ROLE_USER","content":"hello"}]}' \
localhost:50052 llm_gateway.v1.LLMService/ChatCompletionStream"""


def demo() -> int:
    """Show one answer. Gives the exit code."""
    configure_logging("warning")
    return asyncio.run(_demo())


async def _demo() -> int:
    async with Simulator(A_VISIBLE_PACE) as simulator, running(settings_for(simulator.url)) as server:
        address = f"{LOOPBACK}:{server.port}"
        aside(f"simulated vLLM at {simulator.url}, gateway in front of it at {address}")
        say(f"> {QUESTION}")
        request = ChatCompletionRequest()
        request.messages.add(role=message_pb2.ROLE_USER, content=QUESTION)
        async with Client(address) as client:
            answer = await ask(client.stub, request, Page(), timeout=DEADLINE, address=address)
    if answer.ending is Ending.WHOLE:
        say(GO_ON)
    return answer.ending


def settings_for(url: str) -> Settings:
    """A gateway on a free port of loopback, whatever the environment says: a demo is the same everywhere."""
    return Settings.model_construct(port=0, vllm_url=url, server=ServerSettings(host=LOOPBACK, drain_delay_ms=0))
