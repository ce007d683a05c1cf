# SPDX-License-Identifier: Apache-2.0
"""What a file that is right says, where its keys come from, and what names its content."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from llm_gateway.config_file import Config, ConfigFileError, load
from llm_gateway.upstream.spec import Balancing, Timeouts
from tests.house.tree import ROOT

if TYPE_CHECKING:
    from pathlib import Path

KEY = "sk-very-secret"
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)[0]
FAULT_SHOWN = re.findall(r"```text\n(models\[.*)\n```", README)[0]
SHORT = "models: [{name: llama, backends: [{name: a, url: 'http://vllm:8000'%s}]}]"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "models.yaml"


def loaded(path: Path, text: str, environ: dict[str, str] | None = None, secrets_dir: Path | None = None) -> Config:
    path.write_text(text, encoding="utf-8")
    return load(path, environ or {}, secrets_dir=secrets_dir)


def key_of(config: Config) -> str | None:
    """The key of the one backend."""
    return config.specs(Timeouts())[0].backends[0].api_key


def test_what_the_readme_shows_is_read_as_it_says(path: Path) -> None:
    config = loaded(path, SHOWN, {"VLLM_API_KEY": KEY, "OPENAI_API_KEY": "another"})

    (model,) = config.specs(Timeouts(usage=7))
    assert (model.name, model.aliases, model.balancing) == ("llama", ("default-chat",), Balancing.LEAST_LOAD)
    assert model.defaults == {"temperature": 0.7, "max_tokens": 1024}
    assert (model.seats, model.hedge_after) == (None, None)
    vllm, openai = model.backends
    assert (vllm.name, vllm.dialect, vllm.urls, vllm.resolve) == ("vllm-a", "vllm", ("http://vllm-llama:8000",), False)
    assert (vllm.model, vllm.weight, vllm.tier) == ("meta-llama/Llama-3.1-8B-Instruct", 1, 0)
    assert vllm.timeouts == Timeouts(connect=2, first_token=30, idle=30, usage=7)
    assert (vllm.api_key, openai.api_key) == (KEY, "another")
    assert (openai.dialect, openai.tier, openai.timeouts) == ("openai", 1, Timeouts(usage=7))


def test_the_fault_that_the_readme_shows_is_what_is_said(path: Path) -> None:
    with pytest.raises(ConfigFileError) as caught:
        loaded(path, SHOWN.replace("dialect: openai", "dialekt: openai"))

    assert caught.value.lines == (FAULT_SHOWN,)


def test_a_backend_with_a_name_and_an_address_is_a_vllm_that_knows_the_model_by_our_name(path: Path) -> None:
    (model,) = loaded(path, SHORT % "").specs(Timeouts())

    (backend,) = model.backends
    assert (model.balancing, model.aliases, model.defaults) == (Balancing.LEAST_LOAD, (), {})
    assert (backend.dialect, backend.model, backend.weight, backend.tier) == ("vllm", "llama", 1, 0)
    assert (backend.api_key, backend.timeouts) == (None, Timeouts())


@pytest.mark.parametrize(
    ("written", "urls", "resolve"),
    [
        ("http://a:1/v1/", ("http://a:1",), False),
        ("['http://a:1', 'https://b/v1']", ("http://a:1", "https://b"), False),
        ("dns+http://a:1", ("http://a:1",), True),
        ("dns+https://a/v1", ("https://a",), True),
        ("' dns+http://a '", ("http://a",), True),
    ],
)
def test_an_address_is_one_or_a_list_or_a_name_to_be_looked_up(
    path: Path, written: str, urls: tuple[str, ...], resolve: bool
) -> None:
    config = loaded(path, f"models: [{{name: m, backends: [{{name: a, url: {written}}}]}}]")

    (backend,) = config.specs(Timeouts())[0].backends
    assert (backend.urls, backend.resolve) == (urls, resolve)


def test_seats_and_hedging_are_a_models_own(path: Path) -> None:
    config = loaded(
        path, "models: [{name: m, max_in_flight: 8, hedge_after_ms: 250, backends: [{name: a, url: http://a}]}]"
    )

    (model,) = config.specs(Timeouts())
    assert (model.seats, model.hedge_after) == (8, 0.25)


def test_a_backend_of_weight_0_stays_where_another_one_works(path: Path) -> None:
    config = loaded(
        path, "models: [{name: m, backends: [{name: a, url: http://a, weight: 0}, {name: b, url: http://b}]}]"
    )

    assert [backend.weight for backend in config.specs(Timeouts())[0].backends] == [0, 1]


def test_an_entry_may_be_written_once_and_used_twice(path: Path) -> None:
    config = loaded(
        path,
        "models:\n- &first {name: a, backends: [{name: x, url: http://x}]}\n- {<<: *first, name: b}\n",
    )

    assert [model.name for model in config.specs(Timeouts())] == ["a", "b"]


def test_a_date_is_text_as_in_json(path: Path) -> None:
    config = loaded(path, "models: [{name: 2026-01-31, backends: [{name: x, url: http://x}]}]")

    assert config.file.models[0].name == "2026-01-31"


def test_a_default_model_may_be_an_alias(path: Path) -> None:
    path.write_text("models: [{name: m, aliases: [n], backends: [{name: a, url: http://a}]}]")

    assert load(path, {}, default_model="n").file.models[0].name == "m"


@pytest.mark.parametrize("name", ["VLLM_API_KEY", "vllm_api_key"])
def test_a_key_is_found_in_a_mounted_secret_whatever_the_case_of_its_file(
    path: Path, tmp_path: Path, name: str
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / name).write_text(f"{KEY}\n")

    assert key_of(loaded(path, SHORT % ", api_key_env: VLLM_API_KEY", secrets_dir=secrets)) == KEY


def test_the_environment_goes_before_the_mounted_secret(path: Path, tmp_path: Path) -> None:
    (tmp_path / "THE_KEY").write_text("another")

    config = loaded(path, SHORT % ", api_key_env: THE_KEY", {"THE_KEY": KEY}, tmp_path)

    assert key_of(config) == KEY


@pytest.mark.parametrize("absolute", [True, False])
def test_a_key_file_is_beside_the_file_or_at_its_own_path(path: Path, tmp_path: Path, absolute: bool) -> None:
    (tmp_path / "key").write_text(f" {KEY}\r\n")

    config = loaded(path, SHORT % f", api_key_file: {tmp_path / 'key' if absolute else 'key'}")

    assert key_of(config) == KEY


def test_a_key_is_never_shown(path: Path) -> None:
    config = loaded(path, SHORT % ", api_key_env: K", {"K": KEY})

    assert key_of(config) == KEY
    assert KEY not in f"{config!r} {config.specs(Timeouts())!r}"


def test_the_version_names_the_content(path: Path) -> None:
    first = loaded(path, SHORT % "").version

    assert re.fullmatch("[0-9a-f]{12}", first)
    assert loaded(path, SHORT % "").version == first
    assert loaded(path, SHORT % ", weight: 2").version != first


@pytest.mark.parametrize("source", ["variable", "file"])
def test_the_version_changes_with_a_key(path: Path, tmp_path: Path, source: str) -> None:
    text = SHORT % (", api_key_env: K" if source == "variable" else ", api_key_file: k")
    versions = []
    for key in ("one", "two", "one"):
        (tmp_path / "k").write_text(key)
        versions.append(loaded(path, text, {"K": key}).version)

    assert versions[0] == versions[2] != versions[1]
