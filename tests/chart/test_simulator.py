# SPDX-License-Identifier: Apache-2.0
"""A simulator: it stands where a vLLM would, from the gateway's own image."""

from __future__ import annotations

from tests.chart.rendering import (
    ONE_GPU,
    RELEASE,
    SIMULATED,
    Object,
    container_of,
    environment_of,
    merged,
    pod_of,
    render,
)

NAME = f"{RELEASE}-llm-gateway-engine-sim"
WITH_KEY: Object = {"secrets": {"values": {"VLLM_API_KEY": "key"}}}


def simulator(said: Object | None = None, *others: Object) -> Object:
    """Its Deployment."""
    return render(SIMULATED, {"models": {"sim": {"simulator": said or {}}}}, *others).one("Deployment", NAME)


def test_its_command_says_what_it_is_to_be() -> None:
    container = container_of(simulator())

    arguments = container["args"]
    assert "command" not in container
    assert arguments[:7] == ["simulate", "--host", "0.0.0.0", "--port", "8000", "--model", "sim"]  # noqa: S104
    assert dict(zip(arguments[7::2], arguments[8::2], strict=True)) == {
        "--ttft-ms": "200",
        "--pace-ms": "30",
        "--tokens": "60",
        "--max-model-len": "2048",
        "--shutdown-timeout": "600",
    }


def test_it_is_asked_for_its_health_as_a_vllm_is_and_starts_in_seconds() -> None:
    container = container_of(simulator())

    probes = [container[probe] for probe in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert [probe["httpGet"] for probe in probes] == [{"path": "/health", "port": "http"}] * 3
    assert [probe["periodSeconds"] for probe in probes] == [1, 2, 10]
    assert (probes[0]["failureThreshold"], probes[2]["timeoutSeconds"]) == (60, 5)
    assert container["ports"] == [{"name": "http", "containerPort": 8000}]


def test_its_image_is_the_gateways() -> None:
    manifests = render(SIMULATED, {"image": {"tag": "7", "pullPolicy": "Never"}})

    containers = [container_of(one) for one in [*manifests.all("Deployment"), *manifests.all("Pod")]]
    assert {(one["image"], one["imagePullPolicy"]) for one in containers} == {("llm-gateway:7", "Never")}


def test_its_speed_and_further_arguments_are_values() -> None:
    said = {"ttftMs": 0, "paceMs": 5, "tokens": 7, "maxModelLen": 100_000, "args": ["--request-id-headers"]}

    arguments = container_of(simulator(said))["args"]

    pairs = dict(zip(arguments[7:-1:2], arguments[8:-1:2], strict=True))
    assert (pairs["--ttft-ms"], pairs["--pace-ms"], pairs["--tokens"]) == ("0", "5", "7")
    assert pairs["--max-model-len"] == "100000"
    assert arguments[-1] == "--request-id-headers"


def test_it_comes_and_goes_as_a_vllm_does() -> None:
    said = {"shutdown": {"preStopSeconds": 20, "drainSeconds": 50}}
    values = merged(ONE_GPU, SIMULATED, {"models": {"qwen": {"vllm": said}, "sim": {"simulator": said}}})

    specs = [pod_of(render(values).one("Deployment", name))["spec"] for name in ("-engine-qwen", "-engine-sim")]

    for spec in specs:
        (container,) = spec["containers"]
        arguments = container["args"]
        assert container["lifecycle"] == {"preStop": {"sleep": {"seconds": 20}}}
        assert arguments[arguments.index("--shutdown-timeout") + 1] == "50"
        assert spec["terminationGracePeriodSeconds"] == 80


def test_it_wants_the_key_that_a_vllm_would() -> None:
    named = {"secretKeyRef": {"name": f"{RELEASE}-llm-gateway", "key": "VLLM_API_KEY"}}

    assert environment_of(simulator({}, WITH_KEY)) == {"VLLM_API_KEY": named}
    assert environment_of(simulator()) == {}


def test_two_of_them_are_replaced_without_a_gap() -> None:
    spec = simulator()["spec"]

    assert spec["replicas"] == 2
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_it_needs_no_gpu_and_no_volume_but_for_temporary_files() -> None:
    spec = pod_of(simulator())["spec"]

    assert spec.keys().isdisjoint({"nodeSelector", "tolerations", "runtimeClassName"})
    assert spec["volumes"] == [{"name": "tmp", "emptyDir": {}}]
    assert container_of(simulator())["resources"]["limits"] == {"memory": "512Mi"}


def test_it_is_placed_and_labelled_as_the_values_say() -> None:
    said: Object = {
        "nodeSelector": {"pool": "cpu"},
        "tolerations": [{"key": "cpu"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "low",
        "podLabels": {"team": "a"},
        "podAnnotations": {"note": "b"},
    }

    pod = pod_of(simulator(said))

    assert {field: pod["spec"][field] for field in list(said)[:4]} == dict(list(said.items())[:4])
    assert (pod["metadata"]["labels"]["team"], pod["metadata"]["annotations"]) == ("a", {"note": "b"})
