# SPDX-License-Identifier: Apache-2.0
"""The gateway's Deployment."""

from __future__ import annotations

import re

import pytest
from typer.main import get_group

import llm_gateway
from llm_gateway.cli import app
from llm_gateway.health import LIVENESS, READINESS
from tests.chart.rendering import (
    CHART,
    ONE_GPU,
    RELEASE,
    SIMULATED,
    Object,
    container_of,
    merged,
    nested,
    pod_of,
    preset,
    render,
)

DIGEST = "sha256:" + "0" * 64


def container(*values: Object) -> Object:
    return container_of(render(SIMULATED, *values).one("Deployment"))


def pod(*values: Object) -> Object:
    spec: Object = pod_of(render(SIMULATED, *values).one("Deployment"))["spec"]
    return spec


def test_the_charts_application_is_the_package() -> None:
    assert preset(CHART / "Chart.yaml")["appVersion"] == llm_gateway.__version__


def options_of(command: str) -> set[str]:
    """The options of one of the program's commands."""
    commands = get_group(app).commands
    return {option for parameter in commands[command].params for option in parameter.opts}


@pytest.mark.parametrize(
    ("image", "pulled"),
    [
        ({}, f"llm-gateway:{llm_gateway.__version__}"),
        ({"registry": "registry.example.com", "repository": "a/b", "tag": "1"}, "registry.example.com/a/b:1"),
        ({"registry": "registry.example.com:5000"}, f"registry.example.com:5000/llm-gateway:{llm_gateway.__version__}"),
        ({"tag": "1", "digest": DIGEST}, f"llm-gateway:1@{DIGEST}"),
        ({"tag": f"dev@{DIGEST}"}, f"llm-gateway:dev@{DIGEST}"),
    ],
    ids=["default", "registry", "registry-with-port", "digest", "tag-with-digest"],
)
def test_its_image_is_named_by_its_parts(image: Object, pulled: str) -> None:
    assert container({"image": image})["image"] == pulled


def test_it_serves() -> None:
    gateway = container()

    assert gateway["args"] == ["serve"]
    assert "command" not in gateway
    assert gateway["imagePullPolicy"] == "IfNotPresent"


