# SPDX-License-Identifier: Apache-2.0
"""The tree of errors: what a leaf carries, and what a failure is called after the commit point."""

from __future__ import annotations

import pytest

from llm_gateway import errors as e

BACKEND_ERRORS: dict[type[e.BackendError], type[e.StreamError]] = {
    e.NoHealthyBackend: e.StreamInterrupted,
    e.ModelLoading: e.StreamInterrupted,
    e.BackendRateLimited: e.StreamInterrupted,
    e.BackendOverloaded: e.StreamInterrupted,
    e.FirstTokenTimeout: e.StreamStalled,
    e.BackendLost: e.StreamInterrupted,
    e.BackendGaveUp: e.BackendAborted,
    e.BackendProtocolError: e.StreamCorrupted,
    e.BackendRefused: e.StreamInterrupted,
}


def leaves(kind: type[e.GatewayError]) -> set[type[e.GatewayError]]:
    """A class and all below it, as far as they have a reason."""
    below = {leaf for child in kind.__subclasses__() for leaf in leaves(child)}
    return below | ({kind} if hasattr(kind, "reason") else set())


@pytest.mark.parametrize(("before", "after"), BACKEND_ERRORS.items(), ids=str)
def test_after_the_commit_point_a_backends_failure_is_a_streams(
    before: type[e.BackendError], after: type[e.StreamError]
) -> None:
    error = before("It broke.").committed()

    assert type(error) is after
    assert error.message == "It broke."


def test_every_failure_of_a_backend_has_a_name_after_the_commit_point() -> None:
    assert leaves(e.BackendError) == set(BACKEND_ERRORS)


@pytest.mark.parametrize("kind", sorted(leaves(e.GatewayError), key=str))
def test_a_leaf_says_what_happened_in_a_docstring_and_one_word(kind: type[e.GatewayError]) -> None:
    assert kind.__doc__
    assert kind.reason.isupper()
    assert str(kind("A sentence.")) == kind("A sentence.").message == "A sentence."


def test_every_leaf_is_drawn_in_the_tree() -> None:
    drawing = e.__doc__ or ""

    assert [kind.__name__ for kind in leaves(e.GatewayError) if kind.__name__ not in drawing] == []


def test_a_wait_that_was_asked_for_goes_before_our_guess() -> None:
    asked, guessed = e.ModelLoading("Loading.", retry_after=0.0), e.ModelLoading("Loading.")

    assert (asked.retry_after, asked.asked_wait) == (0.0, 0.0)
    assert (guessed.retry_after, guessed.asked_wait) == (5.0, None)


def test_one_wrong_field_is_named_in_the_message_and_in_the_violation() -> None:
    error = e.UnsupportedParameter.of("params.n", "must be 1")

    assert error.message == "params.n: must be 1"
    assert error.violations == (e.FieldViolation("params.n", "must be 1"),)
