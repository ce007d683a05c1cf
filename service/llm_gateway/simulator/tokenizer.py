# SPDX-License-Identifier: Apache-2.0
"""A byte-level BPE over 512 tokens, so that prompts are counted in tokens exactly as the recorded vLLM counted them."""

from __future__ import annotations

import codecs
import itertools
import json
import re
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

END_OF_TEXT, START, END = 0, 1, 2
"""Token ids of <|endoftext|>, <|im_start|> and <|im_end|>, which ends a reply."""

# GPT-2's split; Python's re knows no \p{L}, so a letter is a word character that is neither a digit nor "_".
_WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")
_CACHED_WORDS = 10_000


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in for each byte."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + i): byte for i, byte in enumerate(others)}


class Tokenizer:
    """Text to token ids and back."""

    def __init__(self) -> None:
        data = json.loads(files("llm_gateway.simulator").joinpath("tokenizer.json").read_text("utf-8"))
        self.names: list[str] = data["tokens"]
        """By token id, in the byte alphabet: what `/tokenize` shows as token_strs."""
        self._bytes_of_char = _byte_alphabet()
        self._char_of_byte = {byte: char for char, byte in self._bytes_of_char.items()}
        self._ids = {name: i for i, name in enumerate(self.names)}
        self._special = {name: i for i, name in enumerate(self.names[: END + 1])}
        self._special_split = re.compile("(" + "|".join(map(re.escape, self._special)) + ")")
        self._ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(data["merges"])}
        self._bytes = [self._spell(i) for i in range(len(self.names))]
        self._words: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return len(self.names)

    def _spell(self, token: int) -> bytes:
        name = self.names[token]
        return name.encode() if token <= END else bytes(self._bytes_of_char[char] for char in name)

    def encode(self, text: str, limit: int | None = None) -> list[int]:
        """The token ids of `text`, not many more than `limit`; special tokens count where they are spelled out."""
        ids: list[int] = []
        for part in self._special_split.split(text):
            if part in self._special:
                ids.append(self._special[part])
                continue
            for word in _WORDS.finditer(part):
                ids += self._word(word.group())
                if limit is not None and len(ids) > limit:
                    return ids
        return ids

    def _word(self, word: str) -> list[int]:
        ids = self._words.get(word)
        if ids is None:
            pieces = self._merge([self._char_of_byte[byte] for byte in word.encode("utf-8", "surrogatepass")])
            ids = [self._ids[piece] for piece in pieces]
            if len(self._words) < _CACHED_WORDS:
                self._words[word] = ids
        return ids

    def _merge(self, pieces: list[str]) -> list[str]:
        while len(pieces) > 1:
            pairs = list(itertools.pairwise(pieces))
            best = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            merged: list[str] = []
            i = 0
            while i < len(pieces):
                joined = tuple(pieces[i : i + 2]) == best
                merged.append("".join(best) if joined else pieces[i])
                i += 2 if joined else 1
            pieces = merged
        return pieces

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """The text of `ids`, U+FFFD for broken UTF-8, "" for unknown ids; special tokens only if wanted."""
        least, most = (0 if special else END + 1), len(self._bytes)
        return b"".join(self._bytes[i] for i in ids if least <= i < most).decode("utf-8", "replace")

    def text(self, token: int) -> str:
        """One token's text on its own, as logprobs show it."""
        return self._bytes[token].decode("utf-8", "replace")

    def pieces(self, ids: Iterable[int]) -> Iterator[str]:
        """What each token adds to the text: "" as long as a character is incomplete, U+FFFD where it stays broken."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for token in ids:
            yield decoder.decode(self._bytes[token]) if token > END else ""
