# SPDX-License-Identifier: Apache-2.0
"""Numbers that the contract has no room for are a fault of the backend's and not a bug of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from llm_gateway.v1 import llm_service_pb2 as pb
from tests.kit.calls import stream
from tests.kit.gateway import failure_of, start_gateway
from tests.kit.scripted import DONE, STREAM_HEAD, ScriptedBackend, chunk, event, json_response, usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.kit.scripted import Step

BIG = 2**40
TOO_BIG_FOR_A_SUM = 2**31


def choice(**fields: Any) -> bytes:
    """A chunk with a choice like this."""
    whole = {"index": 0, "delta": {"content": "a"}, "finish_reason": None} | fields
    return event({"object": "chat.completion.chunk", "model": "m", "choices": [whole]})


def tool_call(index: int) -> bytes:
    function = {"name": "f", "arguments": "{}"}
    return choice(delta={"tool_calls": [{"index": index, "id": "a", "function": function}]})


@pytest.mark.parametrize(
    "odd",
    [
        choice(token_ids=[-1]),
        choice(token_ids=[BIG]),
        choice(finish_reason="stop", stop_reason=BIG),
        tool_call(-1),
        tool_call(BIG),
        choice(index=BIG),
    ],
    ids=["negative token", "big token", "big stop token", "negative call", "big call", "big choice"],
)
async def test_a_number_that_no_field_can_hold_is_a_protocol_error(odd: bytes) -> None:
    script: Sequence[Step] = [STREAM_HEAD, odd, chunk(finish="stop"), usage(1, 1), DONE]
    async with ScriptedBackend(script) as backend, start_gateway(backend.url) as gateway:
        outcome = await stream(gateway)

    assert outcome.failure is not None
    assert outcome.failure.reason == "BACKEND_PROTOCOL_ERROR"


@pytest.mark.parametrize("counts", [(-1, 5), (BIG, 5), (TOO_BIG_FOR_A_SUM, TOO_BIG_FOR_A_SUM)], ids=str)
async def test_a_usage_that_no_field_can_hold_is_none_and_costs_nobody_the_answer(counts: tuple[int, int]) -> None:
    script: Sequence[Step] = [STREAM_HEAD, chunk("a", finish="stop"), usage(*counts), DONE]
    async with ScriptedBackend(script) as backend, start_gateway(backend.url) as gateway:
        outcome = await stream(gateway)

    assert (outcome.failure, outcome.text(), outcome.finish()) == (None, "a", "STOP")
    assert (outcome.completed.usage.completion_tokens, outcome.completed.usage.estimated) == (1, True)


@pytest.mark.parametrize(
    "counted",
    [
        {"count": -1},
        {"count": BIG},
        {"count": 1.5},
        {"count": None},
        {"count": 1, "tokens": [-1]},
        {"count": 1, "max_model_len": BIG},
        {"count": 1, "max_model_len": -1},
        [],
        None,
    ],
    ids=str,
)
async def test_a_count_that_is_none_is_a_protocol_error(counted: object) -> None:
    script = [json_response("200 OK", counted)]
    async with ScriptedBackend(script) as backend, start_gateway(backend.url) as gateway:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway.stub.CountTokens(pb.CountTokensRequest(prompt="hi"), timeout=30)

    assert failure_of(caught.value).reason == "BACKEND_PROTOCOL_ERROR"
