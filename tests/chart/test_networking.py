# SPDX-License-Identifier: Apache-2.0
"""Who finds whom, and who may talk to whom."""

from __future__ import annotations

import pytest

from tests.chart.rendering import (
    ONE_GPU,
    OPENAI,
    OUTSIDE,
    RELEASE,
    SIMULATED,
    Manifests,
    Object,
    merged,
    nested,
    pod_of,
    render,
)

GATEWAY = f"{RELEASE}-llm-gateway"
METADATA_SERVICES = ("169.254.0.0/16", "fd00:ec2::254/128")
MONITORING = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}


def ingress(manifests: Manifests, ending: str = "") -> dict[int, list[Object]]:
    """Who may reach each port."""
    rules = manifests.one("NetworkPolicy", ending)["spec"]["ingress"]
    return {port["port"]: rule["from"] for rule in rules for port in rule["ports"]}


def egress(manifests: Manifests, ending: str = "") -> dict[int, list[Object] | None]:
    """Who may be reached at each port; None is everybody."""
    rules = manifests.one("NetworkPolicy", ending)["spec"]["egress"]
    return {port["port"]: rule.get("to") for rule in rules for port in rule["ports"]}


def labels_of(manifests: Manifests, ending: str = "") -> set[tuple[str, str]]:
    return set(pod_of(manifests.one("Deployment", ending))["metadata"]["labels"].items())


def picks(peer: Object, labels: set[tuple[str, str]]) -> bool:
    """Whether a peer of the same namespace is the pod with these labels."""
    return "podSelector" in peer and set(peer["podSelector"]["matchLabels"].items()) <= labels


# ---- Services --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [GATEWAY, f"{GATEWAY}-headless"])
def test_callers_speak_http_2_without_tls_to_the_port_of_the_settings(name: str) -> None:
    manifests = render(SIMULATED, {"settings": {"PORT": 6000}})

    (port,) = manifests.one("Service", name)["spec"]["ports"]
    assert port == {"name": "grpc", "port": 6000, "targetPort": "grpc", "appProtocol": "kubernetes.io/h2c"}


def test_one_service_has_an_address_and_the_headless_one_has_those_of_its_pods() -> None:
    manifests = render(SIMULATED)

    one, headless = manifests.one("Service")["spec"], manifests.one("Service", "-headless")["spec"]
    assert (one["type"], headless["clusterIP"]) == ("ClusterIP", "None")
    assert "clusterIP" not in one
    assert one["selector"] == headless["selector"] == manifests.one("Deployment")["spec"]["selector"]["matchLabels"]


def test_nobody_is_sent_to_a_pod_that_is_not_ready() -> None:
    services = render(SIMULATED).all("Service")

    assert [one for one in services if one["spec"].get("publishNotReadyAddresses")] == []


def test_the_type_and_the_annotations_of_the_service_are_values() -> None:
    said = {"gateway": {"service": {"type": "LoadBalancer", "annotations": {"internal": "true"}}}}

    manifests = render(SIMULATED, said)

    service = manifests.one("Service")
    assert (service["spec"]["type"], service["metadata"]["annotations"]) == ("LoadBalancer", {"internal": "true"})
    assert "annotations" not in manifests.one("Service", "-headless")["metadata"]


def test_the_port_of_metrics_is_at_the_headless_service_where_they_are_served() -> None:
    manifests = render(SIMULATED, {"settings": {"METRICS__ENABLED": True}})

    ports = {
        one["metadata"]["name"]: [port["name"] for port in one["spec"]["ports"]] for one in manifests.all("Service")
    }
    assert ports[f"{GATEWAY}-headless"] == ["grpc", "metrics"]
    assert ports[GATEWAY] == ["grpc"]


@pytest.mark.parametrize("values", [ONE_GPU, SIMULATED], ids=["vllm", "simulator"])
def test_an_engine_is_behind_a_headless_service_that_finds_its_pods(values: Object) -> None:
    manifests = render(values)
    (key,) = values["models"]

    service = manifests.one("Service", f"-engine-{key}")
    (port,) = service["spec"]["ports"]
    assert service["spec"]["clusterIP"] == "None"
    assert set(service["spec"]["selector"].items()) <= labels_of(manifests, f"-engine-{key}")
    assert (port["port"], port["targetPort"]) == (8000, "http")


def test_no_engines_service_is_called_vllm_whatever_its_model_is() -> None:
    """One would give every pod of its namespace a variable VLLM_PORT that breaks vLLM."""
    manifests = render({"nameOverride": "vllm", "models": {"vllm": {"vllm": {"model": "x"}}}}, release="vllm")

    assert [name for name in manifests.names("Service") if "engine" in name] == ["vllm-engine-vllm"]


# ---- NetworkPolicies -------------------------------------------------------------------------------------------------


def test_every_pod_of_the_cluster_may_call_the_gateway_and_nothing_else_of_it() -> None:
    reached = ingress(render(SIMULATED, {"settings": {"ADMIN__ENABLED": True, "ADMIN__HOST": "::"}}))

    assert list(reached) == [50052]
    assert {"namespaceSelector": {}} in reached[50052]


def test_callers_can_be_chosen_and_helm_test_is_always_one() -> None:
    chosen = {"podSelector": {"matchLabels": {"role": "worker"}}}

    manifests = render(SIMULATED, {"networkPolicy": {"clients": [chosen]}})

    first, second = ingress(manifests)[50052]
    test = set(manifests.one("Pod", "-test-stream")["metadata"]["labels"].items())
    assert first == chosen
    assert picks(second, test)


