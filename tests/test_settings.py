# SPDX-License-Identifier: Apache-2.0
"""Settings: where they come from, which are refused, and in which words; a key is never shown."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from llm_gateway.settings import (
    Settings,
    SettingsError,
    effective,
    given_variables,
    load_settings,
    notes,
    secrets_directory,
    variables,
)

if TYPE_CHECKING:
    from pathlib import Path

KEY = "sk-very-secret"


@pytest.fixture(autouse=True)
def empty_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is set, and there is no `.env` here."""
    monkeypatch.chdir(tmp_path)
    ours = {name for name, _, _ in variables()} | {"SECRETS_DIR"}
    for name in set(os.environ):
        if name.upper() in ours:
            monkeypatch.delenv(name)


def refused() -> tuple[str, ...]:
    """The lines with which the settings are refused."""
    with pytest.raises(SettingsError) as caught:
        load_settings()
    return caught.value.lines


def test_without_anything_set_the_defaults_hold() -> None:
    settings = load_settings()

    assert settings.port == 50052
    assert settings.log_level == "info"
    assert settings.vllm_url == "http://localhost:8000"
    assert settings.timeout_ms == 600_000
    assert settings.default_model is None
    assert settings.vllm_api_key is None
    assert settings.admission.max_in_flight == 1024
    assert settings.timeouts.idle_ms == 30_000
    assert settings.retry.max_attempts == 3


def test_the_environment_sets_fields_and_fields_of_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PORT": "1", "DEFAULT_MODEL": "m", "RETRY__MAX_ATTEMPTS": "5", "server__host": "::"}.items():
        monkeypatch.setenv(name, value)

    settings = load_settings()

    assert (settings.port, settings.default_model, settings.retry.max_attempts) == (1, "m", 5)
    assert settings.server.host == "::"


def test_a_dotenv_file_is_read_and_the_environment_goes_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("PORT=7\nTIMEOUTS__IDLE_MS=8\nVLLM_URL='http://vllm:1'\n")
    monkeypatch.setenv("PORT", "9")

    settings = load_settings()

    assert (settings.port, settings.timeouts.idle_ms, settings.vllm_url) == (9, 8, "http://vllm:1")


def test_a_mounted_secret_is_read_without_its_line_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "VLLM_API_KEY").write_text(f"{KEY}\n")
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))

    key = load_settings().vllm_api_key

    assert key is not None
    assert key.get_secret_value() == KEY


def test_a_key_of_the_environment_loses_the_line_end_that_a_header_cannot_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", f" {KEY}\r\n")

    key = load_settings().vllm_api_key

    assert key is not None
    assert key.get_secret_value() == KEY


def test_an_empty_name_of_a_secrets_directory_is_as_good_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "VLLM_API_KEY").write_text(KEY)
    monkeypatch.setenv("SECRETS_DIR", "")

    assert load_settings().vllm_api_key is None
    assert secrets_directory() is None


def test_a_secrets_directory_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRETS_DIR", "/no/such/directory")

    assert refused() == ("SECRETS_DIR: there is no such directory",)


def test_an_empty_value_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "VLLM_URL", "VLLM_API_KEY", "DEFAULT_MODEL", "SERVER__HOST", "RETRY__MAX_ATTEMPTS", "SERVER"):
        monkeypatch.setenv(name, "")

    assert load_settings() == Settings()


