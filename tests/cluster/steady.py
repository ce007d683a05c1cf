# SPDX-License-Identifier: Apache-2.0
"""Runs traffic.py as a pod beside a gateway, and watches what the pods that go had in flight."""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cluster.kube import Namespace, eventually, tool

if TYPE_CHECKING:
    from collections.abc import Iterator

DRIVER = Path(__file__).with_name("traffic.py")
STREAMS = 100
IN_FLIGHT = re.compile(r'"message":"draining","in_flight":(\d+)|^draining: (\d+) requests run', re.MULTILINE)
"""How a gateway, and how a simulator, says what it still has when SIGTERM comes."""


def locked_down(image: str, command: list[str], **container: Any) -> dict[str, Any]:
    """The spec of a pod that Pod Security's `restricted` takes."""
    capabilities = {"drop": ["ALL"]}
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "main",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": command,
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": capabilities},
                **container,
            }
        ],
    }


class Traffic:
    """Streams that begin and end all the time."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self.endings: dict[str, int] = {}
        """How often each ending was seen; once it has stopped."""

    def start(self, image: str, release: str) -> None:
        """Begin, and wait until all streams run."""
        kubectl = self._namespace.kubectl
        kubectl("delete", "pod/traffic", "configmap/traffic", "--ignore-not-found")
        kubectl("create", "configmap", "traffic", f"--from-file={DRIVER}")
        command = ["python", "/app/traffic.py", f"{release}-headless:50052", f"{release}:50052", str(STREAMS)]
        spec = locked_down(image, command, volumeMounts=[{"name": "app", "mountPath": "/app"}])
        spec["volumes"] = [{"name": "app", "configMap": {"name": "traffic"}}]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "traffic"}, "spec": spec}
        kubectl("apply", "--filename", "-", stdin=json.dumps(pod))
        kubectl("wait", "--for=condition=Ready", "pod/traffic", "--timeout=60s")

    def stop(self) -> None:
        """Let running streams end, and read what all have come to."""
        kubectl = self._namespace.kubectl
        kubectl("exec", "traffic", "--", "sh", "-c", "kill -TERM 1")
        kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/traffic", "--timeout=120s")
        self.endings = json.loads(kubectl("logs", "traffic"))

    @property
    def failed(self) -> dict[str, int]:
        """The endings that are no whole answer."""
        return {ending: count for ending, count in self.endings.items() if ending != "OK"}


class Departures:
    """Pods whose logs are read from now on, until they have gone."""

    def __init__(self, namespace: Namespace, selector: str) -> None:
        self._namespace = namespace
        self.names = namespace.names(selector)
        self._logs = [
            subprocess.Popen(
                [tool("kubectl"), "--namespace", namespace.name, "logs", "--follow", f"pod/{name}"],
                stdout=subprocess.PIPE,
                text=True,
            )
            for name in self.names
        ]

    def in_flight(self) -> list[int]:
        """What each had in flight when it was told to go; waits until all have gone."""
        return [self._said(log.communicate(timeout=300)[0]) for log in self._logs]

    def gone(self) -> None:
        """Wait until Kubernetes knows none of them any more."""
        eventually("the old pods have gone", lambda: not {*self.names} & {*self._all()}, seconds=300)

    def _all(self) -> list[str]:
        return [pod["metadata"]["name"] for pod in self._namespace.get("pods")]

    @staticmethod
    def _said(log: str) -> int:
        found = IN_FLIGHT.search(log)
        assert found is not None, f"it was not told to go:\n{log[-2000:]}"
        return int(found[1] or found[2])


@contextmanager
def steady_traffic(namespace: Namespace, image: str, release: str) -> Iterator[Traffic]:
    """Traffic meanwhile; `endings` are there once the block has been left."""
    traffic = Traffic(namespace)
    traffic.start(image, release)
    yield traffic
    traffic.stop()
