# SPDX-License-Identifier: Apache-2.0
"""How long an endpoint that is too busy for a call is passed over: it refuses in no time, and would draw every call."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_gateway.errors import GatewayError

LONGEST = 60.0
"""Seconds: no endpoint is left alone for longer, whatever it asked for."""
LONGEST_GUESS = 10.0
"""The same where it asked for nothing: it may have room again at any moment, and one call finds out."""


class Cooling:
    """The pause of one endpoint. While there is another, nobody is sent to it; alone it is asked all the same.

    What it asks for (Retry-After) is heeded. Where it asks for nothing, the pause is the error's own guess, twice as
    long with each refusal in a row. A spent quota, which no guess is made of, is one of the longest.

    Many calls are under way at once, and each says how the endpoint was when it was sent. So each is of a *term*, and a
    refusal ends the term: the other calls of that term say nothing new, neither by a refusal nor by an answer.
    """

    __slots__ = ("_guesses", "term", "until")

    def __init__(self) -> None:
        self.term = 0
        """To be told with the outcome of a call that is sent now."""
        self.until = 0.0
        """On the pool's clock."""
        self._guesses = 0  # in a row

    def refused(self, error: GatewayError, term: int, now: float) -> None:
        """It was too busy for a call."""
        if error.asked_wait is not None:
            self._guesses = 0
            self.until = now + min(error.asked_wait, LONGEST)
        elif term == self.term:
            self.until = max(self.until, now + self._guess(error.retry_after))
            self._guesses += 1
        else:
            return
        self.term += 1

    def answered(self, term: int) -> bool:
        """It gave a first token; gives whether that ended the pause, which it does where nobody asked for one."""
        if not self._guesses or term != self.term:
            return False
        self._guesses = 0
        self.until = 0.0
        return True

    def _guess(self, least: float | None) -> float:
        return LONGEST if least is None else min(LONGEST_GUESS, least * 2 ** min(self._guesses, 10))
