# SPDX-License-Identifier: Apache-2.0
"""Invented, but repeatable, log probabilities in the two shapes of the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_gateway.simulator.tokenizer import Tokenizer

Json = dict[str, Any]


class Logprobs:
    """Writes the logprobs of tokens; `tops` alternatives each."""

    def __init__(self, tokenizer: Tokenizer, tops: int, as_token_ids: bool) -> None:
        self._tokenizer = tokenizer
        self._tops = len(tokenizer) if tops == -1 else tops
        self._as_token_ids = as_token_ids

    def chat(self, tokens: list[int]) -> Json:
        """The `logprobs` of a chat choice."""
        return {"content": [self._entry(token) for token in tokens]}

    def _entry(self, token: int) -> Json:
        tops = [self._plain(other, value) for other, value in self._alternatives(token, self._tops)]
        return self._plain(token, self._value(token)) | {"top_logprobs": tops}

    def _plain(self, token: int, value: float) -> Json:
        text = self._tokenizer.text(token)
        return {"token": self._name(token), "logprob": value, "bytes": list(text.encode())}

    def text(self, prompt: list[int], generated: list[int], offset: int) -> Json:
        """The `logprobs` of a `/v1/completions` choice; `prompt` is what is echoed, and its first token has none."""
        names = [self._name(token) for token in (*prompt, *generated)]
        offsets = []
        for name in names:
            offsets.append(offset)
            offset += len(name)
        tops: list[Json | None] = [*map(self._unlikely, prompt), *map(self._likely, generated)]
        if prompt:
            tops[0] = None
        values = [None if top is None else next(iter(top.values())) for top in tops]
        return {"text_offset": offsets, "token_logprobs": values, "tokens": names, "top_logprobs": tops}

    def prompt(self, tokens: list[int]) -> list[Json | None]:
        """`prompt_logprobs`: nothing for the first token, then the token and the likelier ones, by id."""
        return [None, *map(self._ranked, tokens[1:])]

    def _ranked(self, token: int) -> Json:
        ranks = {token: self._tops + 1} | {self._other(token, rank): rank for rank in range(1, self._tops + 1)}
        return {
            str(other): {"logprob": -float(rank), "rank": rank, "decoded_token": self._tokenizer.text(other)}
            for other, rank in ranks.items()
        }

    def _likely(self, token: int) -> Json:
        return {self._name(other): value for other, value in self._alternatives(token, max(self._tops, 1))}

    def _unlikely(self, token: int) -> Json:
        """A token of the prompt, which no model would have said: the likeliest ones come after it."""
        others = {self._name(self._other(token, rank)): -float(rank) for rank in range(1, self._tops + 1)}
        return {self._name(token): -float(self._tops + 1)} | others

    def _other(self, token: int, rank: int) -> int:
        return (token + 7 * rank) % len(self._tokenizer)

    def _alternatives(self, token: int, count: int) -> Iterator[tuple[int, float]]:
        """The token itself is always the likeliest."""
        value = self._value(token)
        for rank in range(count):
            yield self._other(token, rank), value - rank

    @staticmethod
    def _value(token: int) -> float:
        return -0.25 - (token % 8) / 8

    def _name(self, token: int) -> str:
        return f"token_id:{token}" if self._as_token_ids else self._tokenizer.text(token)
