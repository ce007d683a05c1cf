# SPDX-License-Identifier: Apache-2.0
"""What people read: values.yaml, the README and the schema that are made from it, and the notes at the end."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.chart.rendering import (
    CHART,
    ONE_GPU,
    PRESETS,
    SIMULATED,
    Object,
    default_values,
    merged,
    nested,
    preset,
    render,
)
from tests.house.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEMPLATES = "\n".join(path.read_text(encoding="utf-8") for path in sorted((CHART / "templates").rglob("*.*")))
FREE_FORM = {"strategy", "resources", "readinessProbe", "livenessProbe", "nodeSelector"}
"""Maps that go to Kubernetes as they are, so that no template names what is in them."""


def generator(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [sys.executable, ROOT / ".ci/chart", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Stand for the chart, with what is generated and what it is generated from."""
    for name in ("values.yaml", "values.schema.json", "README.md"):
        shutil.copyfile(CHART / name, tmp_path / name)
    return tmp_path


def keys(values: Object) -> Iterator[str]:
    """Every name in values that a template must use."""
    for key, value in values.items():
        yield key
        if isinstance(value, dict) and key not in FREE_FORM | {"settings"}:
            yield from keys(value)


def notes(*values: Object) -> str:
    """What Helm prints after an installation."""
    wanted = 'kind: Notes\nmetadata: {name: notes}\ntext: {{ include "llm-gateway/templates/NOTES.txt" . | toJson }}'
    text: str = render(*values, {"extraObjects": [wanted]}).one("Notes", "notes")["text"]
    return text


# ---- what is generated -----------------------------------------------------------------------------------------------


def test_the_schema_and_the_readme_are_what_values_yaml_says() -> None:
    checked = generator("--check")

    assert checked.stdout + checked.stderr == ""
    assert checked.returncode == 0


@pytest.mark.parametrize(
    ("before", "after", "stale"),
    [
        ("# -- When a node pulls it.", "# -- When?", {"values.schema.json", "README.md"}),
        ("replicas: 2", "replicas: 3", {"values.schema.json", "README.md"}),
        ("cpu: 500m", "cpu: 400m", {"values.schema.json"}),
        ("# Who may talk to whom.", "# Who talks to whom.", {"values.schema.json", "README.md"}),
        ("# Every value of the chart", "# Each value of the chart", set()),
    ],
    ids=["comment", "default", "default-of-a-map", "comment-of-a-group", "comment-of-the-file"],
)
def test_a_change_of_values_yaml_makes_them_stale_and_generating_mends_it(
    copy: Path, before: str, after: str, stale: set[str]
) -> None:
    values = copy / "values.yaml"
    text = values.read_text(encoding="utf-8")
    assert before in text
    values.write_text(text.replace(before, after), encoding="utf-8")

    found = set(
        re.findall(r"^(\S+) is not what values.yaml says", generator("--check", "--chart", copy).stdout, re.MULTILINE)
    )

    assert found == stale
    assert generator("--chart", copy).returncode == 0
    assert generator("--check", "--chart", copy).returncode == 0


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("newcomer: 1", "newcomer: has no description"),
        ("# -- What it is.\nnewcomer:", "newcomer: is null, so that its type must be stated"),
    ],
    ids=["comment", "type"],
)
def test_a_value_without_a_comment_or_a_type_is_refused(copy: Path, line: str, complaint: str) -> None:
    with (copy / "values.yaml").open("a", encoding="utf-8") as values:
        values.write(f"\n{line}\n")

    refused = generator("--chart", copy)

    assert (refused.returncode, refused.stdout) == (1, f"{complaint}\n")


def test_a_setting_that_the_gateway_does_not_have_is_refused(copy: Path) -> None:
    values = copy / "values.yaml"
    text = values.read_text(encoding="utf-8").replace("  PORT: 50052", "  PROT: 50052")
    values.write_text(text, encoding="utf-8")

    assert generator("--chart", copy).stdout == "settings.PROT: the gateway has no such setting\n"


def test_a_readme_without_a_place_for_the_tables_is_refused(copy: Path) -> None:
    (copy / "README.md").write_text("# llm-gateway\n", encoding="utf-8")

    assert generator("--chart", copy).stdout == "README.md: lacks the lines between which the tables stand\n"


# ---- values.yaml -----------------------------------------------------------------------------------------------------


def test_every_value_is_used() -> None:
    unused = [key for key in keys(default_values()) if not re.search(rf'[."]{re.escape(key)}\b', TEMPLATES)]

    assert unused == []


def test_no_template_uses_a_value_that_there_is_not() -> None:
    used = {tuple(path.split(".")[1:]) for path in re.findall(r"\.Values((?:\.\w+)+)", TEMPLATES)}

    def known(path: tuple[str, ...], values: object) -> bool:
        if not path or values in ({}, []):
            return True
        return isinstance(values, dict) and path[0] in values and known(path[1:], values[path[0]])

    assert [path for path in sorted(used) if not known(path, default_values())] == []


