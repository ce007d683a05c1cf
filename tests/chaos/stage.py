# SPDX-License-Identifier: Apache-2.0
"""The stage: simulated vLLMs in this process and in others, proxies before them, and a gateway in front of all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from llm_gateway.simulator import Behaviour, Options, Simulator
from tests.chaos.wishes import CANARY, CONTEXT, LONGEST
from tests.kit.gateway import NO_BACKEND
from tests.kit.processes import LISTENING, GatewayProcess, SimulatorProcess, simulator_process, starting_gateway
from tests.kit.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

KEY = f"{CANARY}-key"
OWN_NAME = "sim"
MODELS = ("many", "alone", "hedged")
FLAGS = ("--api-key", KEY, "--max-model-len", str(CONTEXT))
ASKED_IN = 1.0
"""Seconds in which a simulator of another process answers what is asked of it, unless it is frozen."""

SETTINGS = {
    "TIMEOUT_MS": str(int(LONGEST * 1000)),
    "LOG_LEVEL": "info",
    "ADMIN__ENABLED": "true",
    "ADMIN__PORT": "0",
    "METRICS__ENABLED": "true",
    "METRICS__HOST": "127.0.0.1",
    "METRICS__PORT": "0",
    "SERVER__DRAIN_DELAY_MS": "0",
    "SERVER__DRAIN_GRACE_MS": "5000",
    "SERVER__MAX_STALL_MS": "2000",
    "ADMISSION__MAX_IN_FLIGHT": "48",
    "ADMISSION__MAX_QUEUED": "48",
    "ADMISSION__MAX_WAIT_MS": "1500",
    "TIMEOUTS__CONNECT_MS": "300",
    "TIMEOUTS__FIRST_TOKEN_MS": "1200",
    "TIMEOUTS__IDLE_MS": "800",
    "TIMEOUTS__USAGE_MS": "400",
    "RETRY__BACKOFF_MS": "20",
    "RETRY__MAX_BACKOFF_MS": "200",
    "EJECTION__BASE_MS": "300",
    "EJECTION__LONGEST_MS": "2000",
    "HEALTH__PROBE_INTERVAL_MS": "400",
    "HEALTH__PROBE_TIMEOUT_MS": "400",
    "HEALTH__LOAD_INTERVAL_MS": "300",
    "CONFIG_POLL_INTERVAL_MS": "150",
}
"""The gateway's, its timers scaled down so that each of them runs out many times in a minute."""


