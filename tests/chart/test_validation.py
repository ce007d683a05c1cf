# SPDX-License-Identifier: Apache-2.0
"""Values that do not go together are refused with a sentence each that says where and what to do."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from tests.chart.rendering import CHART, ONE_GPU, OPENAI, OUTSIDE, SIMULATED, Object, merged, nested, refusal, render

FAULTS = (CHART / "templates/_faults.tpl").read_text(encoding="utf-8")
EXTERNAL: Object = {"enabled": True, "storeRef": {"name": "vault"}, "data": [{"secretKey": "VLLM_API_KEY"}]}
DIGEST = "sha256:" + "0" * 64


@dataclass(frozen=True)
class Row:
    """Values, and all that is to be said of them."""

    values: Object
    sentences: tuple[str, ...]


def vllm(said: Object, *sentences: str) -> Row:
    return Row(merged(ONE_GPU, nested("models.qwen.vllm", said)), sentences)


def simulated(path: str, value: object, *sentences: str) -> Row:
    return Row(merged(SIMULATED, nested(path, value)), sentences)


ROWS: dict[str, Row] = {
    # models
    "no model": Row({}, ("models: there is none. Add one, for example --set models.qwen.vllm.model=Qwen/Qwen3-0.6B",)),
    "a key that names no object": Row(
        {"models": {"Qwen_3": {"engine": "simulator"}}},
        (
            "models.Qwen_3: the key must be 1 to 30 lower case letters, digits and hyphens, for it names objects; "
            "what callers ask for is `name`",
        ),
    ),
    "nobody serves it": Row(
        {"models": {"a": {"engine": "none"}}}, ("models.a: has neither an engine nor backends; nobody would serve it",)
    ),
    "two models of one name": Row(
        merged(SIMULATED, {"models": {"other": {"engine": "simulator", "name": "sim"}}}),
        ("models: sim is there twice among names, aliases and LoRA adapters; callers could not tell the two apart",),
    ),
    "an alias that is a name": Row(
        merged(SIMULATED, {"models": {"other": {"engine": "simulator", "aliases": ["sim"]}}}),
        ("models: sim is there twice among names, aliases and LoRA adapters; callers could not tell the two apart",),
    ),
    "an adapter that is a name": vllm(
        {"loraAdapters": [{"name": "qwen", "path": "x"}]},
        "models: qwen is there twice among names, aliases and LoRA adapters; callers could not tell the two apart",
    ),
    "values of an engine that it has not": Row(
        {"models": {"a": {"engine": "simulator", "vllm": {"model": "x"}}}},
        ("models.a.vllm: has no effect, for the engine is simulator",),
    ),
    "a simulator's values for a vllm": Row(
        merged(ONE_GPU, nested("models.qwen.simulator.tokens", 1)),
        ("models.qwen.simulator: has no effect, for the engine is vllm",),
    ),
    "a backend by the engine's name": Row(
        merged(ONE_GPU, nested("models.qwen.backends", [OPENAI | {"name": "vllm"}])),
        ("models.qwen.backends: vllm is the name of two backends, of which one is the engine",),
    ),
    "two backends of one name": Row(
        merged(OUTSIDE, nested("models.gpt.backends", [OPENAI, OPENAI])),
        ("models.gpt.backends: openai is the name of two backends\n",),
    ),
    "a key that nobody has": Row(
        merged(OUTSIDE, nested("models.gpt.backends", [OPENAI | {"api_key_env": "OPENAI_API_KEY"}])),
        (
            "models.gpt.backends: OPENAI_API_KEY is in no Secret; put it into `secrets`, or list it in secrets.keys "
            "where existingSecret has it",
        ),
    ),
    "nobody takes calls": Row(
        merged(ONE_GPU, nested("models.qwen", {"weight": 0, "backends": [OPENAI | {"weight": 0}]})),
        ("models.qwen: every backend has weight 0; one must take the calls",),
    ),
    # vllm
    "a vllm without a model": Row(
        {"models": {"qwen": {}}},
        ("models.qwen.vllm.model: is empty; name what it serves, for example Qwen/Qwen3-0.6B",),
    ),
    "too few gpus": vllm(
        {"tensorParallelSize": 4, "gpu": {"count": 2}}, "models.qwen: gpu.count is 2, but tensorParallelSize wants 4"
    ),
    "an argument that the chart sets": vllm(
        {"args": ["--port", "1", "--shutdown-timeout=3"]},
        "models.qwen: args must not have --port, which the chart sets itself",
        "models.qwen: args must not have --shutdown-timeout, which the chart sets itself",
    ),
    "a key among the arguments": vllm(
        {"args": ["--api-key", "x"]}, "models.qwen: args must not have --api-key, which the chart sets from secrets"
    ),
    "a pod that stops before gateways know": simulated(
        "settings.HEALTH__RESOLVE_INTERVAL_MS", 10_001,
        "models.sim: shutdown.preStopSeconds is 15, but gateways may look up a pod's leaving only after "
        "settings.HEALTH__RESOLVE_INTERVAL_MS; make it 5 s longer than that",
    ),
    "no claim": vllm(
        {"cache": {"type": "existingClaim"}}, "models.qwen: cache.existingClaim is empty; name the claim"
    ),
    "a volume for one that several want": vllm(
        {"cache": {"type": "pvc"}, "replicas": 2},
        "models.qwen: 2 replicas of a Deployment share one volume, which ReadWriteOnce does not allow; "
        "use ReadWriteMany, or the kind StatefulSet",
    ),
    "a volume for one that keda wants for several": vllm(
        {"cache": {"type": "pvc"}, "keda": {"enabled": True, "prometheusAddress": "x", "query": "x"}},
        "models.qwen: 4 replicas of a Deployment share one volume",
    ),
    "keda without prometheus": vllm(
        {"keda": {"enabled": True, "query": "x"}},
        "models.qwen: keda.prometheusAddress is empty; KEDA reads there how many requests wait",
    ),
    "keda by labels that nobody gives": vllm(
        {"keda": {"enabled": True, "prometheusAddress": "x"}},
        "models.qwen: keda asks by the labels that a ServiceMonitor gives; set serviceMonitor.enabled, "
        "or a keda.query of your own",
    ),
    "keda the wrong way round": vllm(
        {"keda": {"enabled": True, "prometheusAddress": "x", "query": "x", "minReplicas": 5}},
        "models.qwen: keda.minReplicas is 5, which is more than maxReplicas, 4",
    ),
    "two digests of vllm": vllm(
        {"image": {"tag": f"v1@{DIGEST}", "digest": DIGEST}},
        "models.qwen: image: tag has a digest already; leave digest empty",
    ),
    "a label of the chart's on an engine": vllm(
        {"podLabels": {"llm-gateway/model": "x"}}, "models.qwen: podLabels: llm-gateway/model is the chart's own to set"
    ),
    # settings
    "a default model that nobody serves": simulated(
        "settings.DEFAULT_MODEL", "gpt", "settings.DEFAULT_MODEL: gpt is not among the models, which are sim"
    ),
    "a port that nobody knows": simulated(
        "settings.PORT", 0, "settings.PORT: must not be 0; nobody could be told which port was free"
    ),
    "a port for two": simulated(
        "settings", {"METRICS__ENABLED": True, "METRICS__PORT": 50052},
        "settings.METRICS__PORT: is 50052, as PORT is; each needs a port of its own",
    ),
    "a server that only the pod reaches": simulated(
        "settings.SERVER__HOST", "127.0.0.1",
        "settings.SERVER__HOST: 127.0.0.1 is reached by nobody outside the pod; leave it at 0.0.0.0",
    ),
    # secrets
    "two secrets": simulated(
        "secrets", {"existingSecret": "a", "keys": ["A"], "values": {"A": "x"}},
        "secrets: existingSecret and values cannot go together; the keys are in one Secret",
    ),
    "three secrets": simulated(
        "secrets", {"existingSecret": "a", "keys": ["A"], "values": {"A": "x"}, "externalSecret": EXTERNAL},
        "secrets: existingSecret and externalSecret and values cannot go together; the keys are in one Secret",
    ),
    "a secret of which nothing is known": simulated(
        "secrets.existingSecret", "theirs",
        "secrets.keys: list the variables that the Secret theirs has, for example [VLLM_API_KEY]; Helm cannot look",
    ),
    "keys of no secret": simulated(
        "secrets.keys", ["VLLM_API_KEY"],
        "secrets.keys: only tells what existingSecret or externalSecret brings, and neither is set",
    ),
    "an external secret from nowhere": simulated(
        "secrets.externalSecret", {"enabled": True},
        "secrets.externalSecret.storeRef.name: is empty; name the store that has the keys",
        "secrets.externalSecret: has neither data nor dataFrom; say which keys it brings",
    ),
    "an external secret of which nothing is known": simulated(
        "secrets.externalSecret", EXTERNAL | {"data": [], "dataFrom": [{"extract": {"key": "a"}}]},
        "secrets.keys: list the variables that externalSecret.dataFrom brings, for example [VLLM_API_KEY]; "
        "Helm cannot look",
    ),
    "a key that is no variable": simulated(
        "secrets.values", {"openai-key": "x"}, "secrets: openai-key is not the name of a variable"
    ),
    # gateway
    "scaling the wrong way round": simulated(
        "gateway.autoscaling", {"enabled": True, "minReplicas": 20},
        "gateway.autoscaling: minReplicas is 20, which is more than maxReplicas, 10",
    ),
    "scaling on nothing": simulated(
        "gateway.autoscaling", {"enabled": True, "targetCPUUtilizationPercentage": None},
        "gateway.autoscaling: has neither targetCPUUtilizationPercentage nor metrics; "
        "nothing would tell it when to scale",
    ),
    "a monitor without metrics": simulated(
        "gateway.serviceMonitor.enabled", True,
        "gateway.serviceMonitor: there are no metrics to read; set settings.METRICS__ENABLED",
    ),
    "a monitor of metrics that only the pod reaches": Row(
        merged(SIMULATED, nested("gateway.serviceMonitor.enabled", True),
               nested("settings", {"METRICS__ENABLED": True, "METRICS__HOST": "localhost"})),
        ("gateway.serviceMonitor: Prometheus does not reach settings.METRICS__HOST localhost; leave it at 0.0.0.0",),
    ),
    "a route from nowhere": simulated(
        "gateway.grpcRoute.enabled", True,
        "gateway.grpcRoute.parentRefs: is empty; name the Gateway that is to route",
    ),
    "a setting in the wrong place": simulated(
        "gateway.extraEnv", [{"name": "PORT", "value": "1"}, {"name": "VLLM_URL", "value": "http://x"}],
        "gateway.extraEnv: PORT is the chart's own to set; use settings",
        "gateway.extraEnv: VLLM_URL is the chart's own to set; describe the backend in models",
    ),
    "two digests": simulated(
        "image", {"tag": f"1@{DIGEST}", "digest": DIGEST}, "image: tag has a digest already; leave digest empty"
    ),
    "a label of the chart's": simulated(
        "commonLabels", {"app.kubernetes.io/name": "x"},
        "commonLabels: app.kubernetes.io/name is the chart's own to set",
    ),
    "a label of the chart's on the gateway": simulated(
        "gateway.podLabels", {"helm.sh/chart": "x"}, "gateway.podLabels: helm.sh/chart is the chart's own to set"
    ),
    # test
    "a test of nothing": simulated("test.model", "gpt", "test.model: gpt is not among the models, which are sim"),
}  # fmt: skip


def rules() -> list[re.Pattern[str]]:
    """Every sentence of the template, with a gap for each of its parts that depend on the values."""
    without_comments = re.sub(r"\{\{-? ?/\*.*?\*/ ?-?\}\}", "", FAULTS, flags=re.DOTALL)
    lines = [line for line in without_comments.splitlines() if line.strip() and not line.startswith("{{-")]
    return [re.compile(".*".join(map(re.escape, re.split(r"\{\{.*?\}\}", line))).replace("\\ ", " ")) for line in lines]


@pytest.mark.parametrize("row", ROWS)
def test_values_that_do_not_go_together_are_refused(row: str) -> None:
    said = refusal(ROWS[row].values)

    assert "the values cannot be used:" in said
    for sentence in ROWS[row].sentences:
        assert f"\n{sentence}" in said


def test_nothing_else_is_said_of_them() -> None:
    for name, row in ROWS.items():
        listed = refusal(row.values).partition("the values cannot be used:\n\n")[2].partition("\n\n")[0].splitlines()
        assert len(set(listed)) == len(row.sentences), name


def test_every_rule_has_a_row() -> None:
    sentences = "\n".join(sentence for row in ROWS.values() for sentence in row.sentences)

    untested = [rule.pattern for rule in rules() if not rule.search(sentences)]

    assert len(rules()) > 30
    assert untested == []


def test_all_that_is_wrong_is_said_at_once() -> None:
    said = refusal({"models": {"a": {"engine": "none"}, "b": {}}, "gateway": {"grpcRoute": {"enabled": True}}})

    assert "models.a: has neither" in said
    assert "models.b.vllm.model: is empty" in said
    assert "gateway.grpcRoute.parentRefs: is empty" in said


@pytest.mark.parametrize(
    "values",
    [
        {"cache": {"type": "pvc", "accessModes": ["ReadWriteMany"]}, "replicas": 2},
        {"cache": {"type": "pvc"}, "replicas": 2, "kind": "StatefulSet"},
        {"gpu": {"count": 0}, "tensorParallelSize": 2},
        {"args": ["--port-of-something-else", "1"]},
        {"shutdown": {"preStopSeconds": 10}},
    ],
    ids=["shared-volume", "volume-each", "cpu", "another-argument", "just-long-enough"],
)
def test_what_goes_together_is_taken(values: Object) -> None:
    assert render(ONE_GPU, nested("models.qwen.vllm", values)).all("Service")


def test_a_key_of_the_gateways_own_environment_counts() -> None:
    values = merged(
        nested("models.gpt.backends", [OPENAI | {"api_key_env": "MY_KEY"}]),
        nested("gateway.extraEnv", [{"name": "MY_KEY", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "key"}}}]),
    )

    assert render(OUTSIDE, values).models()["gpt"]["backends"][0]["api_key_env"] == "MY_KEY"


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("replicas", 2, "additional properties 'replicas' not allowed"),
        ("gateway.replica", 2, "at '/gateway': additional properties 'replica' not allowed"),
        ("gateway.replicas", "two", "at '/gateway/replicas': got string, want integer"),
        ("gateway.replicas", 0, "at '/gateway/replicas': minimum: got 0, want 1"),
        ("vllm.gpu.counts", 1, "at '/vllm/gpu': additional properties 'counts' not allowed"),
        ("vllm.cache.type", "disk", "at '/vllm/cache/type': value must be one of"),
        ("vllm.kind", "DaemonSet", "at '/vllm/kind': value must be one of 'Deployment', 'StatefulSet'"),
        ("vllm.loraAdapters", [{"name": "a"}], "missing property 'path'"),
        ("image.pullPolicy", "Sometimes", "at '/image/pullPolicy': value must be one of"),
        ("image.tag", 1.0, "at '/image/tag': got number, want string"),
        ("secrets.values.KEY", 1, "at '/secrets/values/KEY': got number, want string"),
        ("networkPolicy.clients", {}, "at '/networkPolicy/clients': got object, want array"),
    ],
)
def test_a_typo_is_named_with_its_place(path: str, value: object, complaint: str) -> None:
    assert complaint in refusal(SIMULATED, nested(path, value))
