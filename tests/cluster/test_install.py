# SPDX-License-Identifier: Apache-2.0
"""An operator installs the chart on a real cluster, looks at it and asks it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

from tests.cluster.asking import STREAM, WHOLE, answer, question
from tests.cluster.conftest import IMAGE, RELEASE
from tests.cluster.kube import eventually, namespace, run, tool
from tests.cluster.steady import locked_down
from tests.house.tree import ROOT

if TYPE_CHECKING:
    from tests.cluster.kube import Namespace

GRPCURL_IMAGE = "fullstorydev/grpcurl:v1.9.3-alpine"


def test_every_pod_becomes_ready_without_a_restart(served: Namespace) -> None:
    states = [
        s for pod in served.pods(f"app.kubernetes.io/instance={RELEASE}") for s in pod["status"]["containerStatuses"]
    ]

    assert len(states) == 4
    assert [(state["ready"], state["restartCount"]) for state in states] == [(True, 0)] * 4


def test_helm_test_streams_an_answer(served: Namespace) -> None:
    assert "Phase:          Succeeded" in served.helm("test", RELEASE)


def test_the_namespace_refuses_a_pod_that_is_not_restricted(served: Namespace) -> None:
    spec = locked_down(IMAGE, ["true"], securityContext={"privileged": True})
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "root"}, "spec": spec}

    assert 'violates PodSecurity "restricted' in served.kubectl("apply", "-f", "-", stdin=json.dumps(pod), check=False)


def test_grpcurl_finds_the_services_by_reflection_and_streams(served: Namespace) -> None:
    with served.forwarded(f"service/{RELEASE}", 50052) as address:
        services = run(tool("grpcurl"), "-plaintext", address, "list").split()
        streamed = answer(address)

    assert {"llm_gateway.v1.LLMService", "grpc.health.v1.Health"} <= set(services)
    assert WHOLE in streamed


def test_grpcurl_in_the_debug_pod_reaches_the_service_by_its_name(served: Namespace) -> None:
    served.kubectl("apply", "--filename", "-", stdin=component("debug", GRPCURL_IMAGE))
    served.kubectl("wait", "--for=condition=Ready", "pod/debug", "--timeout=60s")

    asked = ("exec", "debug", "--", "grpcurl", "-plaintext", "-d", question(), f"{RELEASE}:50052", STREAM)
    assert WHOLE in served.kubectl(*asked)


def test_the_sample_worker_streams_through_the_service_and_completes(served: Namespace) -> None:
    served.kubectl("apply", "--filename", "-", stdin=component("worker", IMAGE))
    served.kubectl("wait", "--for=condition=Complete", "job/worker", "--timeout=90s")

    assert served.kubectl("logs", "job/worker").endswith("tokens\n")


def component(name: str, image: str) -> str:
    """What a component of k8s/ brings, with an image that the nodes have."""
    kustomization = run(tool("kubectl"), "kustomize", str(ROOT / "k8s/components" / name))
    documents: list[dict[str, Any]] = list(yaml.safe_load_all(kustomization))
    for document in documents:
        spec = document.get("spec", {})
        for container in spec.get("template", {}).get("spec", spec).get("containers", []):
            container["image"] = image
    return yaml.safe_dump_all(documents)


def test_uninstall_leaves_nothing(cluster: None, image: dict[str, Any]) -> None:
    one = {"replicas": 1}
    quick = {"SERVER__DRAIN_DELAY_MS": 0, "SERVER__DRAIN_GRACE_MS": 1000, "TIMEOUT_MS": 1000}
    with namespace("llm-gateway-leaves") as leaving:
        before = everything(leaving)
        leaving.install("short", "simulator", image=image, gateway=one, simulator=one, settings=quick)
        installed = everything(leaving)
        leaving.helm("uninstall", "short", "--wait")

        assert len(installed - before) > 10
        eventually("nothing is left", lambda: everything(leaving) - before == set(), seconds=60)


def everything(where: Namespace) -> set[str]:
    """All objects of a namespace but those that tell of the past."""
    kinds = run(tool("kubectl"), "api-resources", "--namespaced", "--verbs=list", "--output=name").split()
    wanted = ",".join(kind for kind in kinds if not kind.startswith("events"))
    return set(where.kubectl("get", wanted, "--output=name", "--ignore-not-found").split())