WRONG = [
    ("PORT", "tcp://10.0.0.1:80", "PORT: Input should be a valid integer"),
    ("PORT", "65536", "PORT: Input should be less than or equal to 65535"),
    ("LOG_LEVEL", "loud", "LOG_LEVEL: "),
    ("TIMEOUT_MS", "0", "TIMEOUT_MS: Input should be greater than 0"),
    ("TIMEOUT_MS", "1.5", "TIMEOUT_MS: Input should be a valid integer"),
    ("VLLM_URL", "localhost:8000", "VLLM_URL: must be an http:// or https:// address"),
    ("VLLM_URL", "ftp://vllm", "VLLM_URL: must be an http:// or https:// address"),
    ("VLLM_URL", "http://", "VLLM_URL: must be an http:// or https:// address"),
    ("VLLM_URL", "http://my host", "VLLM_URL: must be an http:// or https:// address"),
    ("VLLM_URL", "http://vllm:99999", "VLLM_URL: must have a port from 1 to 65535, or none"),
    ("VLLM_URL", "http://vllm:http", "VLLM_URL: must have a port from 1 to 65535, or none"),
    ("VLLM_URL", "http://vllm:0", "VLLM_URL: must not have port 0"),
    ("VLLM_URL", "http://[::1", "VLLM_URL: Invalid IPv6 URL"),
    ("VLLM_URL", "http://a..b:8000", "VLLM_URL: must have a host that is a name or an IP address"),
    ("VLLM_URL", f"http://{'a' * 70}", "VLLM_URL: must have a host that is a name or an IP address"),
    ("VLLM_URL", "http://1.2.3.999", "VLLM_URL: must have a host that is a name or an IP address"),
    ("VLLM_URL", "http://u:p@vllm", "VLLM_URL: must not have credentials in it; use VLLM_API_KEY"),
    ("VLLM_URL", "http://vllm?a=b", "VLLM_URL: must not have a query or a fragment"),
    ("OPENAI_API_KEY", "two words", "OPENAI_API_KEY: must be printable ASCII without blanks"),
    ("VLLM_API_KEY", "two words", "VLLM_API_KEY: must be printable ASCII without blanks"),
    ("VLLM_API_KEY", "schlüssel", "VLLM_API_KEY: must be printable ASCII without blanks"),
    ("RETRY__MAX_ATTEMPTS", "0", "RETRY__MAX_ATTEMPTS: Input should be greater than or equal to 1"),
    ("ADMISSION__MEMORY_PERCENT", "101", "ADMISSION__MEMORY_PERCENT: Input should be less than or equal to 100"),
    ("RETRY__BUDGET_PERCENT", "-1", "RETRY__BUDGET_PERCENT: Input should be greater than or equal to 0"),
    ("EJECTION__BASE_MS", "10001", "EJECTION: BASE_MS must not be more than LONGEST_MS"),
    ("ADMIN__PORT", "65536", "ADMIN__PORT: Input should be less than or equal to 65535"),
    ("SERVER__MAX_MESSAGE_BYTES", "1073741824", "SERVER__MAX_MESSAGE_BYTES: Input should be less than or equal to"),
    ("SERVER__MAX_CONCURRENT_STREAMS", "2147483648", "SERVER__MAX_CONCURRENT_STREAMS: Input should be less than or"),
    ("SERVER__REFLECTION", "perhaps", "SERVER__REFLECTION: Input should be a valid boolean"),
    ("SERVER__HOTS", "x", "SERVER__HOTS: there is no such setting"),
    ("SERVR__HOST", "x", "SERVR__HOST: there is no such group of settings; SERVER is one"),
    ("LIMITS__MAX_IN_FLIGHT", "9", "LIMITS__MAX_IN_FLIGHT: there is no such group of settings; ADMISSION is one"),
    ("METRICS_PORT", "9090", "METRICS_PORT: there is no such setting; METRICS__PORT is one"),
    ("SERVER_HOST", "x", "SERVER_HOST: there is no such setting; SERVER__HOST is one"),
    ("RETRY", "5", "RETRY: is a group of settings; RETRY__BACKOFF_MS is one of its fields"),
    ("SERVER", "production", "SERVER: is a group of settings; "),
    ("SERVER", '{"host": "::"}', "SERVER: is a group of settings; "),
]


@pytest.mark.parametrize(("name", "value", "line"), WRONG, ids=[f"{name}={value}" for name, value, _ in WRONG])
def test_what_is_wrong_is_refused_in_one_line(
    name: str, value: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)

    lines = refused()

    assert lines[0].startswith(line)
    assert "\n" not in lines[0]


SAME = [
    ({"ADMIN__PORT": "9090"}, "METRICS__PORT: is 9090, as ADMIN__PORT is; each needs a port of its own"),
    ({"PORT": "9090"}, "METRICS__PORT: is 9090, as PORT is; each needs a port of its own"),
    ({"PORT": "50053"}, "ADMIN__PORT: is 50053, as PORT is; each needs a port of its own"),
    ({"METRICS__PORT": "50052"}, "METRICS__PORT: is 50052, as PORT is; each needs a port of its own"),
]


