# SPDX-License-Identifier: Apache-2.0
"""Every setting of the gateway can be set by a value of the same name, and is what the gateway itself would take."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from llm_gateway.settings import DELIMITER, Group, Settings, load_settings, variables
from tests.chart.rendering import (
    CHART,
    PRESETS,
    SIMULATED,
    container_of,
    default_values,
    pod_of,
    preset,
    refusal,
    render,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOT_HERE = {"VLLM_API_KEY", "OPENAI_API_KEY", "CONFIG_FILE", "VLLM_URL"}
"""Keys are in the Secret, and the models in a file of the chart's."""


def gateways_defaults() -> Iterator[tuple[str, Any]]:
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Group):
            for inner, inner_field in field.annotation.model_fields.items():
                yield f"{name}{DELIMITER}{inner}".upper(), inner_field.default
        else:
            yield name.upper(), field.default


def comments() -> dict[str, str]:
    """What values.yaml says of each setting."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    block = re.search(r"^settings:\n(.*?)^\S", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    found = re.findall(r"^  # -- (.*(?:\n  # .*)*)\n  ([A-Z_]+):", block[1], re.MULTILINE)
    return {name: comment.replace("\n  # ", " ") for comment, name in found}


def loaded(environment: dict[str, str], directory: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What the gateway takes from a ConfigMap."""
    for name in ("SECRETS_DIR", *(name for name, _, _ in variables())):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(directory)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def test_there_is_a_value_for_every_setting_and_for_nothing_else() -> None:
    assert set(default_values()["settings"]) == {name for name, _, _ in variables()} - NOT_HERE


def test_the_defaults_are_the_gateways_own() -> None:
    own = {name: sorted(value) if isinstance(value, frozenset) else value for name, value in gateways_defaults()}

    assert default_values()["settings"] == {name: own[name] for name in own if name not in NOT_HERE}


def test_the_comments_are_the_gateways_own() -> None:
    assert comments() == {name: meaning for name, _, meaning in variables() if name not in NOT_HERE}


def test_nothing_is_in_the_config_map_that_the_gateway_does_not_know() -> None:
    assert set(render(SIMULATED).settings()) <= {name for name, _, _ in variables()}


def test_what_is_not_set_is_not_in_the_config_map() -> None:
    unset = {name for name, value in default_values()["settings"].items() if value is None}

    assert {"DEFAULT_MODEL", "SERVER__MAX_CONNECTION_AGE_MS"} <= unset
    assert unset & set(render(SIMULATED).settings()) == set()


def test_the_gateway_reads_its_own_defaults_from_the_config_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = loaded(render(SIMULATED).settings(), tmp_path, monkeypatch)

    assert read == Settings(_env_file=None)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_the_gateway_takes_the_settings_of_every_preset(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = preset(path)

    read = loaded(render(values).settings(), tmp_path, monkeypatch)

    for name, value in values.get("settings", {}).items():
        group, _, field = name.lower().partition(DELIMITER)
        assert (getattr(getattr(read, group), field) if field else getattr(read, group)) == value


def test_null_is_refused_where_a_setting_has_a_default() -> None:
    """Helm takes the value away, and not back to its default: templates would count with nothing."""
    named = {name for name, value in default_values()["settings"].items() if value is not None}

    said = refusal(SIMULATED, {"settings": dict.fromkeys(named)})

    assert "at '/settings': missing properties " in said
    assert set(re.findall(r"'([A-Z_]+)'", said)) == named


def test_a_large_number_is_written_in_digits() -> None:
    settings = render(SIMULATED, {"settings": {"SERVER__MAX_MESSAGE_BYTES": 1_073_741_823}}).settings()

    assert settings["SERVER__MAX_MESSAGE_BYTES"] == "1073741823"
    assert settings["ADMISSION__MAX_QUEUED_BYTES"] == "67108864"


def test_zero_and_false_are_set_and_not_left_out() -> None:
    changed = {"HEALTH__LOAD_INTERVAL_MS": 0, "SERVER__REFLECTION": False}

    settings = render(SIMULATED, {"settings": changed}).settings()

    assert (settings["HEALTH__LOAD_INTERVAL_MS"], settings["SERVER__REFLECTION"]) == ("0", "false")


def test_a_list_is_written_as_the_gateway_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = render(SIMULATED, {"settings": {"BACKEND__EXTENSIONS": ["echo", "documents"]}}).settings()

    assert loaded(settings, tmp_path, monkeypatch).backend.extensions == {"echo", "documents"}


def test_the_container_gets_them_as_its_environment() -> None:
    manifests = render(SIMULATED)

    (source,) = container_of(manifests.one("Deployment"))["envFrom"]
    assert source == {"configMapRef": {"name": manifests.one("ConfigMap", "-settings")["metadata"]["name"]}}


def test_a_change_of_a_setting_rolls_the_pods_and_a_change_of_a_model_does_not() -> None:
    def checksum(*values: dict[str, Any]) -> str:
        annotations = pod_of(render(SIMULATED, *values).one("Deployment"))["metadata"]["annotations"]
        assert set(annotations) == {"checksum/settings"}
        return str(annotations["checksum/settings"])

    assert checksum({"settings": {"LOG_LEVEL": "debug"}}) != checksum()
    assert checksum({"models": {"sim": {"aliases": ["another"]}}}) == checksum()


@pytest.mark.parametrize(
    ("setting", "value", "complaint"),
    [
        ("PROT", 1, "additional properties 'PROT' not allowed"),
        ("VLLM_API_KEY", "sk-1", "additional properties 'VLLM_API_KEY' not allowed"),
        ("PORT", 70000, "/settings/PORT': maximum: got 70,000, want 65,535"),
        ("PORT", "50052", "/settings/PORT': got string, want integer"),
        ("LOG_LEVEL", "loud", "/settings/LOG_LEVEL': 'loud' does not match pattern"),
        ("TIMEOUT_MS", None, "/settings': missing property 'TIMEOUT_MS'"),
        ("TIMEOUT_MS", 0, "/settings/TIMEOUT_MS': exclusiveMinimum: got 0, want 0"),
    ],
)
def test_what_the_gateway_would_refuse_helm_refuses(setting: str, value: object, complaint: str) -> None:
    assert complaint in refusal(SIMULATED, {"settings": {setting: value}})
