# SPDX-License-Identifier: Apache-2.0
"""What becomes of a file that changes while the gateway runs."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import TYPE_CHECKING

import pytest

from llm_gateway.config_file import Config, load
from llm_gateway.config_watcher import ConfigWatcher
from llm_gateway.observability.journal import ConfigStatistics
from tests.kit.logs import captured_logs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.logs import Logs

INTERVAL = 0.002
PATIENCE = 20.0
KEY = "sk-very-secret"


def models(*names: str, fields: str = "") -> str:
    """A file with models by these names."""
    entries = (f"  - {{name: {name}, backends: [{{name: a, url: 'http://a'{fields}}}]}}\n" for name in names)
    return "models:\n" + "".join(entries)


def put(path: Path, text: str) -> None:
    """What an editor does meanwhile."""
    path.write_text(text)


class Watched:
    """A file that is watched: what of it came into force, and how the watcher sees that."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.applied: list[Config] = []
        self.loads = 0
        self.bug: Exception | None = None
        """What reading it raises."""
        self.obstacle: Exception | None = None
        """What putting it into force raises."""
        self._load = partial(load, path, {}, secrets_dir=path.parent)
        self.watcher = ConfigWatcher(
            path, self._load(), load=self._count_and_load, apply=self._apply, interval=INTERVAL
        )

    @property
    def names(self) -> list[list[str]]:
        """The names of the models of each configuration that was applied."""
        return [[model.name for model in config.file.models] for config in self.applied]

    @property
    def statistics(self) -> ConfigStatistics:
        return self.watcher.statistics()

    async def holds(self, text: str | None) -> None:
        """Let the file hold something else, or be gone, and the watcher notice."""
        if text is None:
            self.path.unlink()
        else:
            self.path.write_text(text)
        await self.notices()

    async def notices(self) -> None:
        """Let the watcher look as often as it needs, and then some more."""
        for _ in range(4):
            await self.watcher.look()

    def _count_and_load(self) -> Config:
        self.loads += 1
        if self.bug is not None:
            raise self.bug
        return self._load()

    async def _apply(self, config: Config) -> None:
        if self.obstacle is not None:
            raise self.obstacle
        self.applied.append(config)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "models.yaml"
    path.write_text(models("first"))
    return path


@pytest.fixture
def watched(path: Path) -> Watched:
    """A file that is watched, with one model."""
    return Watched(path)


@pytest.fixture
def logs() -> Iterator[Logs]:
    with captured_logs() as logs:
        yield logs


async def test_what_does_not_change_is_not_read_again(watched: Watched) -> None:
    os.utime(watched.path, (1, 1))

    await watched.notices()

    assert (watched.loads, watched.applied) == (0, [])
    assert (watched.statistics.reloads_ok, watched.statistics.reloads_failed) == (0, 0)


async def test_what_has_changed_and_is_right_is_put_into_force(logs: Logs, watched: Watched) -> None:
    old = watched.statistics.version

    await watched.holds(models("second", "third"))

    new = watched.applied[0].version
    assert (watched.names, watched.loads) == ([["second", "third"]], 1)
    assert watched.statistics == ConfigStatistics(new, last_reload_ok=True, reloads_ok=1, reloads_failed=0)
    (line,) = logs.lines
    assert (line["message"], line["old_version"], line["version"]) == ("the configuration has changed", old, new)


async def test_what_is_wrong_changes_nothing_and_is_said_once(logs: Logs, watched: Watched) -> None:
    old = watched.statistics.version

    await watched.holds(models("se cond") + "other: 1\n")

    assert watched.applied == []
    assert watched.statistics == ConfigStatistics(old, last_reload_ok=False, reloads_ok=0, reloads_failed=1)
    (line,) = logs.lines
    assert (line["level"], line["config_file"], line["version"]) == ("ERROR", str(watched.path), old)
    assert [fault.partition(" ")[0] for fault in line["faults"]] == ["models[0].name", "other"]


async def test_another_content_that_is_wrong_is_said_again(logs: Logs, watched: Watched) -> None:
    await watched.holds(models("a b"))
    await watched.holds(models("a b") + "#")

    assert len(logs.lines) == watched.statistics.reloads_failed == 2


@pytest.mark.parametrize("broken", ["models: [", "", models("a b"), None], ids=["cut off", "empty", "wrong", "removed"])
async def test_a_broken_file_that_is_mended_is_put_into_force(watched: Watched, broken: str | None) -> None:
    await watched.holds(broken)
    assert watched.applied == []
    assert not watched.statistics.last_reload_ok

    await watched.holds(models("second"))

    assert watched.names == [["second"]]
    assert watched.statistics.last_reload_ok


