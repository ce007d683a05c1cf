# SPDX-License-Identifier: Apache-2.0
"""kubectl and helm as an operator types them, against the cluster that KUBECONFIG names."""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.chart.rendering import CHART, installed
from tests.house.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PRESETS = CHART / "ci"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
PATIENCE = 180.0


def tool(name: str) -> str:
    """Where a tool is; its name where there is none, so that whoever runs it says what is missing."""
    return installed(name) or name


def run(*command: str, stdin: str = "", check: bool = True, timeout: float = PATIENCE) -> str:
    """What a command prints. Where its exit code is not 0, the test fails with all that it has said; unless `check` is
    False: then that is the answer.
    """
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False, cwd=ROOT, env=os.environ
    )
    if done.returncode == 0:
        return done.stdout
    said = done.stdout + done.stderr
    assert not check, f"{' '.join(command)}: {done.returncode}\n{said}"
    return said


def eventually(what: str, condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until something of the cluster is so."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"not within {seconds} s: {what}"
        time.sleep(0.5)


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace in which Pod Security is enforced."""

    name: str

    def kubectl(self, *arguments: str, stdin: str = "", check: bool = True) -> str:
        """What kubectl prints."""
        return run(tool("kubectl"), "--namespace", self.name, *arguments, stdin=stdin, check=check)

    def get(self, *arguments: str) -> list[dict[str, Any]]:
        """Objects as the API server has them."""
        got = json.loads(self.kubectl("get", *arguments, "--output", "json"))
        items: list[dict[str, Any]] = got.get("items", [got])
        return items

    def helm(self, *arguments: str, stdin: str = "") -> str:
        """What helm prints."""
        return run(tool("helm"), "--namespace", self.name, *arguments, stdin=stdin)

    def install(self, release: str, preset: str, **values: Any) -> None:
        """Install the chart, or upgrade it, with the values of a preset and these over them; wait until it is ready."""
        command = ("upgrade", "--install", release, str(CHART), "--wait", "--timeout", "170s")
        given = ("--values", str(PRESETS / f"{preset}-values.yaml"), "--values", "-")
        self.helm(*command, *given, stdin=json.dumps(values))

    def pods(self, selector: str) -> list[dict[str, Any]]:
        """The pods of a selector that nobody has told to go."""
        return [pod for pod in self.get("pods", "--selector", selector) if "deletionTimestamp" not in pod["metadata"]]

    def names(self, selector: str) -> list[str]:
        """Their names."""
        return [pod["metadata"]["name"] for pod in self.pods(selector)]

    @contextmanager
    def forwarded(self, target: str, port: int) -> Iterator[str]:
        """A free port of the loopback interface that leads to a port of a Service or a pod."""
        command = [tool("kubectl"), "--namespace", self.name, "port-forward", "--address", "127.0.0.1", target]
        with subprocess.Popen([*command, f":{port}"], stdout=subprocess.PIPE, text=True) as forwarding:
            try:
                assert forwarding.stdout is not None
                line = forwarding.stdout.readline()  # Forwarding from 127.0.0.1:40123 -> 50052
                yield line.split()[2]
            finally:
                forwarding.terminate()


@contextmanager
def namespace(name: str) -> Iterator[Namespace]:
    """A namespace that is gone at the end, with all that is in it."""
    labels = json.dumps(RESTRICTED)
    manifest = f'{{"apiVersion": "v1", "kind": "Namespace", "metadata": {{"name": "{name}", "labels": {labels}}}}}'
    run(tool("kubectl"), "delete", "namespace", name, "--ignore-not-found", "--wait")
    run(tool("kubectl"), "apply", "--filename", "-", stdin=manifest)
    try:
        yield Namespace(name)
    finally:
        # First the pods, and who would make new ones: a namespace takes minutes to go where pods may take minutes.
        owners = "deployments,statefulsets,replicasets,jobs"
        run(tool("kubectl"), "delete", owners, "--all", "--namespace", name, "--cascade=orphan")
        run(tool("kubectl"), "delete", "pods", "--all", "--namespace", name, "--force", "--grace-period=0")
        run(tool("kubectl"), "delete", "namespace", name, "--wait")
