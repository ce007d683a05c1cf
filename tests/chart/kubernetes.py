# SPDX-License-Identifier: Apache-2.0
"""What Kubernetes' own schemas say of objects, version by version and offline."""

from __future__ import annotations

import functools
import json
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator  # type: ignore[import-untyped] # it has no types
from referencing import Registry, Resource

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.chart.rendering import Object

SCHEMAS = files("kubernetes_validate") / "kubernetes-json-schema"
OLDEST = (1, 30)


def minor(version: str) -> tuple[int, int]:
    """A version without its last part."""
    first, second, _ = version.split(".")
    return int(first), int(second)


VERSIONS = sorted(
    (
        name
        for name in re.findall(r"v([\d.]+)-local-strict", " ".join(one.name for one in SCHEMAS.iterdir()))
        if minor(name) >= OLDEST
    ),
    key=minor,
)
CUSTOM: dict[str, tuple[str, set[str]]] = {
    "ExternalSecret": ("external-secrets.io/v1", {"secretStoreRef", "target", "refreshInterval"}),
    "GRPCRoute": ("gateway.networking.k8s.io/v1", {"parentRefs", "rules"}),
    "ScaledObject": ("keda.sh/v1alpha1", {"scaleTargetRef", "triggers"}),
    "ServiceMonitor": ("monitoring.coreos.com/v1", {"selector", "endpoints"}),
    "BackendTrafficPolicy": ("gateway.envoyproxy.io/v1alpha1", {"targetRefs", "timeout"}),
}
"""Kinds that Kubernetes itself does not have: their version, and the fields that they cannot be without."""


def faults_of(objects: Iterable[Object], version: str) -> list[str]:
    """All that a version of Kubernetes would refuse of them."""
    return [
        f"{one['kind']} {one['metadata']['name']}: {error.json_path}: {error.message}"
        for one in objects
        if one["kind"] not in CUSTOM
        for error in validator(version, one["kind"], one["apiVersion"]).iter_errors(one)
    ]


@functools.cache
def registry(version: str) -> Registry[Any]:
    """The definitions that the schemas of a version share."""
    shared = schema(version, "_definitions")
    found: Registry[Any] = Registry().with_resource(shared["$id"], Resource.from_contents(shared))
    return found


@functools.cache
def validator(version: str, kind: str, api_version: str) -> Draft202012Validator:
    """Strict: a field that is not known is an error."""
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    return Draft202012Validator(schema(version, f"{kind.lower()}-{group}"), registry=registry(version))


def schema(version: str, name: str) -> Any:
    return json.loads((SCHEMAS / f"v{version}-local-strict" / f"{name}.json").read_text(encoding="utf-8"))
