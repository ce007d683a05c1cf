# SPDX-License-Identifier: Apache-2.0
"""What the simulated model says: a story without end, whose every word is one token."""

from __future__ import annotations

from itertools import accumulate, chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_gateway.simulator.tokenizer import Tokenizer

SENTENCES = (
    " one night a small star want to move into the city, for it is cold and far.",
    " the city is by the sea, and the wall is long, and at the gate stand a queue.",
    " who is last, ask the star, and a dog tell it, wait by the stone.",
    " so the star wait, one light of all the night, and look up at the tree.",
    " the line is slow, for they make room only for one at a time.",
    " then the wind take the fire off the wall, and all the world is cold.",
    " but the star know a song, and it will give the song to all who stand near.",
    " so all make room and close up, one by one, and then the night is clear.",
    " now the gate move, and the star take a place at the fire.",
    " best of all is a small room at home, say the cat, and make way for the star.",
    " and so we tell it, one token at a time, and the stream run on before the day.",
)


class Story:
    """The same tokens for the same seed."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        sentences = [tokenizer.encode(sentence) for sentence in SENTENCES]
        self.whole = list(chain.from_iterable(sentences))
        """The tokens of the story, told once; it goes on with its beginning."""
        self._starts = [0, *accumulate(map(len, sentences[:-1]))]

    def start(self, seed: int) -> int:
        """Where in `whole` a seed begins, always with a sentence; seed 0 at the beginning."""
        return self._starts[seed % len(self._starts)]
