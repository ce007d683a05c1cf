# SPDX-License-Identifier: Apache-2.0
"""What a pool knows of how long a first token takes."""

from __future__ import annotations

import pytest

from llm_gateway.upstream.first_token import FirstTokenTime


@pytest.fixture
def time() -> FirstTokenTime:
    return FirstTokenTime()


def test_the_first_one_is_all_that_is_known(time: FirstTokenTime) -> None:
    time.took(1.2)

    assert time.usual == 1.2


def test_those_that_follow_change_it_by_and_by(time: FirstTokenTime) -> None:
    time.took(1.0)
    time.took(2.0)
    soon = time.usual
    for _ in range(50):
        time.took(2.0)

    assert soon == pytest.approx(1.1)
    assert time.usual == pytest.approx(2.0, abs=0.01)


def test_until_the_first_one_has_come_a_doubt_is_a_guess_and_then_it_is_forgotten(time: FirstTokenTime) -> None:
    time.is_doubted(2.0)
    time.is_doubted(1.0)
    guess = time.usual
    time.took(0.05)

    assert (guess, time.usual) == (2.0, 0.05)


def test_a_doubt_changes_nothing_that_was_measured(time: FirstTokenTime) -> None:
    time.took(0.05)
    time.is_doubted(2.0)

    assert time.usual == 0.05


def test_calls_that_got_none_teach_that_it_takes_longer_than_the_half_of_what_they_had(time: FirstTokenTime) -> None:
    """Else a pool whose calls all give up a backend too early would never learn to leave it."""
    time.took(0.05)
    for _ in range(10):
        time.is_longer(2.0)

    assert 1.0 < time.usual < 2.0


def test_they_teach_nothing_where_it_takes_longer_than_they_had(time: FirstTokenTime) -> None:
    time.took(5.0)
    time.is_longer(2.0)

    assert time.usual == 5.0
