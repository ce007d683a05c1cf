# SPDX-License-Identifier: Apache-2.0
"""The vLLM half on a cluster without a GPU: the API server takes it, and nothing but the GPU is missing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.chart.rendering import ONE_GPU, PRESETS, preset, render
from tests.cluster.kube import eventually, namespace, run, tool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.kube import Namespace


@pytest.fixture(scope="module")
def empty(cluster: None) -> Iterator[Namespace]:
    """A namespace for what is not run."""
    with namespace("llm-gateway-vllm") as empty:
        yield empty


@pytest.fixture(scope="module")
def kinds(cluster: None) -> set[str]:
    """The kinds of object that this cluster knows."""
    return {line.split()[-1] for line in run(tool("kubectl"), "api-resources", "--no-headers").splitlines()}


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_the_api_server_takes_every_object_of_every_preset(empty: Namespace, kinds: set[str], path: Path) -> None:
    rendered = render(preset(path), release="dry", namespace=empty.name)
    known = [one for one in rendered if one["kind"] in kinds]

    empty.kubectl("apply", "--filename", "-", stdin=as_list(rendered.all("ServiceAccount")))  # a pod must have its own
    dry = ("apply", "--dry-run=server", "--warnings-as-errors", "--filename", "-")
    said = empty.kubectl(*dry, stdin=as_list(known))  # a violation of Pod Security would be a warning

    assert len(known) > 5
    assert said.count("(server dry run)") == len(known)


def as_list(objects: list[dict[str, object]]) -> str:
    """Objects as one document."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


LABEL = "nvidia.com/gpu.present"


@pytest.fixture
def labelled(empty: Namespace) -> Iterator[int]:
    """Nodes that say that they have GPUs, as NVIDIA's operator labels them, and have none; how many."""
    nodes = empty.get("nodes")
    if any("nvidia.com/gpu" in node["status"]["allocatable"] for node in nodes):
        pytest.skip("this cluster has GPUs: a vLLM would run on them")
    bare = [node["metadata"]["name"] for node in nodes if "taints" not in node["spec"]]
    run(tool("kubectl"), "label", "nodes", *bare, f"{LABEL}=true")
    yield len(bare)
    run(tool("kubectl"), "label", "nodes", *bare, f"{LABEL}-")


def test_a_vllm_is_pending_for_the_gpu_and_for_nothing_else(empty: Namespace, labelled: int) -> None:
    small = {"resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}}}
    rendered = render(ONE_GPU, {"vllm": small}, release="pending", namespace=empty.name)
    engine = [rendered.one("Deployment", "-engine-qwen"), *rendered.all("ServiceAccount")]
    empty.kubectl("apply", "--filename", "-", stdin=as_list(engine))

    selector = "app.kubernetes.io/component=engine"
    eventually("the scheduler has looked at it", lambda: unschedulable(empty, selector))
    (message,) = unschedulable(empty, selector)
    reasons = message.partition(": ")[2].partition(". ")[0].split(", ")

    assert f"{labelled} Insufficient nvidia.com/gpu" in reasons
    assert [reason for reason in reasons if "Insufficient" not in reason and "untolerated taint" not in reason] == []


def unschedulable(where: Namespace, selector: str) -> list[str]:
    """Why pods wait for a node, in the scheduler's words."""
    conditions = [condition for pod in where.pods(selector) for condition in pod["status"].get("conditions", [])]
    return [one["message"] for one in conditions if one["type"] == "PodScheduled" and one["status"] == "False"]
