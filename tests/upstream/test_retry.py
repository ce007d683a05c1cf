# SPDX-License-Identifier: Apache-2.0
"""Whether another attempt is made, and how long before it."""

from __future__ import annotations

import pytest

from llm_gateway import errors as e
from llm_gateway.upstream.retry import RetryPolicy

POLICY = RetryPolicy(max_attempts=4, backoff=0.1, max_backoff=0.3)


@pytest.mark.parametrize(
    "kind",
    [e.NoHealthyBackend, e.BackendLost, e.BackendGaveUp, e.BackendOverloaded, e.BackendRateLimited, e.ModelLoading],
)
def test_what_may_pass_is_tried_again_until_the_attempts_are_spent(kind: type[e.BackendError]) -> None:
    pauses = [POLICY.pause(kind("No."), attempts) for attempts in (1, 2, 3, 4, 5)]

    assert None not in pauses[:3]
    assert pauses[3:] == [None, None]


@pytest.mark.parametrize(
    "error",
    [
        e.FirstTokenTimeout("No."),
        e.BackendProtocolError("No."),
        e.BackendRefused("No."),
    ],
    ids=lambda error: error.reason,
)
def test_what_would_fail_again_is_not(error: e.BackendError) -> None:
    assert POLICY.pause(error, 1) is None


@pytest.mark.parametrize(
    "kind",
    [e.NoHealthyBackend, e.BackendLost, e.BackendOverloaded, e.FirstTokenTimeout, e.BackendProtocolError],
)
def test_another_backend_is_asked_at_once(kind: type[e.BackendError]) -> None:
    assert POLICY.pause(kind("No.", retry_after=60.0), 1, elsewhere=True) == 0.0


def test_another_backend_is_not_asked_once_the_attempts_are_spent() -> None:
    assert POLICY.pause(e.BackendLost("No."), 4, elsewhere=True) is None


def test_refused_credentials_are_not_hidden_by_another_backend() -> None:
    assert POLICY.pause(e.BackendRefused("No."), 1, elsewhere=True) is None


def test_pauses_are_random_below_a_ceiling_that_doubles_up_to_a_limit() -> None:
    for attempts, ceiling in ((1, 0.1), (2, 0.2), (3, 0.3)):
        pauses = [POLICY.pause(e.BackendLost("No."), attempts) or 0.0 for _ in range(300)]

        assert 0 <= min(pauses) < ceiling / 2 < max(pauses) <= ceiling


def test_a_wait_that_the_backend_asks_for_is_the_least_pause() -> None:
    pauses = [POLICY.pause(e.BackendOverloaded("No.", retry_after=0.25), 1) or 0.0 for _ in range(50)]

    assert set(pauses) == {0.25}


def test_a_wait_is_heeded_even_if_it_is_what_we_would_have_guessed() -> None:
    policy = RetryPolicy(backoff=0.0, max_backoff=1.0)

    assert policy.pause(e.BackendOverloaded("No.", retry_after=1.0), 1) == 1.0


def test_a_guess_of_ours_does_not_slow_an_attempt() -> None:
    assert RetryPolicy(backoff=0.0).pause(e.ModelLoading("No."), 1) == 0.0


def test_a_wait_beyond_our_longest_pause_is_the_callers() -> None:
    assert POLICY.pause(e.BackendOverloaded("No.", retry_after=0.31), 1) is None
