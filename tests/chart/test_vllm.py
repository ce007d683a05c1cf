# SPDX-License-Identifier: Apache-2.0
"""A vLLM: its command, its GPUs, its volumes, and how it comes and goes."""

from __future__ import annotations

import json

import pytest

from tests.chart.rendering import (
    ONE_GPU,
    RELEASE,
    Manifests,
    Object,
    container_of,
    environment_of,
    merged,
    pod_of,
    render,
)

NAME = f"{RELEASE}-llm-gateway-engine-qwen"
LORAS = [{"name": "sql", "path": "org/sql"}, {"name": "chat", "path": "/adapters/chat"}]


def with_vllm(said: Object, *others: Object) -> Manifests:
    """One vLLM with these values of its own."""
    return render(ONE_GPU, {"models": {"qwen": {"vllm": said}}}, *others)


def container(said: Object, *others: Object) -> Object:
    return container_of(with_vllm(said, *others).one("Deployment", NAME))


def pod(said: Object, *others: Object) -> Object:
    spec: Object = pod_of(with_vllm(said, *others).one("Deployment", NAME))["spec"]
    return spec


def volumes(spec: Object) -> dict[str, Object]:
    return {volume["name"]: volume for volume in spec["volumes"]}


def mounts(spec: Object) -> dict[str, str]:
    (only,) = spec["containers"]
    return {mount["name"]: mount["mountPath"] for mount in only["volumeMounts"]}


def test_its_command_says_all_that_it_must_know() -> None:
    vllm = container({})

    assert vllm["command"] == ["vllm", "serve"]
    assert vllm["args"] == [
        "Qwen/Qwen3-0.6B",
        *("--host", "0.0.0.0", "--port", "8000"),  # noqa: S104
        *("--served-model-name", "qwen"),
        *("--shutdown-timeout", "600"),
        *("--enable-request-id-headers", "--enable-prompt-tokens-details"),
        *("--disable-access-log-for-endpoints", "/health,/metrics"),
    ]


