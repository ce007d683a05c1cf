# SPDX-License-Identifier: Apache-2.0
"""What Helm makes of the chart and some values."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from tests.house.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Object = dict[str, Any]

CHART = ROOT / "charts/llm-gateway"
PRESETS = sorted((CHART / "ci").glob("*-values.yaml"))
RELEASE = "demo"
NAMESPACE = "here"
KUBERNETES = "1.34.0"
"""Said on every call, for a helm that was built by `go install` takes every cluster for version 1.20."""

ONE_GPU: Object = {"models": {"qwen": {"vllm": {"model": "Qwen/Qwen3-0.6B"}}}}
SIMULATED: Object = {"models": {"sim": {"engine": "simulator"}}}
OPENAI: Object = {"name": "openai", "dialect": "openai", "url": "https://api.openai.com"}
OUTSIDE: Object = {"models": {"gpt": {"engine": "none", "backends": [OPENAI]}}}


def installed(name: str) -> str | None:
    """Where a tool is: the one that make has installed, else the machine's; None where there is neither."""
    own = ROOT / ".cache/bin" / name
    return str(own) if own.exists() else shutil.which(name)


def helm_path() -> str | None:
    """The helm to use: the one that HELM names, else the one that is installed."""
    return os.environ.get("HELM") or installed("helm")


def helm(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run it."""
    program = helm_path()
    assert program is not None
    command = [program, *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)


def template(
    values: Object, *, release: str = RELEASE, namespace: str = NAMESPACE, kubernetes: str = KUBERNETES
) -> subprocess.CompletedProcess[str]:
    """Run `helm template` with these values and nothing else."""
    where = ("--namespace", namespace, "--kube-version", kubernetes, "--values", "-")
    return helm("template", release, CHART, *where, stdin=json.dumps(values))


@dataclass(frozen=True)
class Manifests:
    """The objects of a release."""

    objects: tuple[Object, ...]

    def __iter__(self) -> Iterator[Object]:
        return iter(self.objects)

    def all(self, kind: str) -> list[Object]:
        """Those of a kind."""
        return [one for one in self.objects if one["kind"] == kind]

    def names(self, kind: str) -> list[str]:
        """Their names."""
        return [one["metadata"]["name"] for one in self.all(kind)]

    def one(self, kind: str, ending: str = "") -> Object:
        """The one of a kind whose name ends so; without an ending, the gateway's own."""
        ending = ending or f"{RELEASE}-llm-gateway"
        (found,) = [one for one in self.all(kind) if one["metadata"]["name"].endswith(ending)]
        return found

    def models_file(self) -> str:
        """The gateway's CONFIG_FILE."""
        text: str = self.one("ConfigMap", "-models")["data"]["models.yaml"]
        return text

    def models(self) -> dict[str, Object]:
        """The models of that file by their names."""
        return {model["name"]: model for model in yaml.safe_load(self.models_file())["models"]}

    def settings(self) -> dict[str, str]:
        """The gateway's variables."""
        data: dict[str, str] = self.one("ConfigMap", "-settings")["data"]
        return data


def render(*values: Object, release: str = RELEASE, namespace: str = NAMESPACE) -> Manifests:
    """The objects that the chart makes of these values; of two that contradict each other the later one counts."""
    return _rendered(json.dumps(merged(*values), sort_keys=True), release, namespace)


def refusal(*values: Object) -> str:
    """What Helm says of values that cannot be used."""
    return _refused(json.dumps(merged(*values), sort_keys=True))


def preset(path: Path) -> Object:
    """The values of a file of the chart."""
    values: Object = yaml.safe_load(path.read_text(encoding="utf-8"))
    return values


def merged(*values: Mapping[str, Any]) -> Object:
    """Maps as one, as Helm merges them."""
    result: Object = {}
    for one in values:
        for key, value in one.items():
            old = result.get(key)
            result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def nested(path: str, value: object) -> Object:
    """The value at a path of keys with dots between."""
    key, _, rest = path.partition(".")
    return {key: nested(rest, value) if rest else value}


def default_values() -> Object:
    """What values.yaml says."""
    return preset(CHART / "values.yaml")


def pod_of(workload: Object) -> Object:
    """The pod that an object makes, or is."""
    pod: Object = workload if workload["kind"] == "Pod" else workload["spec"]["template"]
    return pod


def container_of(workload: Object) -> Object:
    """Its one container."""
    (container,) = pod_of(workload)["spec"]["containers"]
    return dict(container)


def environment_of(workload: Object) -> dict[str, Any]:
    """The variables of that container; what refers to a Secret as the reference."""
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container_of(workload).get("env", [])}


def parsed(text: str) -> tuple[Object, ...]:
    """The objects of a manifest; by C, for there are many."""
    return tuple(one for one in yaml.load_all(text, Loader=yaml.CSafeLoader) if one is not None)


@functools.cache
def _rendered(text: str, release: str, namespace: str) -> Manifests:
    done = template(json.loads(text), release=release, namespace=namespace)
    assert done.returncode == 0, done.stderr
    return Manifests(parsed(done.stdout))


@functools.cache
def _refused(text: str) -> str:
    done = template(json.loads(text))
    assert done.returncode != 0, "the values were accepted"
    return done.stderr