async def test_a_broken_file_that_becomes_what_is_in_force_is_good_again(logs: Logs, watched: Watched) -> None:
    before = watched.statistics
    await watched.holds("models: [")

    await watched.holds(models("first"))

    assert watched.applied == []
    assert watched.statistics == ConfigStatistics(before.version, last_reload_ok=True, reloads_ok=0, reloads_failed=1)
    assert logs.lines[-1]["message"] == "the configuration file is again what is in force"


async def test_a_directory_of_links_that_is_swapped_is_one_change(tmp_path: Path) -> None:
    """As the kubelet updates a ConfigMap: models.yaml → ..data/models.yaml, ..data → a directory for each version."""
    mounted = tmp_path / "mounted"
    mounted.mkdir()

    def publish(version: str, key: str, text: str) -> None:
        (mounted / version).mkdir()
        (mounted / version / "models.yaml").write_text(text)
        (mounted / version / "key").write_text(key)
        (mounted / "..new").symlink_to(version)
        (mounted / "..new").rename(mounted / "..data")

    publish("..1", "old", models("first", fields=", api_key_file: key"))
    for name in ("models.yaml", "key"):
        (mounted / name).symlink_to(f"..data/{name}")
    watched = Watched(mounted / "models.yaml")

    publish("..2", "new", models("second", fields=", api_key_file: key"))
    await watched.notices()

    assert watched.names == [["second"]]
    assert key_of(watched.applied[0]) == "new"
    assert watched.statistics.reloads_failed == 0


def key_of(config: Config) -> str:
    key = config.key(config.file.models[0].name, "a")
    assert key is not None
    return key.get_secret_value()


@pytest.mark.parametrize("field", ["api_key_file: THE_KEY", "api_key_env: THE_KEY"])
async def test_a_key_that_is_rotated_is_a_change_and_is_not_logged(logs: Logs, path: Path, field: str) -> None:
    secret = path.with_name("THE_KEY")
    put(secret, "old")
    put(path, models("first", fields=f", {field}"))
    watched = Watched(path)

    put(secret, KEY)
    await watched.notices()

    assert [key_of(config) for config in watched.applied] == [KEY]
    assert len(logs.lines) == 1
    assert KEY not in logs.text


@pytest.mark.parametrize("field", ["api_key_file: THE_KEY", "api_key_env: THE_KEY"])
async def test_a_key_that_was_missing_is_waited_for(watched: Watched, field: str) -> None:
    await watched.holds(models("second", fields=f", {field}"))
    assert (watched.applied, watched.statistics.reloads_failed) == ([], 1)

    watched.path.with_name("THE_KEY").write_text(KEY)
    await watched.notices()

    assert watched.names == [["second"]]


async def test_what_is_still_being_written_is_not_read(watched: Watched) -> None:
    """Each piece is right by itself, and only the whole was meant."""
    for count in range(1, 5):
        watched.path.write_text(models(*"abcd"[:count]))
        await watched.watcher.look()
    assert watched.loads == 0

    await watched.watcher.look()

    assert watched.names == [[*"abcd"]]


async def test_a_bug_in_putting_it_into_force_is_logged_and_changes_nothing(logs: Logs, watched: Watched) -> None:
    watched.obstacle = RuntimeError(KEY)
    old = watched.statistics.version
    await watched.holds(models("second"))
    assert watched.statistics == ConfigStatistics(old, last_reload_ok=False, reloads_ok=0, reloads_failed=1)

    watched.obstacle = None
    await watched.holds(models("third"))

    assert watched.names == [["third"]]
    assert "RuntimeError" in logs.lines[0]["traceback"]
    assert KEY not in logs.text


async def test_a_bug_in_reading_it_is_logged_once_and_changes_nothing(logs: Logs, watched: Watched) -> None:
    watched.bug = RuntimeError(KEY)

    await watched.holds(models("second"))

    assert (watched.applied, watched.statistics.reloads_failed, len(logs.lines)) == ([], 1, 1)
    assert KEY not in logs.text


async def test_it_looks_by_itself_from_start_to_stop(watched: Watched) -> None:
    watched.watcher.start()
    watched.path.write_text(models("second"))
    async with asyncio.timeout(PATIENCE):
        while not watched.applied:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(INTERVAL)
    await watched.watcher.stop()

    watched.path.write_text(models("third"))
    await asyncio.sleep(5 * INTERVAL)

    assert watched.names == [["second"]]


async def test_whoever_puts_it_into_force_may_do_so_without_waiting(path: Path) -> None:
    applied: list[Config] = []
    read = partial(load, path, {})
    watcher = ConfigWatcher(path, read(), load=read, apply=applied.append, interval=INTERVAL)

    put(path, models("second"))
    await watcher.look()
    await watcher.look()

    assert [watcher.statistics().version] == [config.version for config in applied]


async def test_a_watch_that_never_began_can_be_stopped(watched: Watched) -> None:
    await watched.watcher.stop()

    assert watched.statistics.last_reload_ok
