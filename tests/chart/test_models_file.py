# SPDX-License-Identifier: Apache-2.0
"""The gateway's file of models is made from `models`: an entry is all that a model needs to be served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_gateway.config_file import Config, load
from llm_gateway.upstream.spec import Balancing, Timeouts
from tests.chart.rendering import (
    ONE_GPU,
    OPENAI,
    OUTSIDE,
    PRESETS,
    RELEASE,
    SIMULATED,
    Manifests,
    Object,
    container_of,
    environment_of,
    nested,
    pod_of,
    preset,
    refusal,
    render,
)

if TYPE_CHECKING:
    from pathlib import Path

KEYS = {"VLLM_API_KEY": "key-of-vllm", "OPENAI_API_KEY": "key-of-openai"}
ENGINE = f"{RELEASE}-llm-gateway-engine"


def loaded(manifests: Manifests, directory: Path) -> Config:
    """The file as the gateway reads it, with keys in a mounted Secret."""
    path, secrets = directory / "models.yaml", directory / "secrets"
    path.write_text(manifests.models_file(), encoding="utf-8")
    secrets.mkdir()
    for name, key in KEYS.items():
        (secrets / name).write_text(key, encoding="utf-8")
    default_model = manifests.settings().get("DEFAULT_MODEL")
    return load(path, {}, secrets_dir=secrets, default_model=default_model)


def model(values: Object) -> Object:
    """What becomes of the one model."""
    (found,) = render(values).models().values()
    return found


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_the_gateway_takes_the_file_of_every_preset(path: Path, tmp_path: Path) -> None:
    assert loaded(render(preset(path)), tmp_path).specs(Timeouts())


def test_an_engine_is_a_backend_each_of_whose_pods_is_a_replica(tmp_path: Path) -> None:
    (spec,) = loaded(render(ONE_GPU), tmp_path).specs(Timeouts())

    (backend,) = spec.backends
    assert (spec.name, backend.name, backend.dialect, backend.model) == ("qwen", "vllm", "vllm", "qwen")
    assert (backend.urls, backend.resolve) == ((f"http://{ENGINE}-qwen:8000",), True)
    assert (backend.weight, backend.tier, backend.api_key) == (1, 0, None)


def test_the_address_of_an_engine_is_its_headless_service() -> None:
    manifests = render(ONE_GPU)

    service = manifests.one("Service", "-engine-qwen")
    (backend,) = manifests.models()["qwen"]["backends"]
    (port,) = service["spec"]["ports"]
    assert backend["url"] == f"dns+http://{service['metadata']['name']}:{port['port']}"


def test_all_fields_of_a_model_reach_the_gateway(tmp_path: Path) -> None:
    said = {
        "name": "Qwen/Qwen3",
        "aliases": ["default-chat"],
        "balancing": "prefix",
        "defaults": {"temperature": 0.7, "max_tokens": 1_000_000},
        "maxInFlight": 8,
        "hedgeAfterMs": 250,
        "weight": 3,
        "priority": 2,
        "timeouts": {"connectMs": 1000, "firstTokenMs": 30_000, "idleMs": 20_000},
    }

    (spec,) = loaded(render(ONE_GPU, {"models": {"qwen": said}}), tmp_path).specs(Timeouts())

    (backend,) = spec.backends
    assert (spec.name, spec.aliases, spec.balancing) == ("Qwen/Qwen3", ("default-chat",), Balancing.PREFIX)
    assert spec.defaults == {"temperature": 0.7, "max_tokens": 1_000_000}
    assert (spec.seats, spec.hedge_after) == (8, 0.25)
    assert (backend.weight, backend.tier) == (3, 2)
    assert (backend.timeouts.connect, backend.timeouts.first_token, backend.timeouts.idle) == (1, 30, 20)


def test_weight_0_takes_the_calls_from_an_engine() -> None:
    said = {"weight": 0, "backends": [OPENAI]}

    assert [
        one.get("weight", 1) for one in model({"models": {"sim": SIMULATED["models"]["sim"] | said}})["backends"]
    ] == [
        0,
        1,
    ]


def test_backends_of_elsewhere_come_after_the_engine_as_they_are_written(tmp_path: Path) -> None:
    other = OPENAI | {"model": "gpt-4.1-mini", "priority": 1, "api_key_env": "OPENAI_API_KEY"}
    secrets = {"secrets": {"existingSecret": "keys", "keys": ["OPENAI_API_KEY"]}}

    (spec,) = loaded(render(ONE_GPU, {"models": {"qwen": {"backends": [other]}}}, secrets), tmp_path).specs(Timeouts())

    own, openai = spec.backends
    assert (own.name, own.api_key) == ("vllm", None)
    assert (openai.urls, openai.model, openai.tier) == (("https://api.openai.com",), "gpt-4.1-mini", 1)
    assert openai.api_key == KEYS["OPENAI_API_KEY"]


def test_a_model_without_an_engine_has_nothing_but_its_backends() -> None:
    manifests = render(OUTSIDE)

    assert manifests.models()["gpt"]["backends"] == [OPENAI]
    assert manifests.names("Deployment") == [f"{RELEASE}-llm-gateway"]


def test_an_engine_is_asked_for_the_model_by_the_name_that_it_serves() -> None:
    manifests = render(ONE_GPU, nested("models.qwen.vllm.servedModelName", "inner"))

    (backend,) = manifests.models()["qwen"]["backends"]
    arguments = container_of(manifests.one("Deployment", "-engine-qwen"))["args"]
    assert backend["model"] == arguments[arguments.index("--served-model-name") + 1] == "inner"


def test_an_adapter_is_a_model_of_its_own_on_the_same_engine() -> None:
    adapters = {"loraAdapters": [{"name": "sql", "path": "org/sql"}]}
    said = {"aliases": ["chat"], "balancing": "session", "defaults": {"temperature": 0}, "vllm": adapters}

    models = render(ONE_GPU, {"models": {"qwen": said}}).models()

    base, adapter = models["qwen"], models["sql"]
    assert adapter["backends"] == [base["backends"][0] | {"model": "sql"}]
    assert (adapter["balancing"], adapter["defaults"]) == ("session", {"temperature": 0})
    assert "aliases" not in adapter


def test_an_adapter_is_not_to_be_had_from_the_backends_of_elsewhere() -> None:
    said = {"backends": [OPENAI], "vllm": {"loraAdapters": [{"name": "sql", "path": "org/sql"}]}}

    models = render(ONE_GPU, {"models": {"qwen": said}}).models()

    assert [backend["name"] for backend in models["sql"]["backends"]] == ["vllm"]


def test_the_key_of_engines_is_named_as_soon_as_there_is_one(tmp_path: Path) -> None:
    manifests = render(SIMULATED, {"secrets": {"values": KEYS}})

    (spec,) = loaded(manifests, tmp_path).specs(Timeouts())
    assert spec.backends[0].api_key == KEYS["VLLM_API_KEY"]


def test_the_file_is_mounted_as_a_directory_and_named_to_the_gateway() -> None:
    manifests = render(SIMULATED)

    deployment = manifests.one("Deployment")
    named = environment_of(deployment)["CONFIG_FILE"]
    (mount,) = [one for one in container_of(deployment)["volumeMounts"] if one["name"] == "models"]
    (volume,) = [one for one in pod_of(deployment)["spec"]["volumes"] if one["name"] == "models"]
    assert named == f"{mount['mountPath']}/models.yaml"
    assert "subPath" not in mount
    assert volume["configMap"]["name"] == manifests.one("ConfigMap", "-models")["metadata"]["name"]


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"backends": [OPENAI | {"dialekt": "openai"}]}, "additional properties 'dialekt' not allowed"),
        ({"backends": [OPENAI | {"dialect": "gpt"}]}, "value must be one of"),
        ({"backends": [{"name": "openai"}]}, "missing property 'url'"),
        ({"defaults": {"temprature": 1}}, "additional properties 'temprature' not allowed"),
        ({"balancing": "random"}, "value must be one of"),
        ({"engine": "tgi"}, "value must be one of 'vllm', 'simulator', 'none'"),
        ({"nmae": "x"}, "additional properties 'nmae' not allowed"),
        ({"timeouts": {"idle_ms": 1}}, "additional properties 'idle_ms' not allowed"),
        ({"vllm": {"modle": "x"}}, "additional properties 'modle' not allowed"),
    ],
)
def test_what_the_gateway_would_refuse_helm_refuses(said: Object, complaint: str) -> None:
    assert complaint in refusal(ONE_GPU, {"models": {"qwen": said}})