def test_every_helper_is_used() -> None:
    defined = re.findall(r'define "(llm-gateway\.\w+)"', TEMPLATES)
    built = {"llm-gateway.vllmPod", "llm-gateway.simulatorPod"}  # by the engine's kind

    assert len(set(defined)) == len(defined)
    assert [name for name in defined if f'include "{name}"' not in TEMPLATES and name not in built] == []


# ---- the README ------------------------------------------------------------------------------------------------------


def test_the_readme_names_every_preset_and_no_other() -> None:
    readme = (CHART / "README.md").read_text(encoding="utf-8")

    assert sorted(re.findall(r"^\| \[.*\]\(ci/(.*)\)", readme, re.MULTILINE)) == [path.name for path in PRESETS]


def test_the_command_of_the_readme_is_the_least_that_works() -> None:
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    said = re.search(r"--set (\S+)=(\S+)", readme)
    assert said is not None

    assert nested(said[1], said[2]) == preset(CHART / "ci/default-values.yaml")


# ---- the notes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_the_notes_of_every_preset_are_short(path: Path) -> None:
    assert len(notes(preset(path)).splitlines()) <= 30


def test_the_notes_say_what_is_there_and_how_to_try_it() -> None:
    said = notes(SIMULATED)

    assert "llm-gateway 0.1.0: sim\n" in said
    assert "LLM_GATEWAY_ADDR=demo-llm-gateway.here:50052\n" in said
    assert "LLM_GATEWAY_ADDR=demo-llm-gateway-headless.here:50052\n" in said
    assert "helm test demo --namespace here\n" in said
    assert "kubectl --namespace here port-forward service/demo-llm-gateway 50052 &\n" in said
    assert "grpcurl -plaintext localhost:50052 llm_gateway.v1.LLMService/ListModels" in said
    assert "Warning" not in said


def test_the_notes_give_grpcurl_the_proto_files_where_it_cannot_ask_for_them() -> None:
    said = notes(SIMULATED, nested("settings.SERVER__REFLECTION", False))

    files = re.search(r"grpcurl -plaintext -import-path (\S+) -proto (\S+) localhost:50052 ", said)
    assert files is not None
    assert "service LLMService" in (ROOT / files[1] / files[2]).read_text(encoding="utf-8")


RISKS: dict[str, tuple[Object, str]] = {
    "inline": (nested("secrets.values.VLLM_API_KEY", "x"), "secrets.values stay readable in the release"),
    "no-policy": (nested("networkPolicy.enabled", False), "every pod of the cluster reaches the engines"),
    "admin": (nested("settings", {"ADMIN__ENABLED": True, "ADMIN__HOST": "::"}), "may end calls"),
    "one-pod": (nested("gateway.replicas", 1), "a single gateway's pod"),
    "cut-off": (nested("settings.TIMEOUT_MS", 600_001), "a rollout cuts off longer calls"),
    "shut": (nested("gateway.service.type", "LoadBalancer"), "nobody from outside reaches the LoadBalancer"),
    "no-key": (ONE_GPU, "vLLM wants no key"),
}


@pytest.mark.parametrize("risk", RISKS)
def test_the_notes_warn_of_a_risk_and_of_no_other(risk: str) -> None:
    values, warning = RISKS[risk]

    warnings = [line for line in notes(SIMULATED, values).splitlines() if line.startswith("Warning: ")]

    assert len(warnings) == 1
    assert warning in warnings[0]


@pytest.mark.parametrize(
    "policy",
    [{"enabled": False}, {"clients": [{"namespaceSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
    ids=["no-policy", "one-that-lets-them-in"],
)
def test_the_notes_do_not_say_that_those_from_outside_are_shut_out_where_they_are_not(policy: Object) -> None:
    assert "from outside" not in notes(SIMULATED, RISKS["shut"][0], {"networkPolicy": policy})


def test_the_notes_say_that_a_model_takes_time_to_load() -> None:
    assert "get pods --selector app.kubernetes.io/instance=demo" in notes(ONE_GPU)
    assert "loads its model" not in notes(SIMULATED)


def test_the_notes_of_all_risks_at_once_are_short() -> None:
    everything = merged(SIMULATED, *(values for values, _ in RISKS.values()), ONE_GPU)

    for policy in (True, False):
        said = notes(everything, nested("networkPolicy.enabled", policy))
        assert len(said.splitlines()) <= 30


def test_every_preset_says_what_it_is_for() -> None:
    for path in PRESETS:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert lines[1] == "#"
        assert re.match(r"# [A-Z].*", lines[2])
        assert yaml.safe_load("\n".join(lines))
