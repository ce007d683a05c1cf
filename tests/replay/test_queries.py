# SPDX-License-Identifier: Apache-2.0
"""Token counts and lists of models that a real vLLM gave, through CountTokens and ListModels."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import grpc
import pytest

from llm_gateway.v1 import llm_service_pb2, message_pb2, model_pb2
from tests.kit.gateway import failure_of
from tests.replay.recording import Recording, recordings
from tests.replay.sorting import COUNT_REFUSALS, COUNTS, MODELS, MODELS_REFUSALS

if TYPE_CHECKING:
    from tests.replay.calls import Replay


COUNTED = [r for r in recordings("counts") if r.name in COUNTS]
NOT_COUNTED = [r for r in recordings("counts") if r.name in COUNT_REFUSALS]
LISTED = [r for r in recordings("models") if r.name in MODELS]
NOT_LISTED = [r for r in recordings("models") if r.name in MODELS_REFUSALS]
each_cut = pytest.mark.parametrize("seed", [None, 1], ids=["as it came", "cut"])


def _query(recorded: dict[str, object]) -> llm_service_pb2.CountTokensRequest:
    query = llm_service_pb2.CountTokensRequest(model="tiny", include_token_ids=True)
    if "prompt" in recorded:
        query.prompt = str(recorded["prompt"])
    else:
        query.messages.append(message_pb2.Message(role=message_pb2.ROLE_USER, content="Tell me a story."))
    return query


@each_cut
@pytest.mark.parametrize("recording", COUNTED, ids=str)
async def test_a_count_is_vllms(replay: Replay, recording: Recording, seed: int | None) -> None:
    answer = json.loads(recording.body)

    replay.backend.play(recording, seed)
    response = await replay.gateway.stub.CountTokens(_query(recording.request))

    told = (response.token_count, response.context_length, list(response.token_ids))
    assert (answer["count"], answer["max_model_len"], answer["tokens"]) == told
    asked = {name: value for name, value in recording.request.items() if name != "return_token_strs"}
    assert [("/tokenize", asked)] == [(path, body) for path, _, body in replay.backend.requests]


@pytest.mark.parametrize("recording", NOT_COUNTED, ids=str)
async def test_a_count_that_is_refused_is_a_status(replay: Replay, recording: Recording) -> None:
    replay.backend.play(recording)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await replay.gateway.stub.CountTokens(llm_service_pb2.CountTokensRequest(model="tiny", prompt="x"))

    failure, refusal = failure_of(caught.value), COUNT_REFUSALS[recording.name]
    assert (refusal.code, refusal.reason) == (failure.code.name, failure.reason)


@each_cut
@pytest.mark.parametrize("recording", LISTED, ids=str)
async def test_the_list_of_models_is_vllms(fresh_replay: Replay, recording: Recording, seed: int | None) -> None:
    fresh_replay.backend.play(recording, seed)
    response = await fresh_replay.gateway.stub.ListModels(llm_service_pb2.ListModelsRequest())

    listed = json.loads(recording.body)["data"]
    expected = [
        model_pb2.Model(name=m["id"], owned_by=m["owned_by"], context_length=m["max_model_len"], is_default=True)
        for m in listed
    ]
    assert expected == list(response.models)


@pytest.mark.parametrize("recording", NOT_LISTED, ids=str)
async def test_a_list_that_is_refused_is_a_status(fresh_replay: Replay, recording: Recording) -> None:
    fresh_replay.backend.play(recording)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await fresh_replay.gateway.stub.ListModels(llm_service_pb2.ListModelsRequest())

    failure, refusal = failure_of(caught.value), MODELS_REFUSALS[recording.name]
    assert (refusal.code, refusal.reason) == (failure.code.name, failure.reason)
