# SPDX-License-Identifier: Apache-2.0
"""Every refusal of a real vLLM, as a status or as an event under HTTP 200, is the status that the error table says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from tests.kit.calls import chat_request
from tests.kit.gateway import Failure, failure_of
from tests.replay import sorting
from tests.replay.recording import Recording, recordings
from tests.replay.sorting import Refusal

if TYPE_CHECKING:
    from tests.replay.calls import Replay


each_refusal = pytest.mark.parametrize("recording", recordings("refusals"), ids=str)
each_cut = pytest.mark.parametrize("seed", [None, 1], ids=["as it came", "cut"])


def _told(failure: Failure | None) -> Refusal:
    assert failure is not None
    return Refusal(failure.code.name, failure.reason, tuple(failure.violations))


@each_cut
@each_refusal
async def test_a_refused_stream_is_a_status_and_nothing_else(
    replay: Replay, recording: Recording, seed: int | None
) -> None:
    replay.backend.play(recording, seed)
    outcome = await replay.stream(chat_request())

    assert outcome.events == []
    assert sorting.refusal_of(recording.folder, recording.name) == _told(outcome.failure)


@each_refusal
async def test_a_unary_call_is_refused_in_the_same_words(replay: Replay, recording: Recording) -> None:
    replay.backend.play(recording)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await replay.complete(chat_request())

    assert sorting.refusal_of(recording.folder, recording.name) == _told(failure_of(caught.value))


@each_refusal
async def test_what_vllm_wrote_is_not_passed_on(replay: Replay, recording: Recording) -> None:
    replay.backend.play(recording)
    outcome = await replay.stream(chat_request())

    assert outcome.failure is not None
    assert recording.words not in outcome.failure.message
