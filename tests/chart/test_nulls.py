# SPDX-License-Identifier: Apache-2.0
"""null is what Helm takes a value and its default away by: no template may stumble over what is then not there."""

from __future__ import annotations

import functools
import operator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.chart.kubernetes import VERSIONS, faults_of
from tests.chart.rendering import (
    CHART,
    ONE_GPU,
    SIMULATED,
    Object,
    default_values,
    merged,
    parsed,
    preset,
    refusal,
    template,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

Path = tuple[str, ...]

ALL = merged(preset(CHART / "ci/production-values.yaml"), SIMULATED, ONE_GPU)
"""Values of which every template makes something."""
SENTENCES = ("values don't meet the specifications of the schema", "the values cannot be used:")
"""What a refusal begins with that is meant for people."""


def paths(values: Object, above: Path = ()) -> Iterator[Path]:
    """Every value, and every one in it."""
    for key, value in values.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from paths(value, (*above, key))


def without(path: Path) -> Object:
    """Values that set nothing but a null."""
    nothing: Object | None = None
    for key in reversed(path):
        nothing = {key: nothing}
    return nothing or {}


def documents(manifest: str) -> list[str]:
    return manifest.split("\n---\n")


@functools.cache
def usual() -> frozenset[str]:
    return frozenset(documents(template(ALL).stdout))


def trouble(path: Path) -> str:
    """What is wrong with the chart's answer to a null; nothing, if that is a sentence or valid objects."""
    done = template(merged(ALL, without(path)))
    if done.returncode:
        readable = any(sentence in done.stderr for sentence in SENTENCES) and "<no value>" not in done.stderr
        return "" if readable else done.stderr
    changed = "\n---\n".join(one for one in documents(done.stdout) if one not in usual())
    return "\n".join(faults_of(parsed(changed), VERSIONS[-1]))


def troubles(among: list[Path]) -> dict[str, str]:
    """All that is wrong with nulls, by where they are."""
    with ThreadPoolExecutor() as pool:
        found = zip(among, pool.map(trouble, among), strict=True)
    return {".".join(path): said for path, said in found if said}


@pytest.mark.parametrize("part", sorted(default_values().keys() - {"settings"}))
def test_null_for_any_value_is_refused_in_a_sentence_or_makes_valid_objects(part: str) -> None:
    assert troubles([path for path in paths(default_values()) if path[0] == part]) == {}


@pytest.mark.parametrize(("key", "engine"), [("qwen", "vllm"), ("sim", "simulator")])
def test_null_for_any_map_of_a_model_is_refused_in_a_sentence_or_makes_valid_objects(key: str, engine: str) -> None:
    values = default_values()[engine]
    maps = [path for path in paths(values) if isinstance(functools.reduce(operator.getitem, path, values), dict)]

    assert troubles([("models", key), *(("models", key, engine, *path) for path in [(), *maps])]) == {}


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("image", "at '': missing property 'image'"),
        ("gateway.replicas", "at '/gateway': missing property 'replicas'"),
        ("vllm.cache", "at '/vllm': missing property 'cache'"),
        ("vllm.shm.enabled", "at '/vllm/shm': missing property 'enabled'"),
        ("vllm.cache.accessModes", "at '/vllm/cache': missing property 'accessModes'"),
        ("models.qwen.vllm.resources", "at '/models/qwen/vllm/resources': got null, want object"),
        ("models.qwen.vllm.dtype", "at '/models/qwen/vllm/dtype': got null, want string"),
    ],
)
def test_null_for_what_the_templates_count_on_is_refused_with_its_place(path: str, complaint: str) -> None:
    assert complaint in refusal(ALL, without(tuple(path.split("."))))


def test_a_model_need_not_say_what_it_leaves_as_it_is() -> None:
    assert template(merged(ALL, {"models": {"qwen": {"vllm": {"cache": {"size": "1Gi"}}}}})).returncode == 0
