# SPDX-License-Identifier: Apache-2.0
"""What goes wrong, drawn by chance, several at a time: requests, networks, processes, the configuration, the load."""

from __future__ import annotations

import asyncio
import copy
import json
import signal
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc

from llm_gateway.simulator import Behaviour, Fault
from llm_gateway.v1 import admin_service_pb2, admin_service_pb2_grpc
from tests.kit.proxy import BLACKHOLE, GOOD, RESET, Cut, Line

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Coroutine, Iterator

    from tests.chaos.callers import Callers
    from tests.chaos.stage import Stage
    from tests.kit.proxy import Proxy

LONGEST = 3.0
"""Seconds that a trouble lasts at most."""
STATUSES = (400, 401, 404, 429, 500, 502, 503, 503, 529)
BURST = 10
ANSWERED_IN = 5.0
"""Seconds in which the operator gets an answer, whatever the load."""


class Trouble:
    """Makes trouble until it is told to stop, and then puts everything right again.

    `counts` is what was done by kind. `load` is how many times the usual number of calls is to come.
    """

    def __init__(self, stage: Stage, callers: Callers, admin: grpc.aio.Channel) -> None:
        self._stage = stage
        self._callers = callers
        self._admin = admin_service_pb2_grpc.AdminServiceStub(admin)
        self._taken: set[str] = set()
        self._due: dict[str, int] = {}
        self._over = asyncio.Event()
        self.counts: Counter[str] = Counter()
        self.load = 1
        self.violations: list[str] = []

    async def request(self, chance: random.Random) -> None:
        """Let a fault strike one of the next requests, unless the one of before has not struck yet."""
        name = chance.choice(sorted(self._stage.simulators))
        behaviour = fault(chance)
        simulator = self._stage.simulators[name]
        seen = (await simulator.statistics()).get("requests_seen")
        if seen is not None and seen >= self._due.get(name, 0):
            self._due[name] = seen + 1
            self.counts[f"request {behaviour.fault}"] += 1
            await simulator.script(behaviour)

    async def go_on(self, chances: Iterator[random.Random], pause: float) -> None:
        """Make trouble, again and again, until told to stop; `pause` seconds are between two on average."""
        self._over.clear()
        kinds: list[Callable[[random.Random], Coroutine[Any, Any, None]]] = [
            *(self._network,) * 5,
            *(self._process,) * 3,
            *(self._configuration,) * 2,
            self._burst,
            *(self._operator,) * 2,
        ]
        async with asyncio.TaskGroup() as group:
            for chance in chances:
                await self._last(chance.expovariate(1 / pause))
                if self._over.is_set():
                    break
                group.create_task(chance.choice(kinds)(chance))

    def stop(self) -> None:
        """No more trouble; what there is ends now."""
        self._over.set()

    async def heal(self) -> None:
        """Put right what is not right of itself now."""
        for outside in self._stage.outside.values():
            outside.send(signal.SIGCONT)
            await outside.start()
        for proxy in self._stage.proxies.values():
            await _mend(proxy)
            proxy.cut_all()  # what is silent would stay so
        self._stage.config.swap(self._stage.config.right)

    # --------------------------------------------------------------------------------------------------------- kinds

    async def _network(self, chance: random.Random) -> None:
        name, seconds = chance.choice(sorted(self._stage.proxies)), chance.uniform(0.1, LONGEST)
        kind = chance.choice(("refuse", "hold", "cut_all", "blackhole", "reset", "delay", "throttle", *Cut))
        after, cut = chance.randint(1, 6000), chance.choice((Cut.RESET, Cut.CLOSE))
        proxy = self._stage.proxies[name]
        if not self._take(name):
            return
        self.counts[f"network {kind}"] += 1
        try:
            if kind == "refuse":
                proxy.refuse()
            elif kind == "hold":
                proxy.hold()
            elif kind == "cut_all":
                proxy.cut_all(cut)
            else:
                proxy.line = _line(kind, after)
                if chance.random() < 0.5:
                    proxy.cut_all(cut)  # for the connections that there are are as they were
            await self._last(seconds)
        finally:
            await _mend(proxy)
            self._taken.discard(name)

    async def _process(self, chance: random.Random) -> None:
        kind = chance.choice(("kill", "freeze", "dead engine", "loading"))
        seconds = chance.uniform(0.1, LONGEST)
        if kind in {"dead engine", "loading"}:
            await self._engine(kind, chance.choice(sorted(self._stage.inside)), seconds)
            return
        name = chance.choice(sorted(self._stage.outside))
        outside = self._stage.outside[name]
        if not self._take(f"process {name}"):
            return
        self.counts[f"process {kind}"] += 1
        try:
            if kind == "kill":
                await outside.kill()
                self._due.pop(name, None)
            else:
                outside.send(signal.SIGSTOP)
            await self._last(seconds)
        finally:
            if kind == "kill":
                await outside.start()
            else:
                outside.send(signal.SIGCONT)
            self._taken.discard(f"process {name}")

    async def _engine(self, kind: str, name: str, seconds: float) -> None:
        simulator = self._stage.inside[name].simulator
        self.counts[f"process {kind}"] += 1
        try:
            simulator.healthy, simulator.loading = kind == "loading", kind == "loading"
            await self._last(seconds)
        finally:
            simulator.healthy, simulator.loading = True, False

    async def _configuration(self, chance: random.Random) -> None:
        kind, seconds = chance.choice(("valid", "valid", "invalid", "half written")), chance.uniform(0.2, LONGEST)
        config = self._stage.config
        changed = json.dumps({"models": changed_models(config.models(), chance, self._stage.proxies["e"].url)})
        broken = chance.choice(
            (changed[: len(changed) // 2], changed.replace("backends", "backend", 1), "models: []", "")
        )
        in_place = chance.random() < 0.5
        if not self._take("configuration"):
            return
        self.counts[f"configuration {kind}"] += 1
        try:
            put = config.write if in_place else config.swap
            if kind == "half written":
                config.write(changed[: chance.randrange(len(changed))])
                await asyncio.sleep(chance.uniform(0, 0.3))
                config.write(changed)
            else:
                put(changed if kind == "valid" else broken)
            await self._last(seconds)
        finally:
            config.swap(config.right)
            self._taken.discard("configuration")

    async def _burst(self, chance: random.Random) -> None:
        seconds = chance.uniform(0.3, 1.5)
        if not self._take("load"):
            return
        self.counts["load burst"] += 1
        try:
            self.load = BURST
            await self._last(seconds)
        finally:
            self.load = 1
            self._taken.discard("load")

    async def _operator(self, chance: random.Random) -> None:
        try:
            running = (
                await self._admin.GetStatus(admin_service_pb2.GetStatusRequest(), timeout=ANSWERED_IN)
            ).status.calls
            if not running:
                return
            request_id = chance.choice([call.request_id for call in running])
            self._callers.stopped.add(request_id)
            request = admin_service_pb2.CancelStreamRequest(request_id=request_id)
            await self._admin.CancelStream(request, timeout=ANSWERED_IN)
            self.counts["operator cancel"] += 1
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:  # it has ended meanwhile
                self.violations.append(f"operator: the gateway does not answer: {error}")

    async def _last(self, seconds: float) -> None:
        """Wait so long, or until all trouble is to end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()

    def _take(self, target: str) -> bool:
        """Whether nobody else makes trouble there."""
        if target in self._taken:
            return False
        self._taken.add(target)
        return True


def fault(chance: random.Random) -> Behaviour:
    """What befalls one request; its text stays what the prompt asks for."""
    kind = chance.choice(list(Fault))
    seconds = chance.choice((0.02, 0.2, chance.uniform(0.3, 2), 5.0))
    status = chance.choice(STATUSES)
    headers = {"retry-after": chance.choice(("0.1", "1", "soon"))} if kind is Fault.HTTP and status > 401 else None
    after = chance.choice((0, 0, 1, chance.randint(2, 30)))
    return Behaviour(fault=kind, after=after, seconds=seconds, status=status, headers=headers)


def changed_models(models: list[dict[str, Any]], chance: random.Random, other_url: str) -> list[dict[str, Any]]:
    """Another right configuration: the same models, somewhat different."""
    models = copy.deepcopy(models)
    many, alone, hedged = models
    chance.choice(_changes(many, alone, hedged, other_url))(chance)
    if chance.random() < 0.2:  # the order means nothing
        models.reverse()
    return models


def _changes(
    many: dict[str, Any], alone: dict[str, Any], hedged: dict[str, Any], other_url: str
) -> list[Callable[[random.Random], object]]:
    backends: list[dict[str, Any]] = many["backends"]
    added = backends[1] | {"name": "x", "url": other_url}
    return [
        lambda chance: backends.pop(chance.randrange(len(backends))),
        lambda chance: backends.insert(chance.randrange(len(backends)), added),
        lambda chance: [backend.update(weight=chance.randint(0, 5)) for backend in backends[1:]],
        lambda chance: many.update(balancing=chance.choice(("session", "prefix"))),
        lambda chance: [model.update(max_in_flight=chance.randint(1, 10)) for model in (many, alone)],
        lambda _: backends[0].update(url=backends[0]["url"][0]),
        lambda chance: hedged.update(hedge_after_ms=chance.randint(1, 500)),
        lambda chance: alone["backends"][0].update(timeouts={"first_token_ms": chance.randint(50, 500)}),
    ]


def _line(kind: str, after: int) -> Line:
    if kind == "delay":
        return Line(delay=0.1)
    if kind == "throttle":
        return Line(bytes_per_second=4000)
    if kind in {"blackhole", "reset"}:
        return BLACKHOLE if kind == "blackhole" else RESET
    return Line(cut=Cut(kind), after=after)


async def _mend(proxy: Proxy) -> None:
    proxy.line = GOOD
    proxy.let_go()
    if not proxy.listens:
        await proxy.accept()