class Inside:
    """A simulated vLLM in this process."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator

    async def script(self, behaviour: Behaviour) -> None:
        """Have the next request get this."""
        self.simulator.script(behaviour)

    async def statistics(self) -> Mapping[str, Any]:
        """The counts of this moment."""
        now = self.simulator.statistics()
        return {name: getattr(now, name) for name in ("requests_seen", "running", "waiting", "faults")}


class Outside:
    """A simulated vLLM in a process of its own, which can be killed and started again on its port, and frozen."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._process: SimulatorProcess | None = None
        self.url = ""

    async def start(self) -> None:
        """Start it, unless it runs."""
        if self._process is None:
            port = int(self.url.rpartition(":")[2]) if self.url else 0
            self._process = await self._stack.enter_async_context(simulator_process(*FLAGS, port=port))
            self.url = self._process.url

    async def kill(self) -> None:
        """SIGKILL."""
        process, self._process = self._process, None
        if process is not None:
            process.send(signal.SIGKILL)
            await self._stack.aclose()

    def send(self, number: signal.Signals) -> None:
        """Freeze it with SIGSTOP, let it go on with SIGCONT."""
        if self._process is not None:
            self._process.send(number)

    async def script(self, behaviour: Behaviour) -> None:
        """Have the next request get this, if it can be told."""
        said = {name: getattr(behaviour, name) for name in ("fault", "after", "status", "seconds", "headers")}
        with contextlib.suppress(TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout(ASKED_IN):
                if self._process is not None:
                    await self._process.script({name: value for name, value in said.items() if value is not None})

    async def statistics(self) -> Mapping[str, Any]:
        """The counts of this moment; nothing where it does not answer."""
        with contextlib.suppress(TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout(ASKED_IN):
                if self._process is not None:
                    return await self._process.statistics()
        return {}


class ConfigFile:
    """The CONFIG_FILE. As Kubernetes does, or as an editor does: swapped at once, or written in place."""

    def __init__(self, directory: Path, models: Sequence[Mapping[str, Any]]) -> None:
        self.path = directory / "models.yaml"
        self.right = json.dumps({"models": models}, indent=1)  # of which YAML is a superset
        self.swap(self.right)

    def swap(self, text: str) -> None:
        """Put another one in its place."""
        other = self.path.with_suffix(".new")
        other.write_text(text)
        other.replace(self.path)

    def write(self, text: str) -> None:
        """Write into it."""
        self.path.write_text(text)

    def models(self) -> list[dict[str, Any]]:
        """What is right, to be changed."""
        models: list[dict[str, Any]] = json.loads(self.right)["models"]
        return models


class Stage:
    """All of it. `proxies` are by what is behind them; the process "b" is asked without one."""

    def __init__(self) -> None:
        self.inside: dict[str, Inside] = {}
        self.outside: dict[str, Outside] = {}
        self.proxies: dict[str, Proxy] = {}
        self.config: ConfigFile
        self.gateway: GatewayProcess
        self.admin = ""
        self.metrics = ""

    @property
    def simulators(self) -> dict[str, Inside | Outside]:
        """All of them, by name."""
        return {**self.inside, **self.outside}

    def endpoints(self) -> dict[str, set[str]]:
        """By model, the backends that serve it while all is well."""
        return {"many": {"a", "b"}, "alone": {"d"}, "hedged": {"e", "f"}}

    def names(self) -> set[str]:
        """What attempts may call any backend, in whatever configuration."""
        return set().union(*self.endpoints().values()) | {"c", "x"}


def models_at(url: Mapping[str, str]) -> list[dict[str, Any]]:
    """The CONFIG_FILE's models: backends in two tiers, one with two addresses; one that is alone; two that race."""
    many = [_backend("a", [url["a1"], url["a2"]]), _backend("b", url["b"]), _backend("c", url["c"], priority=1)]
    racers = [_backend("e", url["e"]), _backend("f", url["f"])]
    return [
        {"name": "many", "aliases": ["more"], "backends": many},
        {"name": "alone", "backends": [_backend("d", url["d"])]},
        {"name": "hedged", "hedge_after_ms": 80, "backends": racers},
    ]


def _backend(name: str, url: str | list[str], **more: Any) -> dict[str, Any]:
    return {"name": name, "dialect": "vllm", "url": url, "model": OWN_NAME, "api_key_file": "key", **more}


@asynccontextmanager
async def staged() -> AsyncIterator[Stage]:
    """Everything runs; whatever became of it, all of it is gone at the end."""
    stage = Stage()
    options = Options(models=(OWN_NAME,), api_key=KEY, max_model_len=CONTEXT)
    async with AsyncExitStack() as stack:
        for name in ("a1", "a2", "c", "e"):
            stage.inside[name] = Inside(await stack.enter_async_context(Simulator(options)))
        for name in ("b", "d"):
            stage.outside[name] = Outside()
            stack.push_async_callback(stage.outside[name].kill)
            await stage.outside[name].start()
        behind = {name: inside.simulator.url for name, inside in stage.inside.items()}
        behind |= {"d": stage.outside["d"].url, "f": stage.outside["b"].url}
        for name, url in behind.items():
            stage.proxies[name] = await stack.enter_async_context(Proxy(url))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (directory / "key").write_text(KEY)
        urls = {name: proxy.url for name, proxy in stage.proxies.items()} | {"b": stage.outside["b"].url}
        stage.config = ConfigFile(directory, models_at(urls))
        settings = SETTINGS | {"CONFIG_FILE": str(stage.config.path)}
        stage.gateway = await stack.enter_async_context(starting_gateway(NO_BACKEND, **settings))
        stage.admin = (await stage.gateway.log_line("listening for the operator"))["address"]
        stage.metrics = (await stage.gateway.log_line("listening for Prometheus"))["address"]
        stage.gateway.address = (await stage.gateway.log_line(LISTENING))["address"]
        yield stage