def test_probes_ask_by_grpc_and_liveness_asks_something_else_than_readiness() -> None:
    gateway = container({"settings": {"PORT": 6000}})

    services = {probe: gateway[probe]["grpc"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {asked["port"] for asked in services.values()} == {6000}
    assert {probe: asked["service"] for probe, asked in services.items()} == {
        "startupProbe": READINESS,
        "readinessProbe": READINESS,
        "livenessProbe": LIVENESS,
    }


def test_it_has_a_minute_to_start_and_is_found_unready_within_seconds() -> None:
    gateway = container()

    start, ready, live = (gateway[probe] for probe in ("startupProbe", "readinessProbe", "livenessProbe"))
    assert (start["periodSeconds"], start["failureThreshold"]) == (1, 60)
    assert (ready["periodSeconds"], ready["timeoutSeconds"]) == (5, 2)
    assert (live["periodSeconds"], live["timeoutSeconds"]) == (10, 5)


@pytest.mark.parametrize(
    ("delay", "grace", "seconds"),
    [(2000, 600_000, 612), (0, 0, 10), (1, 0, 11), (1500, 1500, 13), (25_000, 600_001, 636)],
)
def test_it_has_as_long_to_end_as_its_drain_may_take_and_ten_seconds(delay: int, grace: int, seconds: int) -> None:
    drain = {"SERVER__DRAIN_DELAY_MS": delay, "SERVER__DRAIN_GRACE_MS": grace}

    assert pod({"settings": drain})["terminationGracePeriodSeconds"] == seconds


def test_it_drains_by_itself_and_needs_no_hook() -> None:
    assert "lifecycle" not in container()


def test_a_rollout_takes_no_pod_away_before_another_one_is_ready() -> None:
    spec = render(SIMULATED).one("Deployment")["spec"]

    assert spec["replicas"] == 2
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


@pytest.mark.parametrize(("part", "ending"), [("gateway", ""), ("vllm", "-engine-qwen"), ("simulator", "-engine-sim")])
def test_pods_that_are_replaced_all_at_once_have_no_rolling_update(part: str, ending: str) -> None:
    manifests = render(merged(SIMULATED, ONE_GPU), nested(f"{part}.strategy.type", "Recreate"))

    assert manifests.one("Deployment", ending)["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize(
    ("settings", "ports"),
    [
        ({}, {"grpc": 50052}),
        ({"METRICS__ENABLED": True}, {"grpc": 50052, "metrics": 9090}),
        ({"ADMIN__ENABLED": True}, {"grpc": 50052}),
        ({"ADMIN__ENABLED": True, "ADMIN__HOST": "0.0.0.0"}, {"grpc": 50052, "admin": 50053}),  # noqa: S104
        ({"ADMIN__HOST": "0.0.0.0"}, {"grpc": 50052}),  # noqa: S104
        ({"PORT": 6000, "METRICS__ENABLED": True, "METRICS__PORT": 6001}, {"grpc": 6000, "metrics": 6001}),
    ],
    ids=["default", "metrics", "admin-on-loopback", "admin", "admin-off", "other-ports"],
)
def test_it_names_the_ports_that_others_reach(settings: Object, ports: dict[str, int]) -> None:
    named = container({"settings": settings})["ports"]

    assert {port["name"]: port["containerPort"] for port in named} == ports


def test_its_pods_are_spread_over_nodes_and_only_those_of_one_rollout_are_counted() -> None:
    manifests = render(SIMULATED)

    (spread,) = pod_of(manifests.one("Deployment"))["spec"]["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "ScheduleAnyway")
    assert spread["labelSelector"] == manifests.one("Deployment")["spec"]["selector"]
    assert spread["matchLabelKeys"] == ["pod-template-hash"]


def test_a_selector_of_ones_own_stays() -> None:
    own = {
        "maxSkew": 1,
        "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {}},
    }

    (spread,) = pod({"gateway": {"topologySpreadConstraints": [own]}})["topologySpreadConstraints"]

    assert spread["labelSelector"] == {"matchLabels": {}}


def test_it_is_placed_as_the_values_say() -> None:
    wishes: Object = {
        "priorityClassName": "high",
        "nodeSelector": {"pool": "cpu"},
        "tolerations": [{"key": "cpu", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
    }

    placed = pod({"gateway": wishes})

    assert {field: placed[field] for field in wishes} == wishes
    assert pod({"gateway": {"topologySpreadConstraints": []}}).keys().isdisjoint({*wishes, "topologySpreadConstraints"})


def test_its_resources_are_requested_and_its_memory_is_bounded() -> None:
    assert container()["resources"] == {
        "requests": {"cpu": "500m", "memory": "256Mi"},
        "limits": {"memory": "1Gi"},
    }


def test_further_variables_volumes_labels_and_annotations_are_its_own() -> None:
    extra: Object = {
        "extraEnv": [{"name": "SSL_CERT_FILE", "value": "/certificates/ca.crt"}],
        "extraVolumes": [{"name": "certificates", "configMap": {"name": "certificates"}}],
        "extraVolumeMounts": [{"name": "certificates", "mountPath": "/certificates"}],
        "podLabels": {"team": "a"},
        "podAnnotations": {"note": "b"},
    }
    manifests = render(SIMULATED, {"gateway": extra})

    deployment = manifests.one("Deployment")
    metadata = pod_of(deployment)["metadata"]
    assert extra["extraEnv"][0] in container_of(deployment)["env"]
    assert extra["extraVolumes"][0] in pod_of(deployment)["spec"]["volumes"]
    assert extra["extraVolumeMounts"][0] in container_of(deployment)["volumeMounts"]
    assert (metadata["labels"]["team"], metadata["annotations"]["note"]) == ("a", "b")
    assert "team" not in pod_of(manifests.one("Deployment", "-engine-sim"))["metadata"]["labels"]


def test_images_are_pulled_with_the_secrets_that_are_named() -> None:
    manifests = render(SIMULATED, {"imagePullSecrets": [{"name": "registry"}]})

    pods = [pod_of(one)["spec"] for one in [*manifests.all("Deployment"), *manifests.all("Pod")]]
    assert [one["imagePullSecrets"] for one in pods] == [[{"name": "registry"}]] * 3


@pytest.mark.parametrize(
    ("account", "name", "made"),
    [
        ({}, f"{RELEASE}-llm-gateway", True),
        ({"name": "mine"}, "mine", True),
        ({"create": False, "name": "theirs"}, "theirs", False),
        ({"create": False}, "default", False),
    ],
    ids=["default", "named", "existing", "none"],
)
def test_pods_have_the_service_account_that_is_named(account: Object, name: str, made: bool) -> None:
    manifests = render(SIMULATED, {"serviceAccount": account})

    assert {pod_of(one)["spec"]["serviceAccountName"] for one in manifests.all("Deployment")} == {name}
    assert manifests.names("ServiceAccount") == ([name] if made else [])


def test_annotations_of_the_service_account_are_its_own() -> None:
    manifests = render(SIMULATED, nested("serviceAccount.annotations", {"role": "reader"}))

    assert manifests.one("ServiceAccount")["metadata"]["annotations"] == {"role": "reader"}


def test_helm_test_streams_an_answer_through_the_service_and_leaves_nothing() -> None:
    manifests = render(SIMULATED, {"test": {"prompt": "Hi", "maxTokens": 3, "timeoutSeconds": 9}})

    test = manifests.one("Pod", "-test-stream")
    annotations = test["metadata"]["annotations"]
    service = manifests.one("Service")["metadata"]
    assert annotations["helm.sh/hook"] == "test"
    assert "hook-succeeded" in annotations["helm.sh/hook-delete-policy"]
    assert (test["spec"]["restartPolicy"], test["spec"]["activeDeadlineSeconds"]) == ("OnFailure", 9)
    assert container_of(test)["command"] == ["llm-gateway"], "the dev loop's entry point would never end"
    assert container_of(test)["args"] == [
        *("chat", "--json", "--address", f"{service['name']}.{service['namespace']}:50052"),
        *("--model", "sim", "--max-tokens", "3", "--timeout", "9", "Hi"),
    ]


def test_helm_test_asks_the_model_that_is_named() -> None:
    manifests = render(SIMULATED, {"models": {"a": {"engine": "simulator", "aliases": ["b"]}}, "test": {"model": "b"}})

    arguments = container_of(manifests.one("Pod", "-test-stream"))["args"]
    assert arguments[arguments.index("--model") + 1] == "b"


def test_the_options_that_helm_test_gives_are_those_that_the_program_has() -> None:
    options = re.findall(r"--[a-z-]+", " ".join(container_of(render(SIMULATED).one("Pod", "-test-stream"))["args"]))

    assert set(options) <= options_of("chat")


def test_the_options_that_a_simulator_is_given_are_those_that_the_program_has() -> None:
    arguments = container_of(render(SIMULATED).one("Deployment", "-engine-sim"))["args"]

    assert {argument for argument in arguments if argument.startswith("--")} <= options_of("simulate")
