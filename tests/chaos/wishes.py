# SPDX-License-Identifier: Apache-2.0
"""What a caller asks and does, drawn by chance; and what the backends are to send it, whatever happens on the way."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from llm_gateway.simulator import Behaviour
from llm_gateway.simulator.replies import Kind, Limits, Planner, Script
from llm_gateway.simulator.story import Story
from llm_gateway.simulator.tokenizer import Tokenizer

if TYPE_CHECKING:
    import random

CANARY = "canary"
"""In every prompt and in the backends' key: it must be seen nowhere but in answers."""
CONTEXT = 8192
LONGEST = 10.0
"""TIMEOUT_MS in seconds: whoever has no deadline has this one."""
SIGNS = ("ä", "é", "Ω", "火", "🌍", "👩‍🚀")
"""Characters of two bytes and more, which tokens and reads may cut in half."""


class Rpc(Enum):
    """How an answer is asked for."""

    CHAT_STREAM = "ChatCompletionStream"
    CHAT = "ChatCompletion"
    GENERATE_STREAM = "StreamGenerate"
    GENERATE = "Generate"

    @property
    def streams(self) -> bool:
        """Whether the answer comes in pieces."""
        return self in {Rpc.CHAT_STREAM, Rpc.GENERATE_STREAM}

    @property
    def chats(self) -> bool:
        """Whether it is asked for with messages."""
        return self in {Rpc.CHAT_STREAM, Rpc.CHAT}


@dataclass(frozen=True, slots=True)
class Promise:
    """What the backends are to send: the text of each choice, why each ends, and how many tokens all have together."""

    texts: tuple[str, ...]
    finishes: tuple[str, ...]
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One call: what it asks, and what its caller does. Times are in seconds; None: never, or without."""

    request_id: str
    model: str
    prompt: str
    promise: Promise
    rpc: Rpc = Rpc.CHAT_STREAM
    raw: bool = False
    params: dict[str, Any] = field(default_factory=dict)
    timeout: float | None = None
    time_limit: float | None = None
    leaves_after: float | None = None
    pause: float = 0.0
    """Between two reads."""
    flush_interval: float = 0.0
    batch: bool = False
    session: str | None = None

    @property
    def limit(self) -> float:
        """When the call has ended at the latest."""
        return min(self.timeout or LONGEST, LONGEST)


class Wisher:
    """Draws calls; the same seed and number give the same one."""

    def __init__(self, models: tuple[str, ...]) -> None:
        self._models = models
        self._tokenizer = Tokenizer()
        self._planner = Planner(self._tokenizer, Story(self._tokenizer), default_tokens=60)

    def plain(self, request_id: str, model: str) -> Wish:
        """A call without any oddity, which sees whether a backend serves."""
        text = f"{CANARY} {request_id}"
        promise = self.promise(Behaviour(text=text), n=1)
        return Wish(request_id=request_id, model=model, prompt=_prompt({"text": text}), promise=promise, timeout=5.0)

    def wish(self, request_id: str, chance: random.Random) -> Wish:
        """The call of this name."""
        params: dict[str, Any] = {}
        if chance.random() < 0.15:
            params["n"] = 2
        if chance.random() < 0.2:
            params["max_tokens"] = chance.randint(1, 40)
        said: dict[str, Any] = {"ttft_ms": chance.choice((0, 5, 30, 200)), "pace_ms": chance.choice((0, 2, 5, 10))}
        if chance.random() < 0.25:
            params["seed"] = chance.randrange(100)
            said["tokens"] = chance.randint(1, 60)
        else:
            said["text"] = _own_text(request_id, chance)
        behaviour = Behaviour(text=said.get("text"), tokens=said.get("tokens"))
        return Wish(
            request_id=request_id,
            model=chance.choice(self._models),
            prompt=_prompt(said),
            promise=self.promise(behaviour, **({"n": 1} | params)),
            rpc=chance.choice((Rpc.CHAT_STREAM, Rpc.CHAT_STREAM, *Rpc)),
            raw=chance.random() < 0.5,
            params=params,
            **_manners(chance),
        )

    def promise(self, behaviour: Behaviour, *, n: int, seed: int = 0, max_tokens: int = CONTEXT) -> Promise:
        """What the simulator plans for such a request: its own planner says it."""
        script = Script() if behaviour.text is None else Script([(Kind.TEXT, behaviour.text, 0)])
        limits = Limits(max_tokens=max_tokens, seed=seed)
        replies = [self._planner.plan(index, script, limits, behaviour) for index in range(n)]
        return Promise(
            tuple(reply.joined(Kind.TEXT) for reply in replies),
            tuple(reply.finish_reason.upper() for reply in replies),
            sum(len(reply.tokens()) for reply in replies),
        )


def _own_text(request_id: str, chance: random.Random) -> str:
    """A text of which every word is one call's own, at its own place."""
    words = (f"{request_id}w{place}{chance.choice(SIGNS)}" for place in range(chance.randint(1, 12)))
    return f"{CANARY} " + " ".join(words)


def _prompt(said: dict[str, Any]) -> str:
    words = " ".join(f"{name}={json.dumps(str(value), ensure_ascii=False)}" for name, value in said.items())
    return f"{CANARY}-prompt [[sim {words}]]"


def _manners(chance: random.Random) -> dict[str, Any]:
    """What a caller does beside asking: most just read, within a deadline that is ample."""
    manners: dict[str, Any] = {
        "timeout": chance.choice((None, 5.0, 5.0, 5.0, chance.uniform(0.2, 1.5), chance.uniform(0.002, 0.2))),
        "batch": chance.random() < 0.3,
        "session": f"session-{chance.randrange(8)}" if chance.random() < 0.3 else None,
    }
    odd = chance.random()
    if odd < 0.12:
        manners["leaves_after"] = chance.choice((0.0, chance.uniform(0, 0.1), chance.uniform(0, 1)))
    elif odd < 0.2:
        manners["time_limit"] = chance.uniform(0.01, 0.6)
    elif odd < 0.28:
        manners["pause"] = chance.uniform(0.005, 0.05)
    elif odd < 0.36:
        manners["flush_interval"] = chance.uniform(0.005, 0.2)
    return manners
