# SPDX-License-Identifier: Apache-2.0
"""How long a model takes for its first token, so that nobody gives up one backend for another that has no time left."""

from __future__ import annotations

WEIGHT = 0.1
"""Of one more call in the mean."""


class FirstTokenTime:
    """The mean over a model's backends, in which the last calls count most; `usual` is in seconds."""

    __slots__ = ("_measured", "usual")

    def __init__(self) -> None:
        self.usual = 0.0
        """While no token has come it is a guess, which starts with nothing."""
        self._measured = False

    def took(self, seconds: float) -> None:
        """A first token came."""
        self.usual = self.usual + WEIGHT * (seconds - self.usual) if self._measured else seconds
        self._measured = True

    def is_doubted(self, seconds: float) -> None:
        """A backend was given up early, of a call that had so long. Whether that was right, its rescue will show: until
        then, where no token has come yet, the others had better wait.
        """
        if not self._measured:
            self.usual = max(self.usual, seconds)

    def is_longer(self, seconds: float) -> None:
        """A call that had so long got no token, because it gave up a backend for another one."""
        if seconds > self.usual:
            self.usual = self.usual + WEIGHT * (seconds - self.usual) if self._measured else seconds
