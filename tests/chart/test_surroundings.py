# SPDX-License-Identifier: Apache-2.0
"""What is around the chart: k8s/ as kustomize builds it, and skaffold.yaml as skaffold reads and renders it."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from llm_gateway import __version__
from tests.chart.rendering import CHART, installed, merged, preset, template
from tests.house.tree import ROOT

if TYPE_CHECKING:
    from pathlib import Path

OVERLAYS = sorted((ROOT / "k8s/overlays").iterdir())
PROFILES = {"the default profile": (), "gpu": ("--profile", "gpu")}


def tool(name: str) -> str:
    """Where a tool is; skips the test where there is none."""
    found = installed(name)
    if found is None:
        pytest.skip(f"no {name}: neither in .cache/bin nor on the PATH")
    return found


def output(name: str, *arguments: str) -> str:
    """What a tool prints; away from any cluster."""
    environment = os.environ | {"PATH": f"{ROOT}/.cache/bin:{os.environ['PATH']}", "KUBECONFIG": os.devnull}
    command = [tool(name), *arguments]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def objects(manifests: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(manifests) if one is not None]


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_every_overlay_builds_for_the_one_namespace(overlay: Path) -> None:
    built = objects(output("kubectl", "kustomize", str(overlay)))

    inside = [one for one in built if one["kind"] != "Namespace"]
    assert inside
    assert {one["metadata"]["namespace"] for one in inside} == {"llm-gateway"}


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_every_overlay_runs_the_image_of_this_version(overlay: Path) -> None:
    images = {
        container["image"]
        for one in objects(output("kubectl", "kustomize", str(overlay)))
        for container in containers(one)
        if container["image"].startswith("llm-gateway")
    }

    assert images <= {f"llm-gateway:{__version__}"}


def containers(one: dict[str, Any]) -> list[dict[str, Any]]:
    """The containers of an object that is a pod or makes some."""
    spec = one.get("spec", {})
    found: list[dict[str, Any]] = spec.get("template", {}).get("spec", spec).get("containers", [])
    return found


def gateway_container(rendered: list[dict[str, Any]]) -> dict[str, Any]:
    """The container of the gateway's Deployment."""
    (gateway,) = [one for one in rendered if one["kind"] == "Deployment" and one["metadata"]["name"] == "llm-gateway"]
    (container,) = containers(gateway)
    return container


def test_the_namespace_enforces_what_the_chart_promises() -> None:
    (namespace,) = objects(output("kubectl", "kustomize", str(ROOT / "k8s/namespace")))

    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_skaffold_understands_its_file(profile: tuple[str, ...]) -> None:
    assert "kind: Config" in output("skaffold", "diagnose", "--yaml-only", *profile)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_skaffold_renders_chart_and_surroundings_with_the_image_that_it_builds(
    profile: tuple[str, ...], tmp_path: Path
) -> None:
    built, file = "registry.example/llm-gateway:built", tmp_path / "rendered.yaml"
    offline = ("render", "--offline", "--digest-source=tag", f"--images=llm-gateway={built}")
    output("skaffold", *offline, *profile, f"--output={file}")
    rendered = objects(file.read_text(encoding="utf-8"))

    assert {"Namespace", "Deployment", "Service", "ConfigMap", "Pod"} <= {one["kind"] for one in rendered}
    assert gateway_container(rendered)["image"] == built


def test_the_dev_loops_values_go_with_the_simulators_preset() -> None:
    values = merged(preset(CHART / "ci/simulator-values.yaml"), preset(ROOT / "k8s/dev-values.yaml"))

    done = template(values, release="llm-gateway", namespace="llm-gateway")
    assert done.returncode == 0, done.stderr


def test_the_dev_loops_pods_may_be_written_to() -> None:
    values = merged(preset(CHART / "ci/simulator-values.yaml"), preset(ROOT / "k8s/dev-values.yaml"))
    rendered = objects(template(values, release="llm-gateway", namespace="llm-gateway").stdout)

    assert gateway_container(rendered)["securityContext"]["readOnlyRootFilesystem"] is False
