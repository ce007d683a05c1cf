# SPDX-License-Identifier: Apache-2.0
"""Names and labels: short enough, different from each other, and never those of another release."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.chart.rendering import (
    CHART,
    ONE_GPU,
    PRESETS,
    SIMULATED,
    Manifests,
    Object,
    merged,
    nested,
    pod_of,
    preset,
    refusal,
    render,
)

if TYPE_CHECKING:
    from pathlib import Path

LONG_RELEASE = "r" * 53
LONG_KEY = "k" * 30
LONG: Object = {
    "models": {LONG_KEY: {"vllm": {"model": "x", "kind": "StatefulSet"}}, "sim": {"engine": "simulator"}},
    "secrets": {"values": {"VLLM_API_KEY": "k"}},
}
DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
VERSIONS = {"app.kubernetes.io/version", "helm.sh/chart", "app.kubernetes.io/managed-by"}


def workloads(manifests: Manifests) -> list[Object]:
    return [*manifests.all("Deployment"), *manifests.all("StatefulSet")]


@pytest.mark.parametrize(
    ("values", "release", "name"),
    [
        ({}, "demo", "demo-llm-gateway"),
        ({}, "llm-gateway", "llm-gateway"),
        ({}, "my-llm-gateway", "my-llm-gateway"),
        ({"nameOverride": "gate"}, "demo", "demo-gate"),
        ({"fullnameOverride": "gate"}, "demo", "gate"),
    ],
    ids=["both", "the-same", "contained", "name", "fullname"],
)
def test_objects_are_called_after_release_and_chart(values: Object, release: str, name: str) -> None:
    manifests = render(SIMULATED, values, release=release)

    assert name in manifests.names("Deployment")
    assert {one.removeprefix(name) for one in manifests.names("Service")} == {"", "-headless", "-engine-sim"}


def test_long_names_are_cut_to_what_kubernetes_takes() -> None:
    manifests = render(LONG, release=LONG_RELEASE)

    names = [one["metadata"]["name"] for one in manifests]
    assert [name for name in names if len(name) > 63 or not DNS_LABEL.fullmatch(name)] == []
    # The pods of a StatefulSet carry a number, and its revisions a hash, in a label of 63 characters at most.
    assert [len(name) <= 52 for name in manifests.names("StatefulSet")] == [True]


def test_what_is_cut_is_still_different() -> None:
    first = render(LONG, release=LONG_RELEASE)
    second = render(LONG, release=LONG_RELEASE[:-1] + "s")

    for manifests in (first, second):
        named = [(one["kind"], one["metadata"]["name"]) for one in manifests]
        assert len(set(named)) == len(named)
    assert {one["metadata"]["name"] for one in first} & {one["metadata"]["name"] for one in second} == set()


def test_labels_are_short_enough() -> None:
    labels = [value for one in render(LONG, release=LONG_RELEASE) for value in one["metadata"]["labels"].values()]

    assert [value for value in labels if len(value) > 63] == []


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_selectors_find_the_pods_of_their_own_and_hold_no_version(path: Path) -> None:
    for workload in workloads(render(preset(path))):
        selector = workload["spec"]["selector"]["matchLabels"]
        assert selector.items() <= pod_of(workload)["metadata"]["labels"].items()
        assert selector.keys().isdisjoint(VERSIONS)


def test_two_parts_or_two_releases_never_select_each_others_pods() -> None:
    values = merged(SIMULATED, ONE_GPU, {"models": {"other": {"engine": "simulator"}}})
    releases = [render(values, release=release) for release in ("a", "b")]

    everything = [workload for manifests in releases for workload in workloads(manifests)]
    for workload in everything:
        selector = workload["spec"]["selector"]["matchLabels"].items()
        selected = [one for one in everything if selector <= pod_of(one)["metadata"]["labels"].items()]
        assert selected == [workload]
    tests = [one["metadata"]["labels"].items() for manifests in releases for one in manifests.all("Pod")]
    selectors = [one["spec"]["selector"] for manifests in releases for one in manifests.all("Service")]
    assert not any(selector.items() <= labels for labels in tests for selector in selectors)


def test_labels_of_ones_own_are_on_all_objects_and_pods_and_in_no_selector() -> None:
    manifests = render(merged(SIMULATED, ONE_GPU), {"commonLabels": {"team": "a"}})

    assert {one["metadata"]["labels"].get("team") for one in manifests} == {"a"}
    assert {pod_of(one)["metadata"]["labels"].get("team") for one in workloads(manifests)} == {"a"}
    assert [one for one in workloads(manifests) if "team" in one["spec"]["selector"]["matchLabels"]] == []


def test_every_object_says_what_it_is_of() -> None:
    version = preset(CHART / "Chart.yaml")["version"]

    labels = [one["metadata"]["labels"] for one in render(merged(SIMULATED, ONE_GPU))]

    assert {one["app.kubernetes.io/name"] for one in labels} == {"llm-gateway"}
    assert {one["app.kubernetes.io/component"] for one in labels} == {"gateway", "engine", "test"}
    assert {one["helm.sh/chart"] for one in labels} == {f"llm-gateway-{version}"}
    assert {one["app.kubernetes.io/managed-by"] for one in labels} == {"Helm"}


def test_every_object_is_in_the_namespace_of_the_release() -> None:
    manifests = render(merged(SIMULATED, ONE_GPU), namespace="elsewhere")

    assert {one["metadata"]["namespace"] for one in manifests} == {"elsewhere"}


@pytest.mark.parametrize("key", ["Qwen", "qwen_3", "3qwen", "qwen.3", "-qwen", "qwen-", "k" * 31, "a/b"])
def test_a_key_that_can_name_no_object_is_refused(key: str) -> None:
    assert f"models.{key}: the key must be 1 to 30 lower case letters, digits and hyphens" in refusal(
        {"models": {key: {"engine": "simulator"}}}
    )


@pytest.mark.parametrize("key", ["a", "qwen-3", "k" * 30])
def test_a_key_that_can_is_taken(key: str) -> None:
    assert list(render({"models": {key: {"engine": "simulator"}}}).models()) == [key]


def test_further_objects_are_filled_in_and_added() -> None:
    written = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-text\n"
    mapped = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": '{{ include "llm-gateway.fullname" . }}-map'},
    }

    manifests = render(SIMULATED, {"extraObjects": [written, mapped]})

    assert {"demo-text", "demo-llm-gateway-map"} <= set(manifests.names("ConfigMap"))


def test_a_parent_chart_may_give_its_global_values() -> None:
    assert render(SIMULATED, nested("global.imageRegistry", "x")).objects == render(SIMULATED).objects
