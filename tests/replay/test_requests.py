# SPDX-License-Identifier: Apache-2.0
"""What was asked of a real vLLM, asked through the gateway: the same JSON leaves, or the gateway refuses by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.replay.recording import Recording, recordings
from tests.replay.translating import InexpressibleError, expected_body, translate

if TYPE_CHECKING:
    from tests.replay.calls import Replay


# Requests that the contract has no words for: whoever writes them has a mistake that types and enums catch.
INEXPRESSIBLE = {
    "err_bad_json", "err_empty_body", "err_max_tokens_negative", "err_messages_type", "err_not_object",
    "err_response_format_type", "err_role", "err_temperature_type", "null_scalar",
}  # fmt: skip

# Requests that never reach a backend, and the field that the caller is told.
REFUSED_HERE = {
    "err_max_tokens_zero": "params.max_tokens",
    "err_messages_empty": "messages",
    "err_messages_missing": "messages",
    "err_n_greedy": "params.n",
    "err_n_zero": "params.n",
    "err_temperature": "params.temperature",
    "err_tool_choice_without_tools": "tool_choice",
    "err_tool_unknown": "tool_choice.function_name",
    "err_top_logprobs_no_flag": "params.top_logprobs",
    "err_top_p": "params.top_p",
    "s_min_over_max": "params.min_tokens",
    "s_n_greedy": "params.n",
    "s_temperature": "params.temperature",
    "temp_over": "params.temperature",
}

ASKED = [r for r in recordings("answers") + recordings("refusals") if (r.name != "embeddings" and r.has_request)]
SENT = [r for r in ASKED if r.name not in INEXPRESSIBLE and r.name not in REFUSED_HERE]


@pytest.mark.parametrize("recording", SENT, ids=str)
async def test_the_gateway_sends_what_was_asked(replay: Replay, recording: Recording) -> None:
    replay.backend.play(recording)
    await replay.stream(translate(recording.request))

    path = "/v1/completions" if "prompt" in recording.request else "/v1/chat/completions"
    assert [(path, expected_body(recording.request))] == [(path, body) for path, _, body in replay.backend.requests]


@pytest.mark.parametrize("recording", [r for r in ASKED if r.name in REFUSED_HERE], ids=str)
async def test_the_gateway_refuses_by_itself_what_vllm_would_refuse(replay: Replay, recording: Recording) -> None:
    replay.backend.play(recording)
    outcome = await replay.stream(translate(recording.request))

    assert outcome.failure is not None
    assert outcome.failure.reason == "INVALID_REQUEST"
    assert outcome.failure.violations == [REFUSED_HERE[recording.name]]
    assert replay.backend.requests == []


@pytest.mark.parametrize("recording", [r for r in ASKED if r.name in INEXPRESSIBLE], ids=str)
def test_the_contract_has_no_words_for_nonsense(recording: Recording) -> None:
    with pytest.raises(InexpressibleError):
        translate(recording.request)


async def test_the_request_id_reaches_vllm_as_a_header(replay: Replay) -> None:
    recording = Recording("default", "request_id_header")

    replay.backend.play(recording)
    await replay.stream(translate(recording.request), metadata=[("x-request-id", "my-req-42")])

    assert [headers["x-request-id"] for _, headers, _ in replay.backend.requests] == ["my-req-42"]
