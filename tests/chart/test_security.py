# SPDX-License-Identifier: Apache-2.0
"""Every pod of every preset passes the `restricted` Pod Security Standard, and is nobody in the cluster.

The rules are those of https://kubernetes.io/docs/concepts/security/pod-security-standards/, each as a question
to a pod.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.chart.rendering import PRESETS, SIMULATED, Object, container_of, pod_of, preset, render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"),
}
HOSTS = ("hostNetwork", "hostPID", "hostIPC")


def of_every_container(holds: Callable[[Object], object]) -> Callable[[Object], bool]:
    return lambda pod: all(holds(container) for container in [*pod["containers"], *pod.get("initContainers", [])])


def allowed(container: Object, field: str) -> object:
    return container.get("securityContext", {}).get(field)


RULES: dict[str, Callable[[Object], object]] = {
    "no namespace of the host": lambda pod: not any(pod.get(field) for field in HOSTS),
    "no port of the host": of_every_container(lambda c: not any("hostPort" in port for port in c.get("ports", []))),
    "volumes of harmless types": lambda pod: all(set(one) - {"name"} <= VOLUMES for one in pod.get("volumes", [])),
    "not privileged": of_every_container(lambda c: not allowed(c, "privileged")),
    "no more privileges than it began with": of_every_container(
        lambda c: allowed(c, "allowPrivilegeEscalation") is False
    ),
    "no capabilities": of_every_container(lambda c: allowed(c, "capabilities") == {"drop": ["ALL"]}),
    "not root": lambda pod: pod["securityContext"]["runAsNonRoot"] is True,
    "a user with a number": lambda pod: pod["securityContext"]["runAsUser"] > 10_000,
    "no user of its own in a container": of_every_container(lambda c: allowed(c, "runAsUser") is None),
    "the runtime's seccomp profile": lambda pod: pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"},
    "no special /proc": of_every_container(lambda c: allowed(c, "procMount") is None),
    "no SELinux or AppArmor of its own": of_every_container(lambda c: allowed(c, "seLinuxOptions") is None),
    "no sysctls": lambda pod: "sysctls" not in pod["securityContext"],
    # And what the standard does not ask for.
    "no token of a ServiceAccount": lambda pod: pod["automountServiceAccountToken"] is False,
    "no variables of other Services": lambda pod: pod["enableServiceLinks"] is False,
    "bounded memory": of_every_container(lambda c: c["resources"]["limits"]["memory"]),
    "no CPU limit, which would delay streams": of_every_container(lambda c: "cpu" not in c["resources"]["limits"]),
}  # fmt: skip


def pods() -> Iterator[tuple[str, Object]]:
    for path in PRESETS:
        for one in render(preset(path)):
            if one["kind"] in {"Deployment", "StatefulSet", "Pod"}:
                yield f"{path.stem}: {one['kind']} {one['metadata']['name']}", pod_of(one)["spec"]


@pytest.mark.parametrize("rule", RULES)
def test_every_pod_of_every_preset_keeps_the_rule(rule: str) -> None:
    broken = [name for name, pod in pods() if not RULES[rule](pod)]

    assert broken == []


def test_all_kinds_of_pods_are_among_them() -> None:
    named = {container["name"] for _, pod in pods() for container in pod["containers"]}

    assert named == {"gateway", "simulator", "vllm", "chat"}


@pytest.mark.parametrize(
    ("name", "read_only"), [("gateway", True), ("simulator", True), ("chat", True), ("vllm", False)]
)
def test_the_image_cannot_be_written_to_but_for_vllms(name: str, read_only: bool) -> None:
    found = {
        allowed(container, "readOnlyRootFilesystem")
        for _, pod in pods()
        for container in pod["containers"]
        if container["name"] == name
    }

    assert found == {read_only}


def test_a_development_loop_may_write_into_the_gateways_image() -> None:
    pods = render(SIMULATED, {"image": {"readOnlyRootFilesystem": False}}).all("Deployment")

    assert [allowed(container_of(pod), "readOnlyRootFilesystem") for pod in pods] == [False, False]


def test_there_is_no_role_in_any_preset() -> None:
    kinds = {one["kind"] for path in PRESETS for one in render(preset(path))}

    assert {kind for kind in kinds if "Role" in kind} == set()