@pytest.mark.parametrize(
    ("said", "arguments"),
    [
        ({"tensorParallelSize": 4}, ["--tensor-parallel-size", "4"]),
        ({"dtype": "bfloat16"}, ["--dtype", "bfloat16"]),
        ({"quantization": "fp8"}, ["--quantization", "fp8"]),
        ({"maxModelLen": 1_048_576}, ["--max-model-len", "1048576"]),
        ({"maxNumSeqs": 64}, ["--max-num-seqs", "64"]),
        ({"maxNumQueuedReqs": 128}, ["--max-num-queued-reqs", "128"]),
        ({"gpuMemoryUtilization": 0.85}, ["--gpu-memory-utilization", "0.85"]),
        ({"toolCallParser": "hermes"}, ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]),
        ({"reasoningParser": "qwen3"}, ["--reasoning-parser", "qwen3"]),
        (
            {"loraAdapters": LORAS},
            ["--enable-lora", "--lora-modules", *(json.dumps(one, separators=(",", ":")) for one in LORAS)],
        ),
        ({"args": ["--enforce-eager", "--seed=1"]}, ["--enforce-eager", "--seed=1"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_set_is_an_argument_and_what_is_not_is_left_to_vllm(said: Object, arguments: list[str]) -> None:
    given = container(said)["args"]

    at = given.index(arguments[0])
    assert given[at : at + len(arguments)] == arguments
    assert len(given) == len(container({})["args"]) + len(arguments)


def test_further_arguments_come_last() -> None:
    assert container({"args": ["--dtype", "half"], "dtype": "auto"})["args"][-2:] == ["--dtype", "half"]


def test_a_model_changes_what_the_defaults_of_all_say_and_only_that() -> None:
    common = {"vllm": {"podLabels": {"a": "1", "b": "2"}, "replicas": 3, "shm": {"sizeLimit": "4Gi"}}}
    own = {"podLabels": {"b": "3", "c": "4"}, "replicas": 2, "shm": {"enabled": False}}

    deployment = with_vllm(own, common).one("Deployment", NAME)

    labels = pod_of(deployment)["metadata"]["labels"]
    assert {label: labels[label] for label in "abc"} == {"a": "1", "b": "3", "c": "4"}
    assert deployment["spec"]["replicas"] == 2
    assert "shm" not in volumes(pod_of(deployment)["spec"])


def test_false_and_0_of_a_model_count_and_null_takes_away() -> None:
    deployment = with_vllm({"replicas": 0, "maxModelLen": None}, {"vllm": {"maxModelLen": 10}}).one("Deployment", NAME)

    assert deployment["spec"]["replicas"] == 0
    assert "--max-model-len" not in container_of(deployment)["args"]


def test_null_takes_nothing_away_where_there_is_nothing() -> None:
    without_requests = {"vllm": {"resources": {"requests": None}}}

    assert container({"resources": {"requests": {"cpu": None}}}, without_requests)["resources"]["requests"] == {}


# ---- GPUs ------------------------------------------------------------------------------------------------------------


def test_it_asks_for_a_gpu_and_for_a_node_that_has_one() -> None:
    spec = pod({})

    (only,) = spec["containers"]
    assert only["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert spec["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert "runtimeClassName" not in spec


@pytest.mark.parametrize(
    ("said", "count"),
    [({"tensorParallelSize": 4}, 4), ({"tensorParallelSize": 2, "gpu": {"count": 8}}, 8), ({"gpu": {"count": 2}}, 2)],
    ids=["tensor-parallel", "both", "count"],
)
def test_it_gets_as_many_gpus_as_it_spreads_the_model_over(said: Object, count: int) -> None:
    assert container(said)["resources"]["limits"]["nvidia.com/gpu"] == count


def test_another_makers_gpu_is_another_resource_on_other_nodes() -> None:
    gpu = {
        "resource": "amd.com/gpu",
        "nodeSelector": {"nvidia.com/gpu.present": None, "amd.com/gpu": "true"},
        "tolerations": [],
        "runtimeClassName": "rocm",
    }

    spec = pod({"gpu": gpu})

    (only,) = spec["containers"]
    assert only["resources"]["limits"]["amd.com/gpu"] == 1
    assert "nvidia.com/gpu" not in only["resources"]["limits"]
    assert spec["nodeSelector"] == {"amd.com/gpu": "true"}
    assert spec["runtimeClassName"] == "rocm"
    assert "tolerations" not in spec


def test_without_a_gpu_nothing_asks_for_one() -> None:
    spec = pod({"gpu": {"count": 0, "runtimeClassName": "nvidia"}, "tensorParallelSize": 2})

    (only,) = spec["containers"]
    assert only["resources"]["limits"] == {"memory": "32Gi"}
    assert spec.keys().isdisjoint({"nodeSelector", "tolerations", "runtimeClassName"})


def test_its_own_wishes_are_beside_those_of_its_gpus() -> None:
    wishes: Object = {
        "nodeSelector": {"zone": "a"},
        "tolerations": [{"key": "team"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "inference",
    }

    spec = pod(wishes)

    assert spec["nodeSelector"] == {"nvidia.com/gpu.present": "true", "zone": "a"}
    assert [one["key"] for one in spec["tolerations"]] == ["nvidia.com/gpu", "team"]
    assert (spec["affinity"], spec["priorityClassName"]) == ({"nodeAffinity": {}}, "inference")


def test_a_rollout_needs_no_spare_gpu() -> None:
    strategy = with_vllm({}).one("Deployment", NAME)["spec"]["strategy"]

    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}


def test_workers_on_several_gpus_talk_through_memory() -> None:
    spec = pod({"shm": {"sizeLimit": "8Gi"}})

    assert volumes(spec)["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
    assert mounts(spec)["shm"] == "/dev/shm"  # noqa: S108


def test_resources_are_those_of_the_values() -> None:
    said = {"resources": {"requests": {"cpu": "8"}, "limits": {"memory": "64Gi"}}}

    assert container(said)["resources"] == {
        "requests": {"cpu": "8", "memory": "16Gi"},
        "limits": {"memory": "64Gi", "nvidia.com/gpu": 1},
    }


# ---- the model and its volume ----------------------------------------------------------------------------------------


def test_an_image_is_pinned_by_its_digest() -> None:
    assert container({})["image"] == "vllm/vllm-openai:v0.33.0"
    assert container({"image": {"digest": "sha256:1"}})["image"] == "vllm/vllm-openai:v0.33.0@sha256:1"
    assert (
        container({"image": {"registry": "r.io", "pullPolicy": "Always"}})["image"] == "r.io/vllm/vllm-openai:v0.33.0"
    )


def test_the_token_of_the_hub_comes_from_a_secret() -> None:
    deployment = with_vllm({"hfToken": {"existingSecret": "hugging-face"}}).one("Deployment", NAME)

    assert environment_of(deployment)["HF_TOKEN"] == {"secretKeyRef": {"name": "hugging-face", "key": "token"}}
    assert "HF_TOKEN" not in environment_of(with_vllm({}).one("Deployment", NAME))


def test_models_and_what_is_compiled_are_kept_in_the_cache() -> None:
    deployment = with_vllm({}).one("Deployment", NAME)

    environment = environment_of(deployment)
    spec = pod_of(deployment)["spec"]
    assert (environment["HF_HOME"], environment["VLLM_CACHE_ROOT"]) == ("/cache/huggingface", "/cache/vllm")
    assert volumes(spec)["cache"]["emptyDir"] == {"sizeLimit": "100Gi"}
    assert mounts(spec)["cache"] == "/cache"


def test_a_claim_is_made_and_outlives_the_release() -> None:
    cache = {"type": "pvc", "size": "30Gi", "storageClassName": "fast"}

    manifests = with_vllm({"cache": cache})

    claim = manifests.one("PersistentVolumeClaim", NAME)
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "fast",
        "resources": {"requests": {"storage": "30Gi"}},
    }
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    spec = pod_of(manifests.one("Deployment", NAME))["spec"]
    assert volumes(spec)["cache"]["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"]}


def test_a_claim_goes_with_the_release_where_it_is_not_kept() -> None:
    claim = with_vllm({"cache": {"type": "pvc", "keep": False}}).one("PersistentVolumeClaim", NAME)

    assert "annotations" not in claim["metadata"]
    assert "storageClassName" not in claim["spec"]


def test_a_claim_that_exists_is_used_and_none_is_made() -> None:
    manifests = with_vllm({"cache": {"type": "existingClaim", "existingClaim": "models"}})

    spec = pod_of(manifests.one("Deployment", NAME))["spec"]
    assert volumes(spec)["cache"]["persistentVolumeClaim"] == {"claimName": "models"}
    assert manifests.all("PersistentVolumeClaim") == []


def test_without_a_cache_all_is_in_the_home_directory() -> None:
    deployment = with_vllm({"cache": {"type": "none"}}).one("Deployment", NAME)

    spec = pod_of(deployment)["spec"]
    assert "cache" not in volumes(spec)
    assert environment_of(deployment)["HF_HOME"].startswith(mounts(spec)["home"] + "/")


@pytest.mark.parametrize(("keep", "policy"), [(True, "Retain"), (False, "Delete")])
def test_each_replica_of_a_stateful_set_has_a_claim_of_its_own(keep: bool, policy: str) -> None:
    manifests = with_vllm(
        {"kind": "StatefulSet", "replicas": 2, "cache": {"type": "pvc", "size": "30Gi", "keep": keep}}
    )

    stateful = manifests.one("StatefulSet", NAME)
    (claim,) = stateful["spec"]["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "cache"
    assert claim["spec"]["resources"]["requests"]["storage"] == "30Gi"
    assert stateful["spec"]["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": policy, "whenScaled": "Retain"}
    assert "cache" not in volumes(pod_of(stateful)["spec"])
    assert mounts(pod_of(stateful)["spec"])["cache"] == "/cache"
    assert manifests.all("PersistentVolumeClaim") == []


def test_a_stateful_set_is_behind_the_same_service_and_starts_all_at_once() -> None:
    manifests = with_vllm({"kind": "StatefulSet"})

    stateful = manifests.one("StatefulSet", NAME)
    assert stateful["spec"]["serviceName"] == manifests.one("Service", NAME)["metadata"]["name"]
    assert stateful["spec"]["podManagementPolicy"] == "Parallel"
    assert "strategy" not in stateful["spec"]
    assert "volumeClaimTemplates" not in stateful["spec"]


def test_further_volumes_variables_and_annotations_are_its_own() -> None:
    said: Object = {
        "env": [{"name": "VLLM_LOGGING_LEVEL", "value": "DEBUG"}],
        "extraVolumes": [{"name": "adapters", "persistentVolumeClaim": {"claimName": "adapters"}}],
        "extraVolumeMounts": [{"name": "adapters", "mountPath": "/adapters"}],
        "podAnnotations": {"note": "x"},
    }

    deployment = with_vllm(said).one("Deployment", NAME)

    spec = pod_of(deployment)["spec"]
    assert environment_of(deployment)["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert volumes(spec)["adapters"] == said["extraVolumes"][0]
    assert mounts(spec)["adapters"] == "/adapters"
    assert pod_of(deployment)["metadata"]["annotations"] == {"note": "x"}


# ---- coming and going ------------------------------------------------------------------------------------------------


def test_it_has_an_hour_to_load_and_vllm_and_the_rollout_know_it() -> None:
    deployment = with_vllm({}).one("Deployment", NAME)

    probe = container_of(deployment)["startupProbe"]
    seconds = probe["periodSeconds"] * probe["failureThreshold"]
    assert seconds == 3600
    assert environment_of(deployment)["VLLM_ENGINE_READY_TIMEOUT_S"] == str(seconds)
    grace = pod_of(deployment)["spec"]["terminationGracePeriodSeconds"]
    assert deployment["spec"]["progressDeadlineSeconds"] == seconds + 600 + grace, "its forerunner may drain as long"


def test_a_longer_load_moves_them_all() -> None:
    deployment = with_vllm({"startupProbe": {"periodSeconds": 20}}).one("Deployment", NAME)

    assert environment_of(deployment)["VLLM_ENGINE_READY_TIMEOUT_S"] == "7200"
    assert deployment["spec"]["progressDeadlineSeconds"] == 7800 + 625


def test_it_is_asked_for_its_health_and_restarted_only_after_a_minute() -> None:
    vllm = container({})

    probes = {name: vllm[name] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert all(probe["httpGet"] == {"path": "/health", "port": "http"} for probe in probes.values())
    assert [probe["timeoutSeconds"] for probe in probes.values()] == [5, 3, 5]
    assert vllm["ports"] == [{"name": "http", "containerPort": 8000}]
    assert probes["livenessProbe"]["periodSeconds"] * probes["livenessProbe"]["failureThreshold"] == 60
    assert probes["readinessProbe"]["periodSeconds"] * probes["readinessProbe"]["failureThreshold"] == 15


@pytest.mark.parametrize("probe", ["readinessProbe", "livenessProbe"])
def test_a_probe_that_is_null_is_not_there(probe: str) -> None:
    assert probe not in container({probe: None})
    assert probe not in container({}, {"vllm": {probe: None}})


@pytest.mark.parametrize(
    ("said", "timeout_ms", "pre_stop", "drain", "grace"),
    [
        ({}, 600_000, 15, "600", 625),
        ({}, 30_001, 15, "31", 56),
        ({"shutdown": {"preStopSeconds": 40}}, 600_000, 40, "600", 650),
        ({"shutdown": {"drainSeconds": 0}}, 600_000, 15, "0", 25),
        ({"shutdown": {"drainSeconds": 7200}}, 600_000, 15, "7200", 7225),
    ],
)
def test_it_leaves_its_service_first_and_then_ends_its_streams(
    said: Object, timeout_ms: int, pre_stop: int, drain: str, grace: int
) -> None:
    spec = pod(said, {"settings": {"TIMEOUT_MS": timeout_ms}})

    (only,) = spec["containers"]
    arguments = only["args"]
    assert only["lifecycle"] == {"preStop": {"sleep": {"seconds": pre_stop}}}
    assert arguments[arguments.index("--shutdown-timeout") + 1] == drain
    assert spec["terminationGracePeriodSeconds"] == grace


def test_it_reports_to_nobody_and_keeps_connections_longer_than_the_gateway_does() -> None:
    environment = environment_of(with_vllm({}).one("Deployment", NAME))

    assert (environment["VLLM_NO_USAGE_STATS"], environment["DO_NOT_TRACK"]) == ("1", "1")
    assert environment["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"] == "75"


def test_a_new_version_of_chart_and_gateway_leaves_it_alone() -> None:
    template = pod_of(with_vllm({}, {"image": {"tag": "2"}, "commonLabels": {}}).one("Deployment", NAME))

    assert template == pod_of(with_vllm({}).one("Deployment", NAME))
    assert [label for label in template["metadata"]["labels"] if "version" in label or "chart" in label] == []


def test_two_models_are_two_engines() -> None:
    manifests = render(merged(ONE_GPU, {"models": {"tiny": {"vllm": {"model": "/models/tiny"}}}}))

    names = [f"{RELEASE}-llm-gateway-engine-{key}" for key in ("qwen", "tiny")]
    assert set(names) < set(manifests.names("Deployment"))
    selectors = [manifests.one("Deployment", name)["spec"]["selector"]["matchLabels"] for name in names]
    assert [selector["llm-gateway/model"] for selector in selectors] == ["qwen", "tiny"]
