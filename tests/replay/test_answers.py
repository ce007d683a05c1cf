# SPDX-License-Identifier: Apache-2.0
"""Every answer that a real vLLM gave goes through the gateway, and a caller is told exactly what it said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.replay.calls import request_of, told_by_answer, told_by_stream, usage_of
from tests.replay.recording import Recording, expected, recordings

if TYPE_CHECKING:
    from tests.replay.calls import Replay


ANSWERS = recordings("answers")
each_answer = pytest.mark.parametrize("recording", ANSWERS, ids=str)
each_cut = pytest.mark.parametrize("seed", [None, 1, 2], ids=["as it came", "cut by seed 1", "cut by seed 2"])


@each_cut
@each_answer
async def test_a_stream_tells_what_vllm_said(replay: Replay, recording: Recording, seed: int | None) -> None:
    answer = expected(recording)

    replay.backend.play(recording, seed)
    outcome = await replay.stream(request_of(recording))

    assert outcome.failure is None
    assert answer.choices == told_by_stream(outcome)
    assert answer.model == outcome.started.model
    assert answer.usage == usage_of(outcome.completed.usage, answer)


@each_cut
@each_answer
async def test_a_whole_answer_tells_what_vllm_said(replay: Replay, recording: Recording, seed: int | None) -> None:
    answer = expected(recording)

    replay.backend.play(recording, seed)
    response = await replay.complete(request_of(recording))

    assert answer.choices == told_by_answer(response)
    assert answer.model == response.model
    assert answer.usage == usage_of(response.usage, answer)


@pytest.mark.parametrize("recording", [r for r in ANSWERS if r.streams and "tool" not in r.name], ids=str)
async def test_the_first_delta_is_the_first_that_says_something(replay: Replay, recording: Recording) -> None:
    replay.backend.play(recording)
    outcome = await replay.stream(request_of(recording))

    assert expected(recording).first_text == outcome.deltas[0].text