def test_metrics_are_for_monitoring_where_they_are_served() -> None:
    reached = ingress(render(SIMULATED, {"settings": {"METRICS__ENABLED": True}}))

    assert reached[9090] == [MONITORING]


def test_without_anybody_who_monitors_metrics_are_for_nobody() -> None:
    said = {"settings": {"METRICS__ENABLED": True}, "networkPolicy": {"monitoring": []}}

    assert 9090 not in ingress(render(SIMULATED, said))


@pytest.mark.parametrize("values", [ONE_GPU, SIMULATED], ids=["vllm", "simulator"])
def test_only_gateways_and_monitoring_reach_an_engine(values: Object) -> None:
    manifests = render(values)
    (key,) = values["models"]

    reached = ingress(manifests, f"-engine-{key}")
    gateway, monitoring = reached[8000]
    assert list(reached) == [8000]
    assert picks(gateway, labels_of(manifests))
    assert not picks(gateway, labels_of(manifests, f"-engine-{key}"))
    assert monitoring == MONITORING


def test_the_gateway_reaches_names_and_its_engines_and_nothing_else() -> None:
    manifests = render(SIMULATED)

    reached = egress(manifests)
    (engine,) = reached[8000] or []
    assert set(reached) == {53, 8000}
    assert picks(engine, labels_of(manifests, "-engine-sim"))


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("https://api.openai.com", 443),
        ("http://vllm.other.svc", 80),
        ("http://10.0.0.1:8000", 8000),
        ("dns+https://models.example.com/v1", 443),
        ("dns+http://models:9000", 9000),
        ("http://[fd00::1]:7000", 7000),
        ("http://[fd00::1]", 80),
        (["http://a:7001", "http://b:7001"], 7001),
    ],
)
def test_the_gateway_reaches_the_ports_of_backends_elsewhere(url: object, port: int) -> None:
    reached = egress(render(OUTSIDE, {"models": {"gpt": {"backends": [OPENAI | {"url": url}]}}}))

    assert set(reached) == {53, 8000, port} | {8000}
    assert {"namespaceSelector": {}} in (reached[port] or [])


def test_two_backends_of_one_port_are_one_rule() -> None:
    said = {
        "models": {"gpt": {"backends": [OPENAI, OPENAI | {"name": "b"}, OPENAI | {"name": "c", "url": "http://c"}]}}
    }

    rule = render(OUTSIDE, said).one("NetworkPolicy")["spec"]["egress"][-1]

    assert sorted(port["port"] for port in rule["ports"]) == [80, 443]


@pytest.mark.parametrize(("values", "ending", "port"), [(OUTSIDE, "", 443), (ONE_GPU, "-engine-qwen", 443)])
def test_nobody_reaches_the_clouds_metadata(values: Object, ending: str, port: int) -> None:
    peers = egress(render(values), ending)[port] or []

    left_out = [one for peer in peers if "ipBlock" in peer for one in peer["ipBlock"]["except"]]
    assert set(METADATA_SERVICES) <= set(left_out)


def test_a_vllm_reaches_names_and_a_hub_and_a_simulator_nobody() -> None:
    assert set(egress(render(ONE_GPU), "-engine-qwen")) == {53, 443}
    assert egress(render(SIMULATED), "-engine-sim") == {}
    assert set(egress(render(ONE_GPU, {"networkPolicy": {"vllmEgress": []}}), "-engine-qwen")) == {53}


def test_further_rules_are_added_for_the_gateway() -> None:
    proxy = {"to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}], "ports": [{"port": 3128}]}

    assert egress(render(SIMULATED, {"networkPolicy": {"gatewayEgress": [proxy]}}))[3128] == proxy["to"]


def test_both_directions_are_closed_where_nothing_is_said() -> None:
    policies = render(merged(SIMULATED, ONE_GPU)).all("NetworkPolicy")

    assert [one["spec"]["policyTypes"] for one in policies] == [["Ingress", "Egress"]] * 3


def test_every_pod_has_a_policy_but_that_of_the_test() -> None:
    manifests = render(merged(SIMULATED, ONE_GPU))

    policed = [one["spec"]["podSelector"]["matchLabels"] for one in manifests.all("NetworkPolicy")]
    assert sorted(map(str, policed)) == sorted(
        str(one["spec"]["selector"]["matchLabels"]) for one in manifests.all("Deployment")
    )


def test_policies_can_be_left_out() -> None:
    assert render(SIMULATED, nested("networkPolicy.enabled", False)).all("NetworkPolicy") == []


# ---- from outside ----------------------------------------------------------------------------------------------------


def test_a_gateway_routes_to_the_service() -> None:
    route = {
        "enabled": True,
        "parentRefs": [{"name": "public", "namespace": "gateways"}],
        "hostnames": ["llm.example.com"],
        "annotations": {"a": "b"},
    }

    manifests = render(SIMULATED, {"gateway": {"grpcRoute": route}, "settings": {"PORT": 6000}})

    made = manifests.one("GRPCRoute")
    assert made["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert made["metadata"]["annotations"] == {"a": "b"}
    assert made["spec"] == {
        "parentRefs": route["parentRefs"],
        "hostnames": route["hostnames"],
        "rules": [{"backendRefs": [{"name": manifests.one("Service")["metadata"]["name"], "port": 6000}]}],
    }


def test_there_is_no_route_unless_it_is_asked_for() -> None:
    assert render(SIMULATED).all("GRPCRoute") == []
