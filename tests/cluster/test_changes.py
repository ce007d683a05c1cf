# SPDX-License-Identifier: Apache-2.0
"""What an operator changes is in force in the pods that run: nobody is restarted for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.asking import WHOLE, answer
from tests.cluster.conftest import RELEASE
from tests.cluster.kube import eventually, namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.kube import Namespace

KEY = {"VLLM_API_KEY": "sk-right"}


@pytest.fixture(scope="module")
def guarded(cluster: None, image: dict[str, Any]) -> Iterator[tuple[Namespace, dict[str, Any]]]:
    """One gateway before one simulator that wants a key, and the values that made them."""
    values = {
        "image": image,
        "gateway": {"replicas": 1},
        "simulator": {"replicas": 1},
        "settings": {"SERVER__DRAIN_DELAY_MS": 0, "SERVER__DRAIN_GRACE_MS": 1000, "TIMEOUT_MS": 10_000},
        "secrets": {"values": KEY},
    }
    with namespace("llm-gateway-changes") as guarded:
        guarded.install(RELEASE, "simulator", **values)
        yield guarded, values


def gateway_pods(where: Namespace) -> list[tuple[str, int]]:
    """Name and restarts of the gateway's pods."""
    pods = where.pods("app.kubernetes.io/component=gateway")
    return [(pod["metadata"]["name"], pod["status"]["containerStatuses"][0]["restartCount"]) for pod in pods]


def give(where: Namespace, key: str) -> None:
    """Put a key into the Secret that the gateway has mounted."""
    where.kubectl("patch", "secret", RELEASE, "--patch", json.dumps({"stringData": {"VLLM_API_KEY": key}}))


def test_a_new_name_in_the_models_is_served_without_a_restart(guarded: tuple[Namespace, dict[str, Any]]) -> None:
    where, values = guarded
    before = gateway_pods(where)
    aliased = {"sim": {"aliases": ["another-name"]}}
    with where.forwarded(f"service/{RELEASE}", 50052) as address:
        where.install(RELEASE, "simulator", **values, models=aliased)
        eventually("the alias is served", lambda: WHOLE in answer(address, model="another-name"))

    assert gateway_pods(where) == before


def test_a_new_key_in_the_secret_is_used_without_a_restart(guarded: tuple[Namespace, dict[str, Any]]) -> None:
    where, _ = guarded
    before = gateway_pods(where)
    with where.forwarded(f"service/{RELEASE}", 50052) as address:
        give(where, "sk-wrong")
        eventually("the backend refuses the wrong key", lambda: "BACKEND_REFUSED" in answer(address))
        give(where, KEY["VLLM_API_KEY"])
        eventually("the right key is in use again", lambda: WHOLE in answer(address))

    assert gateway_pods(where) == before
