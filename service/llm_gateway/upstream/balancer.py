# SPDX-License-Identifier: Apache-2.0
"""Which of several endpoints gets a call: the one with less to do, or always the same one for a session or a prefix."""

from __future__ import annotations

import math
import random
import struct
from bisect import bisect
from hashlib import blake2b, shake_128
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Protocol, TypeVar

from llm_gateway.generation import ImagePart, MediaPart, TextPart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from llm_gateway.generation import Generation, Message

PREFIX_LENGTH = 1024
"""Characters of a prompt that tell where it goes: more than most system prompts share, less than a document."""


class Candidate(Protocol):
    """What a balancer sees of an endpoint. The name is its own among the candidates; `weight` is at least 1."""

    @property
    def name(self) -> str: ...

    @property
    def weight(self) -> int: ...

    @property
    def load(self) -> float:
        """The work outstanding on it, about 1 for a call."""


C = TypeVar("C", bound=Candidate)


class Balancer(Protocol):
    """A way to choose.

    What it knows of the candidates it keeps for as long as it is given the same object: so give another one when
    anything but their load has changed, and only then.
    """

    def pick(self, candidates: Sequence[C], key: bytes | None) -> C:
        """Choose one of at least one; `key` is what belongs together."""


class LeastLoad:
    """Power of two choices: of two, drawn at random in proportion to their weight, the one with less to do for it.

    Nearly as even as the least of all, at the price of two; and many gateways that see the same numbers do not all run
    to the same endpoint.
    """

    def __init__(self, *, uniform: Callable[[], float] = random.random) -> None:
        self._uniform = uniform
        self._candidates: Sequence[Candidate] = ()
        self._weights: list[int] = []
        self._edges: list[int] = []
        self._last = 0

    def pick(self, candidates: Sequence[C], key: bytes | None = None) -> C:
        """Choose one; the key means nothing here."""
        if candidates is not self._candidates:
            self._learn(candidates)
        last = self._last
        if not last:
            return candidates[0]
        edges, weights, uniform = self._edges, self._weights, self._uniform
        drawn = bisect(edges, uniform() * edges[last], 0, last)
        weight = weights[drawn]
        # The second is drawn from what is left when the first is cut out of the line.
        point = uniform() * (edges[last] - weight)
        if point >= edges[drawn] - weight:
            point += weight
        other = bisect(edges, point, 0, last)
        first, second = candidates[drawn], candidates[other]
        return second if (second.load + 1) * weight < (first.load + 1) * weights[other] else first

    def _learn(self, candidates: Sequence[Candidate]) -> None:
        self._candidates = candidates
        self._weights = [candidate.weight for candidate in candidates]
        self._edges = list(accumulate(self._weights))
        self._last = len(candidates) - 1


class BoundedHash:
    """Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2018).

    A key goes to the endpoint that follows it on a ring, unless that has more than `factor` times its share of all that
    is outstanding: then on to the next. So nobody is hot, and when an endpoint leaves only its own keys move. Less than
    `slack` outstanding is never too much: else, in a quiet hour, two calls at once of one session would be torn apart.
    """

    def __init__(
        self, *, factor: float = 1.25, slack: float = 4.0, uniform: Callable[[], float] = random.random
    ) -> None:
        self._factor = factor
        self._slack = slack
        self._least_load = LeastLoad(uniform=uniform)
        self._ring = _Ring()
        self._candidates: Sequence[Candidate] = ()
        self._places: dict[str, int] = {}
        self._shares: list[float] = []

    def pick(self, candidates: Sequence[C], key: bytes | None) -> C:
        """Choose the one of a key; the one with less to do where there is no key."""
        if key is None or len(candidates) == 1:
            return self._least_load.pick(candidates)
        if candidates is not self._candidates:
            self._learn(candidates)
        names = self._ring.after(key)
        places = self._places
        for name in names:
            if name in places:
                preferred = candidates[places[name]]
                if preferred.load < self._slack:
                    return preferred
                return candidates[self._below_bound([c.load for c in candidates], chain((name,), names))]
        raise AssertionError("every candidate is on the ring")

    def _below_bound(self, loads: list[float], names: Iterator[str]) -> int:
        """The first whose load is in bounds. There is one: not all can be above their share of the whole."""
        places, shares = self._places, self._shares
        whole = self._factor * (sum(loads) + 1)
        return next(
            place
            for name in names
            if (place := places.get(name, -1)) >= 0
            and (loads[place] < self._slack or loads[place] < math.ceil(whole * shares[place]))
        )

    def _learn(self, candidates: Sequence[Candidate]) -> None:
        whole = sum(candidate.weight for candidate in candidates)
        self._candidates = candidates
        self._places = {candidate.name: place for place, candidate in enumerate(candidates)}
        self._shares = [candidate.weight / whole for candidate in candidates]
        self._ring.hold({candidate.name: candidate.weight for candidate in candidates})


class _Ring:
    """Names at many points each, more for a higher weight.

    It is dear to build. So those that are gone stay on it, to be passed over, until they are the most: an endpoint that
    is ejected, or left out of one choice, comes back.
    """

    POINTS = 100
    """Of the least weight. The shares are even to about 10 %."""
    MOST_POINTS = 2000

    __slots__ = ("_names", "_points", "_weights")

    def __init__(self) -> None:
        self._weights: dict[str, int] = {}
        self._points: list[int] = []
        self._names: list[str] = []

    def hold(self, weights: dict[str, int]) -> None:
        """Make sure that these are on it."""
        if weights.items() <= self._weights.items():
            return
        everybody = self._weights | weights
        self._weights = everybody if len(everybody) <= 2 * len(weights) else weights
        scale = min(self.POINTS / min(self._weights.values()), self.MOST_POINTS / max(self._weights.values()))
        owners: dict[int, str] = {}
        for name, weight in self._weights.items():
            owners.update(dict.fromkeys(_points(name, max(1, round(scale * weight))), name))
        self._points = sorted(owners)
        self._names = [owners[point] for point in self._points]

    def after(self, key: bytes) -> Iterator[str]:
        """The names from a key's place on, once around, each as often as it has points."""
        names = self._names
        start = bisect(self._points, int.from_bytes(blake2b(key, digest_size=8).digest(), "little"))
        for place in range(start, len(names)):
            yield names[place]
        for place in range(start):
            yield names[place]


def _points(name: str, count: int) -> tuple[int, ...]:
    """The same for a name in every process; the first ones are the same for every count."""
    return struct.unpack(f"<{count}Q", shake_128(name.encode()).digest(8 * count))


def prefix_key(generation: Generation) -> bytes | None:
    """The beginning of a prompt, so that those who share it share a backend's cache; None where it has no text.

    Of a conversation that is what stands before the first turn, and that turn: it stays the same while the conversation
    goes on. What is salted differently shares no cache.
    """
    texts = (generation.prompt,) if generation.prompt is not None else _opening(generation.messages)
    prefix = "\0".join(texts)[:PREFIX_LENGTH]
    return f"{generation.cache_salt or ''}\0{prefix}".encode() if prefix.strip("\0") else None


def _opening(messages: Sequence[Message]) -> Iterator[str]:
    """The texts up to the first turn."""
    for message in messages:
        content = message.content
        if isinstance(content, str):
            yield content[:PREFIX_LENGTH]
        elif content:
            yield from (_text(part)[:PREFIX_LENGTH] for part in content)
        if message.role not in {"system", "developer"}:
            return


def _text(part: object) -> str:
    if isinstance(part, TextPart):
        return part.text
    return part.url if isinstance(part, ImagePart | MediaPart) else ""