@pytest.mark.parametrize(("ports", "line"), SAME)
def test_two_servers_on_one_port_are_refused(ports: dict[str, str], line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ADMIN__ENABLED": "true", "METRICS__ENABLED": "true", **ports}.items():
        monkeypatch.setenv(name, value)

    assert refused() == (line,)


@pytest.mark.parametrize(("enabled", "port"), [("false", "7000"), ("true", "0")], ids=["off", "free ports"])
def test_ports_that_nobody_or_anybody_has_may_be_the_same(
    enabled: str, port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ADMIN__ENABLED", "METRICS__ENABLED"):
        monkeypatch.setenv(name, enabled)
    for name in ("PORT", "ADMIN__PORT", "METRICS__PORT"):
        monkeypatch.setenv(name, port)

    assert load_settings().metrics.port == int(port)


def test_a_typo_in_a_dotenv_file_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ADMISION__MAX_IN_FLIGHT=7\n")

    assert refused() == ("ADMISION__MAX_IN_FLIGHT: there is no such group of settings; ADMISSION is one",)


def test_everything_that_is_wrong_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PORT": "x", "TIMEOUT_MS": "-1", "SERVR__HOST": "h"}.items():
        monkeypatch.setenv(name, value)

    assert [line.partition(":")[0] for line in refused()] == ["SERVR__HOST", "PORT", "TIMEOUT_MS"]


@pytest.mark.parametrize(
    "name",
    ["PYTEST__ADDOPTS", "MY_APP__HOME", "__CF_USER", "VLLM_PORT", "SERVER_SERVICE_HOST", "METRICS_PORT", "ADMIN_PORT"],
)
def test_what_others_set_is_none_of_our_business(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "tcp://10.0.0.1:80")

    assert load_settings() == Settings()


@pytest.mark.parametrize(
    "url", ["http://vllm:8000/", "http://vllm:8000/v1", "http://vllm:8000/v1/", " http://vllm:8000\n"]
)
def test_an_address_as_people_write_it_is_understood(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_URL", url)

    assert load_settings().vllm_url == "http://vllm:8000"


@pytest.mark.parametrize("value", ["echo,documents", " echo , documents,", '["echo", "documents"]'])
def test_names_are_given_with_commas_or_as_json(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKEND__EXTENSIONS", value)

    assert load_settings().backend.extensions == {"echo", "documents"}


@pytest.mark.parametrize("value", ["[", "[1]"])
def test_a_list_of_names_that_is_none_is_refused_in_one_line(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKEND__EXTENSIONS", value)

    assert [line.partition(":")[0][:19] for line in refused()] == ["BACKEND__EXTENSIONS"]


def test_a_key_is_masked_wherever_settings_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", KEY)

    settings = load_settings()

    assert dict(effective(settings))["VLLM_API_KEY"] == "**********"
    assert KEY not in f"{settings!r} {settings.model_dump()} {settings.model_dump_json()} {list(effective(settings))}"


@pytest.mark.parametrize("url", [f"http://vllm:{KEY}", f"http://me:{KEY}@vllm:x", f"http://me:{KEY}@vllm"])
def test_a_key_in_an_address_is_not_in_the_refusal(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_URL", url)

    assert KEY not in "".join(refused())


def test_variables_of_any_name_are_given_by_the_environment_and_else_by_the_dotenv_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("ONE=dotenv\nTWO=dotenv\nTHREE=dotenv\nFOUR=\n")
    for name, value in {"ONE": "environment", "TWO": ""}.items():
        monkeypatch.setenv(name, value)

    given = given_variables()

    names = ("ONE", "TWO", "THREE", "FOUR")
    assert [given.get(name) for name in names] == ["environment", "dotenv", "dotenv", None]


def test_what_is_set_and_has_no_effect_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONFIG_FILE", "models.yaml")
    assert list(notes(load_settings())) == []

    monkeypatch.setenv("VLLM_URL", "http://vllm")

    assert list(notes(load_settings())) == ["VLLM_URL: is not used, for CONFIG_FILE names the backends"]


def test_a_wrong_key_is_not_in_the_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", f"{KEY} ü")

    with pytest.raises(SettingsError) as caught:
        load_settings()

    assert KEY not in f"{caught.value} {caught.value.__cause__}"


def test_every_variable_is_documented_and_shown() -> None:
    documented = list(variables())

    assert all(name and meaning.endswith(".") for name, _, meaning in documented)
    assert [name for name, _, _ in documented] == [name for name, _ in effective(Settings())]
    assert {name: default for name, default, _ in documented} == dict(effective(Settings()))


def test_every_documented_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is set to something else than its default where that is a number."""
    changed = {
        name: str(int(default) - 1) for name, default, _ in variables() if default.isdigit() and int(default) > 1
    }
    for name, value in changed.items():
        monkeypatch.setenv(name, value)

    shown = dict(effective(load_settings()))

    assert {name: shown[name] for name in changed} == changed
