# SPDX-License-Identifier: Apache-2.0
"""What callers see while a real vLLM is harmed and another one stands by: a harm is done once, and told by many tests.

The two have the same model, so that one answer tells of each delivered text whether it is a prefix.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.faults.matrix import attempts_of
from tests.kit.calls import read_stream
from tests.kit.gateway import start_gateway, start_gateway_of
from tests.vllm.asking import GREEDY, TOKENS, story, until_running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.kit.calls import Outcome
    from tests.kit.gateway import RunningGateway
    from tests.vllm.server import OwnVllm, Part, Vllm

MODEL, VICTIM, STAND_IN = "tiny", "victim", "stand-in"
SHORT, MEDIUM = 32, 1000
"""Tokens of an answer that is there in a moment, and in some seconds."""
DEADLINE = 60.0
CROWD = 8
IDLE_MS = 3_000
UNTIL_EJECTED = 8
"""More calls in a row than a backend may fail."""
BACK_SECONDS = 15.0
"""In which a backend that has recovered gets calls again, with the settings' defaults."""
LOADING_PAUSE = 0.5


class Begun:
    """An answer on its way."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._rest = aiter(call)
        self._seen: list[Any] = []

    async def some(self) -> None:
        """Read some deltas, so that it is in the midst."""
        for _ in range(5):
            self._seen.append(await anext(self._rest))

    async def end(self) -> Outcome:
        """Read the rest."""
        return await read_stream(self._call, self._seen, self._rest)


@dataclass(frozen=True, slots=True)
class Asked:
    """The servers behind a gateway, and the `whole` answer of either to the question that is asked."""

    victim: OwnVllm
    stand_in: Vllm
    whole: str

    async def well(self) -> None:
        """Have the victim well and idle, whatever was done to it."""
        await asyncio.to_thread(self.victim.revive)
        await until_running(self.victim.vllm, 0)

    def begin(self, gateway: RunningGateway, tokens: int = SHORT, timeout: float = DEADLINE) -> Begun:
        """Begin an answer of which every token is known."""
        request = story(max_tokens=tokens, ignore_eos=True, **GREEDY)
        return Begun(gateway.stub.ChatCompletionStream(request, timeout=timeout))

    async def answer(self, gateway: RunningGateway, tokens: int = SHORT, timeout: float = DEADLINE) -> Outcome:  # noqa: ASYNC109 - the call's deadline
        """Such an answer to its end."""
        return await self.begin(gateway, tokens, timeout).end()


@dataclass(slots=True)
class History:
    """What callers saw of one harm."""

    running: list[Outcome] = field(default_factory=list)
    """Of those whose answer the victim was streaming."""
    waiting: list[Outcome] = field(default_factory=list)
    """Of those who waited in the victim for their first token."""
    new: list[Outcome] = field(default_factory=list)
    """Of those who came while the victim was not well."""
    alone: list[Outcome] = field(default_factory=list)
    """Of those who came meanwhile to a gateway that has nothing but the victim."""
    back: list[Outcome] = field(default_factory=list)
    """Of those whom the victim served when it was well again, within BACK_SECONDS."""
    exit_code: int | None = None
    """Of the victim's API process."""


class Histories:
    """The histories that have been made; the harm of one that was not is done now."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._told: dict[str, History] = {}

    async def of(self, harm: str, do: Callable[[Asked], Awaitable[History]]) -> History:
        """The history of a harm."""
        if harm not in self._told:
            await self._asked.well()
            self._told[harm] = await do(self._asked)
        return self._told[harm]


async def killed(asked: Asked, number: signal.Signals, part: Part) -> History:
    """A signal ends one of the victim's processes."""
    history = History()
    async with two(asked, timeouts={"idle_ms": IDLE_MS}) as gateway, _one_of_each(gateway, asked, history):
        asked.victim.send(number, part)
        history.new = [await asked.answer(gateway) for _ in range(UNTIL_EJECTED)]
    history.exit_code = await asyncio.to_thread(asked.victim.exit_code)
    return history


async def frozen(asked: Asked, part: Part, first_token_ms: int) -> History:
    """One of the victim's processes stands still until it is ejected, and then goes on."""
    history = History()
    async with two(asked, timeouts={"idle_ms": IDLE_MS, "first_token_ms": first_token_ms}) as gateway:
        async with _one_of_each(gateway, asked, history):
            asked.victim.send(signal.SIGSTOP, part)
        while attempts_of((history.new or history.waiting)[-1])[0] != (STAND_IN, ""):
            history.new += await asyncio.gather(*(asked.answer(gateway) for _ in range(3)))
        asked.victim.send(signal.SIGCONT, part)
        await _until_back(gateway, asked, history)
        await until_running(asked.victim.vllm, 0)
    return history


async def restarted(asked: Asked) -> History:
    """The victim is killed under a crowd that is shared by the two, and starts again on the same port."""
    history = History()
    async with two(asked, equal=True) as gateway, start_gateway(asked.victim.vllm.url) as lonely:
        await asked.answer(lonely)
        async with asyncio.TaskGroup() as group:
            crowd = [group.create_task(asked.answer(gateway, MEDIUM)) for _ in range(CROWD)]
            await until_running(asked.victim.vllm, 1, waiting=CROWD // 2 - 1)
            asked.victim.kill()
        history.running = [task.result() for task in crowd]
        asked.victim.start()
        loading = asyncio.create_task(asyncio.to_thread(asked.victim.wait_until_healthy))
        while not loading.done():
            history.new.append(await asked.answer(gateway))
            history.alone.append(await asked.answer(lonely, timeout=10))
            await asyncio.sleep(LOADING_PAUSE)
        await loading
        await asyncio.gather(_until_back(gateway, asked, history), _until_answered(lonely, asked, history))
    return history


@asynccontextmanager
async def two(asked: Asked, *, equal: bool = False, **settings: Any) -> AsyncIterator[RunningGateway]:
    """A gateway whose calls go to the victim as long as it is well, or to the `equal` one that is less busy."""
    backends = [
        {"name": VICTIM, "dialect": "vllm", "url": asked.victim.vllm.url},
        {"name": STAND_IN, "dialect": "vllm", "url": asked.stand_in.url, "priority": 0 if equal else 1},
    ]
    async with start_gateway_of([{"name": MODEL, "backends": backends}], **settings) as gateway:
        yield gateway


@asynccontextmanager
async def _one_of_each(gateway: RunningGateway, asked: Asked, history: History) -> AsyncIterator[None]:
    """One caller whose answer is being streamed and one who waits for the first token; the block harms the victim."""
    running = asked.begin(gateway, TOKENS)
    await running.some()
    waiting = asked.begin(gateway)
    await until_running(asked.victim.vllm, 1, waiting=1)
    yield
    cut, rescued = await asyncio.gather(running.end(), waiting.end())
    history.running, history.waiting = [cut], [rescued]


async def _until_back(gateway: RunningGateway, asked: Asked, history: History) -> None:
    """Call until the victim serves."""
    async with asyncio.timeout(BACK_SECONDS):
        while (outcome := await asked.answer(gateway)).started.backend != VICTIM:
            history.new.append(outcome)
    history.back.append(outcome)


async def _until_answered(gateway: RunningGateway, asked: Asked, history: History) -> None:
    """Call until there is an answer."""
    async with asyncio.timeout(BACK_SECONDS):
        while (outcome := await asked.answer(gateway)).failure is not None:
            history.alone.append(outcome)
            await asyncio.sleep(LOADING_PAUSE)
    history.back.append(outcome)
