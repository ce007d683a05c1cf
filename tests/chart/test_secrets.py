# SPDX-License-Identifier: Apache-2.0
"""Keys: in one Secret, which the gateway reads as files and an engine as a variable."""

from __future__ import annotations

import pytest

from tests.chart.rendering import (
    ONE_GPU,
    RELEASE,
    SIMULATED,
    Manifests,
    Object,
    container_of,
    environment_of,
    merged,
    nested,
    pod_of,
    render,
)

OWN = f"{RELEASE}-llm-gateway"
INLINE: Object = {"secrets": {"values": {"VLLM_API_KEY": "one", "OTHER_API_KEY": "two"}}}
EXISTING: Object = {"secrets": {"existingSecret": "theirs", "keys": ["VLLM_API_KEY"]}}
REMOTE: Object = {"secretKey": "VLLM_API_KEY", "remoteRef": {"key": "llm-gateway"}}
EXTERNAL: Object = {
    "secrets": {"externalSecret": {"enabled": True, "storeRef": {"name": "vault"}, "data": [REMOTE]}},
}
SOURCES = pytest.mark.parametrize(
    ("secrets", "name"),
    [(INLINE, OWN), (EXISTING, "theirs"), (EXTERNAL, OWN)],
    ids=["inline", "existing", "external"],
)


def mounted(manifests: Manifests) -> list[Object]:
    """The Secrets among the gateway's volumes."""
    spec = pod_of(manifests.one("Deployment"))["spec"]
    return [volume["secret"] for volume in spec["volumes"] if "secret" in volume]


@SOURCES
def test_the_gateway_reads_keys_as_files_of_a_directory(secrets: Object, name: str) -> None:
    manifests = render(SIMULATED, secrets)

    (mount,) = [one for one in container_of(manifests.one("Deployment"))["volumeMounts"] if one["name"] == "keys"]
    assert mounted(manifests) == [{"secretName": name, "defaultMode": 0o440}]
    assert mount == {"name": "keys", "mountPath": "/run/secrets/llm-gateway", "readOnly": True}


@SOURCES
def test_the_gateway_has_no_key_in_its_environment(secrets: Object, name: str) -> None:
    container = container_of(render(SIMULATED, secrets).one("Deployment"))

    assert [one for one in container["env"] if "valueFrom" in one] == []
    assert [one for one in container["envFrom"] if "secretRef" in one] == []
    assert name not in str(container["env"])


@SOURCES
@pytest.mark.parametrize(
    ("values", "ending"), [(SIMULATED, "-engine-sim"), (ONE_GPU, "-engine-qwen")], ids=["sim", "vllm"]
)
def test_engines_want_the_key_that_the_gateway_sends(values: Object, ending: str, secrets: Object, name: str) -> None:
    manifests = render(values, secrets)

    environment = environment_of(manifests.one("Deployment", ending))
    (served,) = manifests.models().values()
    assert environment["VLLM_API_KEY"] == {"secretKeyRef": {"name": name, "key": "VLLM_API_KEY"}}
    assert served["backends"][0]["api_key_env"] == "VLLM_API_KEY"


@pytest.mark.parametrize(
    "secrets",
    [
        {},
        nested("secrets.values", {"OPENAI_API_KEY": "x"}),
        merged(EXISTING, nested("secrets.keys", ["OPENAI_API_KEY"])),
    ],
    ids=["none", "another", "existing-without"],
)
def test_engines_want_no_key_where_there_is_none_for_them(secrets: Object) -> None:
    manifests = render(SIMULATED, secrets)

    assert "env" not in container_of(manifests.one("Deployment", "-engine-sim"))
    assert "api_key_env" not in manifests.models()["sim"]["backends"][0]


def test_keys_that_are_given_become_a_secret() -> None:
    secret = render(SIMULATED, INLINE).one("Secret")

    assert secret["stringData"] == INLINE["secrets"]["values"]


@pytest.mark.parametrize("secrets", [{}, EXISTING, EXTERNAL], ids=["none", "existing", "external"])
def test_no_secret_is_made_otherwise(secrets: Object) -> None:
    assert render(SIMULATED, secrets).all("Secret") == []


def test_without_keys_nothing_is_mounted() -> None:
    assert mounted(render(SIMULATED)) == []


def test_external_secrets_brings_keys_one_by_one_or_all() -> None:
    whole = {
        "secrets": {"keys": ["VLLM_API_KEY"], "externalSecret": {"data": [], "dataFrom": [{"extract": {"key": "a"}}]}}
    }

    one, all_of_them = (
        render(SIMULATED, EXTERNAL, more).one("ExternalSecret")["spec"]
        for more in ({"secrets": {"externalSecret": {"refreshInterval": "5m"}}}, whole)
    )

    assert one == {
        "refreshInterval": "5m",
        "secretStoreRef": {"name": "vault", "kind": "ClusterSecretStore"},
        "target": {"name": OWN},
        "data": [REMOTE],
    }
    assert all_of_them["dataFrom"] == [{"extract": {"key": "a"}}]
    assert "data" not in all_of_them


def test_a_new_key_restarts_engines_and_no_gateway() -> None:
    def annotations(key: str, ending: str) -> object:
        manifests = render(SIMULATED, nested("secrets.values.VLLM_API_KEY", key))
        return pod_of(manifests.one("Deployment", ending))["metadata"]["annotations"]

    assert annotations("one", "-engine-sim") != annotations("two", "-engine-sim")
    assert annotations("one", OWN) == annotations("two", OWN)


def test_no_key_is_anywhere_but_in_the_secret() -> None:
    key = "sk-very-secret"

    manifests = render(merged(SIMULATED, ONE_GPU), nested("secrets.values", {"VLLM_API_KEY": key, "A_KEY": key}))

    assert [one["kind"] for one in manifests if key in str(one)] == ["Secret"]
