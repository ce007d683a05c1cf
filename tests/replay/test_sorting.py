# SPDX-License-Identifier: Apache-2.0
"""Every recording is put to a test, or named with the reason why it is not."""

from __future__ import annotations

import pytest

from tests.replay import sorting
from tests.replay.recording import FOLDER, Recording, every_recording, recordings

_KEYS = {key for names in sorting.LISTS.values() for key in names}


@pytest.mark.parametrize("recording", every_recording(), ids=str)
def test_a_recording_is_in_exactly_one_list(recording: Recording) -> None:
    lists = sorting.lists_of(recording.folder, recording.name)

    assert len(lists) == 1, f"{recording} is in {lists}"


def test_no_list_names_a_recording_that_is_not_there() -> None:
    there = {key for recording in every_recording() for key in (recording.name, str(recording))}

    assert set() == _KEYS - there


@pytest.mark.parametrize(("title", "refused"), [("answers", False), ("refusals", True)])
def test_the_list_is_true_of_what_vllm_said(title: str, refused: bool) -> None:
    strangers = [str(recording) for recording in recordings(title) if recording.refused is not refused]

    assert strangers == []


def test_every_request_has_its_answer() -> None:
    requests = {(path.parent.name, path.stem) for path in FOLDER.glob("*/*.req")}

    assert requests <= {(recording.folder, recording.name) for recording in every_recording()}
