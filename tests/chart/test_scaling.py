# SPDX-License-Identifier: Apache-2.0
"""How many pods there are, who decides it, and what reads their metrics."""

from __future__ import annotations

import pytest

from tests.chart.rendering import NAMESPACE, ONE_GPU, RELEASE, SIMULATED, Object, merged, nested, render

GATEWAY = f"{RELEASE}-llm-gateway"
ENGINE = f"{GATEWAY}-engine-qwen"
AUTOSCALED = nested("gateway.autoscaling.enabled", True)
KEDA: Object = {"enabled": True, "prometheusAddress": "http://prometheus:9090", "minReplicas": 2, "maxReplicas": 6}
WITH_KEDA = nested("models.qwen.vllm", {"keda": KEDA, "serviceMonitor": {"enabled": True}})
WITH_METRICS: Object = {"settings": {"METRICS__ENABLED": True}, "gateway": {"serviceMonitor": {"enabled": True}}}


# ---- the gateway -----------------------------------------------------------------------------------------------------


def test_the_gateway_is_scaled_on_cpu() -> None:
    manifests = render(SIMULATED, AUTOSCALED)

    spec = manifests.one("HorizontalPodAutoscaler")["spec"]
    (metric,) = spec["metrics"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": GATEWAY}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 10)
    assert metric["resource"] == {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}


def test_who_scales_is_not_contradicted_by_replicas() -> None:
    assert "replicas" not in render(SIMULATED, AUTOSCALED).one("Deployment")["spec"]
    assert render(SIMULATED).all("HorizontalPodAutoscaler") == []


def test_the_gateway_is_scaled_on_ones_own_metrics() -> None:
    own = {
        "type": "Pods",
        "pods": {"metric": {"name": "calls"}, "target": {"type": "AverageValue", "averageValue": "100"}},
    }

    both = render(SIMULATED, AUTOSCALED, nested("gateway.autoscaling.metrics", [own]))
    alone = render(
        SIMULATED, AUTOSCALED, nested("gateway.autoscaling", {"metrics": [own], "targetCPUUtilizationPercentage": None})
    )

    assert [metric["type"] for metric in both.one("HorizontalPodAutoscaler")["spec"]["metrics"]] == ["Resource", "Pods"]
    assert alone.one("HorizontalPodAutoscaler")["spec"]["metrics"] == [own]


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ({}, 612),
        ({"settings": {"SERVER__DRAIN_GRACE_MS": 86_400_000}}, 3600),
        ({"gateway": {"autoscaling": {"scaleDownStabilizationSeconds": 0}}}, 0),
        ({"gateway": {"autoscaling": {"scaleDownStabilizationSeconds": 60}}}, 60),
    ],
    ids=["a-drain", "no-more-than-kubernetes-takes", "none", "given"],
)
def test_no_pod_goes_while_the_one_before_it_may_still_drain(values: Object, seconds: int) -> None:
    behaviour = render(SIMULATED, AUTOSCALED, values).one("HorizontalPodAutoscaler")["spec"]["behavior"]

    assert behaviour["scaleDown"]["stabilizationWindowSeconds"] == seconds


@pytest.mark.parametrize(
    ("values", "made"),
    [
        ({}, True),
        ({"gateway": {"replicas": 1}}, False),
        ({"gateway": {"podDisruptionBudget": {"enabled": False}}}, False),
        (merged(AUTOSCALED, {"gateway": {"replicas": 1}}), True),
        (merged(AUTOSCALED, nested("gateway.autoscaling.minReplicas", 1)), False),
    ],
    ids=["two", "one", "off", "scaled-from-two", "scaled-from-one"],
)
def test_a_budget_keeps_evictions_in_turn_and_never_pins_a_single_pod(values: Object, made: bool) -> None:
    assert (GATEWAY in render(SIMULATED, values).names("PodDisruptionBudget")) is made


def test_a_budget_lets_a_broken_pod_go() -> None:
    manifests = render(SIMULATED, nested("gateway.podDisruptionBudget.maxUnavailable", "50%"))

    spec = manifests.one("PodDisruptionBudget")["spec"]
    assert spec["maxUnavailable"] == "50%"
    assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert spec["selector"] == manifests.one("Deployment")["spec"]["selector"]


# ---- engines ---------------------------------------------------------------------------------------------------------


