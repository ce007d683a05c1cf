# SPDX-License-Identifier: Apache-2.0
"""Every preset is sound for every version of Kubernetes that the chart is for."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

import pytest

from tests.chart.kubernetes import CUSTOM, OLDEST, VERSIONS, faults_of
from tests.chart.rendering import CHART, PRESETS, RELEASE, container_of, helm, pod_of, preset, render, template

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chart.rendering import Manifests, Object

every_preset = pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
every_version = pytest.mark.parametrize("version", VERSIONS)


def of(path: Path) -> Manifests:
    return render(preset(path))


@functools.cache
def template_once(path: Path) -> str:
    return template(preset(path)).stdout


def test_the_chart_is_for_versions_that_can_be_checked() -> None:
    assert preset(CHART / "Chart.yaml")["kubeVersion"] == ">={}.{}.0-0".format(*OLDEST)
    assert len(VERSIONS) > 5
    assert VERSIONS[0].startswith("1.30.")


@every_preset
def test_helm_finds_nothing_wrong_with_it(path: Path) -> None:
    linted = helm("lint", "--strict", "--kube-version", VERSIONS[-1], "--values", path, CHART)

    assert linted.returncode == 0, linted.stdout
    assert [line for line in linted.stdout.splitlines() if re.match(r"\[(WARNING|ERROR)\]", line)] == []


@every_preset
@every_version
def test_it_renders_for_the_version(path: Path, version: str) -> None:
    rendered = template(preset(path), kubernetes=version)

    assert rendered.returncode == 0, rendered.stderr
    assert rendered.stdout == template_once(path), "it does not depend on the version"


@every_preset
@every_version
def test_each_of_its_objects_is_what_the_version_knows(path: Path, version: str) -> None:
    assert faults_of(of(path), version) == []


@every_preset
def test_objects_that_kubernetes_does_not_have_are_complete(path: Path) -> None:
    others = [one for one in of(path) if one["kind"] in CUSTOM]

    for one in others:
        version, fields = CUSTOM[one["kind"]]
        assert one["apiVersion"] == version
        assert fields <= one["spec"].keys()


def test_all_kinds_that_the_chart_can_make_are_in_some_preset() -> None:
    templates = "\n".join(path.read_text(encoding="utf-8") for path in (CHART / "templates").rglob("*.*"))
    kinds = set(re.findall(r"^kind: (\w+)$", templates, re.MULTILINE)) | {"Deployment", "StatefulSet"}

    made = {one["kind"] for path in PRESETS for one in of(path)}

    assert kinds - made == {"Secret"}, "keys in values are for a trial, and so in no preset"


@every_preset
def test_it_is_the_same_each_time(path: Path) -> None:
    assert template(preset(path)).stdout == template_once(path)


@every_preset
def test_no_two_objects_have_one_name(path: Path) -> None:
    named = [(one["kind"], one["metadata"]["name"]) for one in of(path)]

    assert len(set(named)) == len(named)


@every_preset
def test_whatever_a_pod_refers_to_is_there_or_is_the_users(path: Path) -> None:
    manifests = of(path)

    there = {(one["kind"], one["metadata"]["name"]) for one in manifests}
    referred = {
        ("ConfigMap", name) for name in re.findall(r"'configMap(?:Ref)?': {'name': '([^']+)'", str(manifests.objects))
    } | {
        ("PersistentVolumeClaim", name)
        for name in re.findall(r"'claimName': '([^']+)'", str(manifests.objects))
        if name.startswith(RELEASE)
    }
    assert referred
    assert referred <= there


@every_preset
def test_every_volume_of_a_pod_is_mounted_and_every_mount_is_of_one(path: Path) -> None:
    for one in of(path):
        if one["kind"] in {"Deployment", "StatefulSet", "Pod"}:
            claims = [claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", [])]
            volumes = [volume["name"] for volume in pod_of(one)["spec"].get("volumes", [])]
            assert sorted(claims + volumes) == sorted(
                mount["name"] for mount in container_of(one).get("volumeMounts", [])
            )


def test_a_cluster_that_is_too_old_is_refused() -> None:
    refused = template(preset(PRESETS[0]), kubernetes="1.29.9")

    assert refused.returncode != 0
    assert "requires kubeVersion: >=1.30.0-0" in refused.stderr


def test_the_least_that_works_is_three_lines() -> None:
    values: Object = preset(CHART / "ci/default-values.yaml")

    assert values == {"models": {"qwen": {"vllm": {"model": "Qwen/Qwen3-0.6B"}}}}


def test_callers_have_left_a_gateway_of_the_simulators_preset_before_it_refuses_them() -> None:
    for name in ("simulator", "production"):
        settings = of(CHART / f"ci/{name}-values.yaml").settings()
        # gRPC ends a connection up to a tenth later than it is told to.
        assert int(settings["SERVER__DRAIN_DELAY_MS"]) > 1.1 * int(settings["SERVER__MAX_CONNECTION_AGE_MS"])


@every_preset
def test_nodes_that_no_gateway_may_run_on_do_not_hold_its_spread_up(path: Path) -> None:
    spread = pod_of(of(path).one("Deployment"))["spec"]["topologySpreadConstraints"]

    strict = [one for one in spread if one["whenUnsatisfiable"] == "DoNotSchedule"]
    assert [one.get("nodeTaintsPolicy") for one in strict] == ["Honor"] * len(strict)


def test_the_simulators_preset_fits_two_cores() -> None:
    manifests = of(CHART / "ci/simulator-values.yaml")

    cpu = sum(
        one["spec"]["replicas"] * int(container["resources"]["requests"]["cpu"].removesuffix("m"))
        for one in manifests.all("Deployment")
        for container in one["spec"]["template"]["spec"]["containers"]
    )
    assert cpu <= 500
