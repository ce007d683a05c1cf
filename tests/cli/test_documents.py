# SPDX-License-Identifier: Apache-2.0
"""The README and the docs say what is so."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest

from llm_gateway.interceptors.errors import CODES
from llm_gateway.settings import variables
from llm_gateway.simulator import NOT_SIMULATED, Behaviour, Fault
from llm_gateway.simulator.directives import find_directive
from llm_gateway.v1 import error_pb2, generation_pb2, llm_service_pb2
from tests.house.tree import ROOT, project_files

README = (ROOT / "README.md").read_text(encoding="utf-8")
SIMULATOR = (ROOT / "docs/simulator.md").read_text(encoding="utf-8")
FIELDS = (ROOT / "docs/vllm-fields.md").read_text(encoding="utf-8")
GRPCURL = (
    """grpcurl -plaintext -d '{"messages":[{"role":"ROLE_USER","content":"hello"}],"params":{"max_tokens":32}}' """
    "localhost:50052 llm_gateway.v1.LLMService/ChatCompletionStream\n"
)


def rows(document: str, first: str) -> list[list[str]]:
    """The cells of the table whose first heading is `first`."""
    table = document.split(f"| {first} |", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines()[2:]]


def settings_table() -> str:
    """What the README should say of the settings."""
    lines = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, default, meaning in variables():
        shown = f"`{default.replace(',', ', ')}`" if default else "–"
        lines.append(f"| `{name}` | {shown} | {meaning} |")
    return "\n".join(lines)


def test_the_readme_lists_every_setting_with_its_default() -> None:
    assert settings_table() in README, f"paste this into the README:\n{settings_table()}"


def test_the_readme_lists_every_reason_under_its_code_and_no_other() -> None:
    ours: dict[str, set[str]] = {}
    for error, code in CODES.items():
        ours.setdefault(code.name, set()).add(error.reason)

    table = {row[0]: set(row[1].split(", ")) for row in rows(README, "code") if row[1] != "–"}
    assert table == ours
    assert set().union(*table.values()) == {
        name.removeprefix("ERROR_REASON_") for name in error_pb2.ErrorReason.keys()[1:]
    }


def test_the_readme_lists_the_commands_that_make_has() -> None:
    helped = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    commands = re.findall(r"^  (make \S+) +(\S.*)$", helped, re.MULTILINE)

    assert [(row[0].strip("`"), row[1]) for row in rows(README, "command")] == commands


def test_the_readme_has_the_worker_as_it_is() -> None:
    _, _, code = (ROOT / "examples/worker.py").read_text(encoding="utf-8").split('"""', 2)

    assert f"```python\n{code.lstrip()}```" in README


def test_the_readme_has_the_call_that_everybody_begins_with() -> None:
    assert GRPCURL in README


@pytest.mark.parametrize("document", ["README.md", "docs/metrics.md", "docs/simulator.md", "docs/vllm-fields.md"])
def test_what_is_linked_to_is_there(document: str) -> None:
    path = ROOT / document
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8"))

    assert [link for link in links if not (path.parent / link).exists()] == []


def test_every_request_that_the_readme_shows_is_one() -> None:
    shown = re.findall(r"-d '([^']+)' \S+ llm_gateway\.v1\.LLMService/(\w+)", README)
    kinds: dict[str, Any] = {
        method.name: getattr(llm_service_pb2, method.input_type.name)
        for method in llm_service_pb2.DESCRIPTOR.services_by_name["LLMService"].methods
    }

    assert len(shown) == 3
    for request, method in shown:
        known = {field.name for field in kinds[method].DESCRIPTOR.fields}
        assert set(json.loads(request)) <= known


def test_every_fault_is_explained_and_no_other() -> None:
    assert [row[0].strip("`") for row in rows(SIMULATOR, "fault")] == list(Fault)


def test_every_behaviour_is_explained_and_no_other() -> None:
    explained = {name for row in rows(SIMULATOR, "name") for name in re.findall(r"`(\w+)`", row[0])}

    assert explained == {*Behaviour.__slots__, "ttft_ms", "pace_ms", "ms"}


def test_every_directive_that_is_shown_can_be_read() -> None:
    shown = re.findall(r"\[\[sim[^\n]*?\]\]", SIMULATOR.replace("[[sim …]]", ""))

    assert len(shown) > 3
    assert [directive for directive in shown if find_directive(directive) is None] == []


def test_what_is_not_simulated_is_said() -> None:
    assert [name for name in NOT_SIMULATED if f"`{name}`" not in SIMULATOR] == []


def test_every_field_of_a_request_is_spoken_of() -> None:
    params = {f"params.{field.name}" for field in generation_pb2.GenerationParams.DESCRIPTOR.fields}
    chat = {field.name for field in llm_service_pb2.ChatCompletionRequest.DESCRIPTOR.fields} - {"params"}
    parts = {
        f"{name}.{field.name}"
        for name, message in (
            ("reasoning", generation_pb2.ReasoningOptions),
            ("structured_output", generation_pb2.StructuredOutput),
        )
        for field in message.DESCRIPTOR.fields
    }

    told = set(re.findall(r"`([\w.]+)`", FIELDS))
    assert (params | chat | parts) - {"reasoning", "structured_output"} - told == set()


def test_what_no_recording_covers_is_said() -> None:
    recorded: set[str] = set()
    for path in project_files():
        if path.match("tests/recordings/*/*.req"):
            try:
                request = json.loads((ROOT / path).read_bytes())
            except ValueError:
                continue
            if isinstance(request, dict) and ("messages" in request or "prompt" in request):
                recorded |= set(request)

    told = {row[0].strip("`"): row[2] for row in rows(FIELDS, "vLLM") if "." not in row[0]}
    assert told == {name: "yes" if name in recorded else "no" for name in told}
