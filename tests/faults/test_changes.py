# SPDX-License-Identifier: Apache-2.0
"""Rows 65, 67 and 68: connections that reach their age, backends that go and come, a configuration that changes."""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import TYPE_CHECKING

import pytest

from llm_gateway.simulator import Options, Simulator
from tests.faults.invariants import CALM, MODEL, SAID, asking, models_at, saying, scene, witnessed
from tests.faults.matrix import OK, Expected, ending_of, row
from tests.faults.test_links import calling_through
from tests.kit.calls import until
from tests.kit.gateway import NO_BACKEND, start_gateway, start_gateway_of
from tests.kit.health import NOT_SERVING, SERVING, always_serving, becomes
from tests.kit.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.faults.invariants import Witness

SLOWLY = asking(pace_ms=10)
RECOVERY = 15.0


@row(65)
async def test_row_65_an_old_connection_takes_no_stream_with_it(simulator: Simulator, expected: Expected) -> None:
    """They begin one after another, so that each connection has some that are longer than what is left of its time."""
    async with (
        scene(simulator.url, server={"max_connection_age_ms": 300}) as witness,
        Proxy(f"http://{witness.gateway.address}") as proxy,
        calling_through(witness, f"127.0.0.1:{proxy.port}"),
    ):
        calls = []
        for _ in range(20):
            calls.append(asyncio.create_task(witness.stream(SLOWLY)))
            await asyncio.sleep(0.05)
        outcomes = await asyncio.gather(*calls)

        assert proxy.counts.connections >= 3
        assert proxy.counts.cuts == 0
    for outcome in outcomes:
        assert ending_of(outcome) in expected
        assert outcome.text() == SAID


@row(67, "down", "up", together=True)
async def test_row_67_when_all_backends_are_down_callers_are_told_and_nobody_is_restarted(
    simulator: Simulator, expected: Expected
) -> None:
    """Every one of them, so that there is no bystander."""
    settings = {"health": {"probe_interval_ms": 50}, "ejection": {"base_ms": 200, "longest_ms": 400}}
    async with Proxy(simulator.url) as one, Proxy(simulator.url) as two:
        proxies = (one, two)
        backends = [{"name": name, "url": proxy.url} for name, proxy in zip("ab", proxies, strict=True)]
        starting = start_gateway_of([{"name": MODEL, "backends": backends}], **settings)
        async with witnessed(starting, bystander=False) as witness:
            channel = witness.gateway.channel
            await becomes(channel, "", SERVING)
            async with always_serving(channel, "liveness", "readiness"):
                for proxy in proxies:
                    proxy.refuse()
                    proxy.cut_all()
                await becomes(channel, "", NOT_SERVING)
                down = [await witness.stream() for _ in range(20)]
                for proxy in proxies:
                    await proxy.accept()
                began = time.monotonic()
                ups = [await witness.stream()]
                while ending_of(ups[-1]) in expected.of("down"):
                    assert time.monotonic() - began < RECOVERY
                    await asyncio.sleep(0.02)
                    ups.append(await witness.stream())
                await becomes(channel, "", SERVING)

    for outcome in down:
        assert ending_of(outcome) in expected.of("down")
        assert outcome.failure is not None
        assert "google.rpc.RetryInfo" in outcome.failure.details
    assert ending_of(ups[-1]) in expected.of("up")
    assert simulator.statistics().finished == simulator.statistics().requests_seen == 1


# ------------------------------------------------------------------------------------------------------- configuration


class ConfigMap:
    """A file as the kubelet mounts it: a link into a directory that is itself a link, which is swapped at once."""

    def __init__(self, directory: Path, content: str) -> None:
        self._directory = directory
        self._number = 0
        self.path = directory / "models.yaml"
        self.update(content)
        self.path.symlink_to("..data/models.yaml")

    def update(self, content: str) -> None:
        """Another version of it."""
        self._number += 1
        version = self._directory / f"..{self._number}"
        version.mkdir()
        (version / "models.yaml").write_text(content)
        link = self._directory / "..new"
        link.symlink_to(version.name)
        os.replace(link, self._directory / "..data")

    def half_written(self, content: str) -> None:
        """Another version in the same place, of which only the beginning is there."""
        self.path.resolve().write_text(content[: len(content) // 2])


@pytest.fixture
async def other() -> AsyncIterator[Simulator]:
    """Another backend."""
    async with Simulator() as running:
        yield running


@pytest.fixture
async def calm() -> AsyncIterator[Simulator]:
    """The bystander's backend."""
    async with Simulator(Options(models=(CALM,), pace=0.005)) as running:
        yield running


def configured(backend: Simulator, calm: Simulator) -> str:
    """The configuration with this backend."""
    return json.dumps({"models": models_at(backend.url, calm=calm.url)}, indent=1)


async def told_of(witness: Witness, beginning: str, count: int) -> None:
    """Wait until the log has told of so many changes, or faults, of the configuration."""
    await until(lambda: sum(line["message"].startswith(beginning) for line in witness.logs.lines) == count)


CHANGED, WRONG = "the configuration has changed", "the configuration file is wrong"


@row(68, "valid", "running stream", together=True)
async def test_row_68_a_new_configuration_is_for_new_calls(
    simulator: Simulator, other: Simulator, calm: Simulator, tmp_path: Path, expected: Expected
) -> None:
    config = ConfigMap(tmp_path, configured(simulator, calm))
    starting = start_gateway(NO_BACKEND, config_file=config.path, config_poll_interval_ms=20)
    async with witnessed(starting) as witness:
        simulator.script(saying(pace=0.02))
        running = witness.begin()
        await running.deltas(3)
        config.update(configured(other, calm))
        await told_of(witness, CHANGED, 1)
        new = await witness.stream()
        assert not running.call.done()
        old = await running.end()

    assert ending_of(new) in expected.of("valid")
    assert ending_of(old) in expected.of("running stream")
    assert (simulator.statistics().requests_seen, other.statistics().requests_seen) == (1, 1)


@row(68, "broken")
async def test_row_68_what_is_wrong_changes_nothing_until_it_is_right(
    simulator: Simulator, other: Simulator, calm: Simulator, tmp_path: Path, expected: Expected
) -> None:
    good, new = configured(simulator, calm), configured(other, calm)
    one_wrong = json.loads(new)
    one_wrong["models"].append({"name": "wrong", "backends": []})
    config = ConfigMap(tmp_path, good)
    starting = start_gateway(NO_BACKEND, config_file=config.path, config_poll_interval_ms=20)
    async with witnessed(starting) as witness:
        changes: tuple[Callable[[], None], ...] = (
            lambda: config.update("models: ["),
            lambda: config.update(json.dumps(one_wrong)),
            lambda: config.half_written(new),
            lambda: config.path.resolve().unlink(),
        )
        for count, change in enumerate(changes, 1):
            change()
            await told_of(witness, WRONG, count)
            assert ending_of(await witness.stream()) in expected
            assert other.statistics().requests_seen == 0
        config.update(new)
        await told_of(witness, CHANGED, 1)
        assert ending_of(await witness.stream()) == OK

    assert (simulator.statistics().requests_seen, other.statistics().requests_seen) == (len(changes), 1)