def test_a_vllm_is_scaled_on_requests_that_wait_in_it() -> None:
    manifests = render(ONE_GPU, WITH_KEDA)

    spec = manifests.one("ScaledObject", ENGINE)["spec"]
    (trigger,) = spec["triggers"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": ENGINE}
    assert (spec["minReplicaCount"], spec["maxReplicaCount"], spec["pollingInterval"]) == (2, 6, 15)
    assert trigger["metadata"] == {
        "serverAddress": "http://prometheus:9090",
        "query": f'sum(vllm:num_requests_waiting{{namespace="{NAMESPACE}",service="{ENGINE}"}})',
        "threshold": "8",
    }
    assert "replicas" not in manifests.one("Deployment", ENGINE)["spec"]


def test_what_keda_is_told_are_values() -> None:
    said = {"waitingRequests": 3, "pollingInterval": 5, "scaleDownStabilizationSeconds": 60}

    spec = render(ONE_GPU, WITH_KEDA, nested("models.qwen.vllm.keda", said)).one("ScaledObject", ENGINE)["spec"]

    behaviour = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert spec["triggers"][0]["metadata"]["threshold"] == "3"
    assert spec["pollingInterval"] == 5
    assert behaviour["scaleDown"]["stabilizationWindowSeconds"] == 60


def test_whose_metrics_have_other_labels_asks_in_other_words() -> None:
    own = 'sum(vllm:num_requests_waiting{pod=~"qwen.*"})'
    values = nested("models.qwen.vllm.keda", KEDA | {"query": own})

    (trigger,) = render(ONE_GPU, values).one("ScaledObject", ENGINE)["spec"]["triggers"]

    assert trigger["metadata"]["query"] == own


def test_a_stateful_set_is_scaled_as_well() -> None:
    manifests = render(ONE_GPU, WITH_KEDA, nested("models.qwen.vllm.kind", "StatefulSet"))

    assert manifests.one("ScaledObject", ENGINE)["spec"]["scaleTargetRef"]["kind"] == "StatefulSet"
    assert "replicas" not in manifests.one("StatefulSet", ENGINE)["spec"]


@pytest.mark.parametrize(
    ("values", "made"),
    [
        ({}, False),
        (nested("models.qwen.vllm.replicas", 2), True),
        (nested("models.qwen.vllm", {"replicas": 2, "podDisruptionBudget": {"enabled": False}}), False),
        (WITH_KEDA, True),
        (merged(WITH_KEDA, nested("models.qwen.vllm.keda.minReplicas", 1)), False),
    ],
    ids=["one", "two", "off", "scaled-from-two", "scaled-from-one"],
)
def test_an_engine_with_several_pods_has_a_budget(values: Object, made: bool) -> None:
    assert (ENGINE in render(ONE_GPU, values).names("PodDisruptionBudget")) is made


def test_simulators_have_a_budget_of_their_own() -> None:
    manifests = render(SIMULATED)

    budget = manifests.one("PodDisruptionBudget", "-engine-sim")
    assert budget["spec"]["selector"] == manifests.one("Deployment", "-engine-sim")["spec"]["selector"]


# ---- metrics ---------------------------------------------------------------------------------------------------------


def test_prometheus_finds_the_gateways_metrics_at_one_service() -> None:
    manifests = render(
        SIMULATED, WITH_METRICS, nested("gateway.serviceMonitor", {"interval": "5s", "labels": {"a": "b"}})
    )

    monitor = manifests.one("ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    found = [
        (service["metadata"]["name"], port["name"])
        for service in manifests.all("Service")
        for port in service["spec"]["ports"]
        if wanted <= service["metadata"]["labels"].items() and port["name"] == "metrics"
    ]
    assert monitor["spec"]["endpoints"] == [{"port": "metrics", "interval": "5s"}]
    assert monitor["metadata"]["labels"]["a"] == "b"
    assert found == [(f"{GATEWAY}-headless", "metrics")]


def test_prometheus_finds_a_vllms_metrics_at_its_service() -> None:
    manifests = render(ONE_GPU, nested("vllm.serviceMonitor", {"enabled": True, "labels": {"a": "b"}}))

    monitor = manifests.one("ServiceMonitor", ENGINE)
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    found = [one["metadata"]["name"] for one in manifests.all("Service") if wanted <= one["metadata"]["labels"].items()]
    assert monitor["spec"]["endpoints"] == [{"port": "http", "interval": "15s"}]
    assert monitor["metadata"]["labels"]["a"] == "b"
    assert found == [ENGINE]


def test_nobody_is_told_of_metrics_unless_it_is_asked_for() -> None:
    assert render(merged(SIMULATED, ONE_GPU)).all("ServiceMonitor") == []
