# SPDX-License-Identifier: Apache-2.0
"""The JSON schema that is shipped says what the rules are."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from typer.testing import CliRunner

from llm_gateway.cli import app
from llm_gateway.codec.defaults import CALLERS_OWN
from llm_gateway.config_file import json_schema
from llm_gateway.v1 import generation_pb2
from tests.house.tree import ROOT

SHIPPED = ROOT / "service/llm_gateway/config.schema.json"


def properties(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json_schema()["$defs"][name]["properties"]
    return found


def test_what_is_shipped_is_what_the_command_prints() -> None:
    printed = CliRunner().invoke(app, ["schema"])

    assert printed.exit_code == 0
    assert SHIPPED.read_text(encoding="utf-8") == printed.stdout, "run `make schema`"
    assert json.loads(printed.stdout) == json_schema()


def test_every_field_has_a_description_in_one_line() -> None:
    fields = {
        (entry, name): field
        for entry, found in [("ConfigFile", json_schema()), *json_schema()["$defs"].items()]
        for name, field in found.get("properties", {}).items()
    }

    assert len(fields) > 15
    assert [at for at, field in fields.items() if not re.fullmatch(r"\S.*\.", field.get("description", ""))] == []


def test_defaults_are_the_parameters_of_a_request_but_those_that_only_a_caller_can_want() -> None:
    ours = {field.name for field in generation_pb2.GenerationParams.DESCRIPTOR.fields}

    assert set(properties("ModelEntry")["defaults"]["properties"]) == ours - CALLERS_OWN


@pytest.mark.parametrize(
    ("field", "schema"),
    [
        ("temperature", {"type": "number", "minimum": 0, "maximum": 2}),
        ("top_p", {"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
        ("repetition_penalty", {"type": "number", "exclusiveMinimum": 0}),
        ("max_tokens", {"type": "integer", "minimum": 1}),
        ("ignore_eos", {"type": "boolean"}),
        ("truncation_side", {"type": "string", "enum": ["left", "right"]}),
        ("stop", {"type": "array", "items": {"type": "string"}, "maxItems": 64}),
        ("allowed_token_ids", {"type": "array", "items": {"type": "integer"}}),
        (
            "logit_bias",
            {
                "type": "object",
                "propertyNames": {"pattern": "^[0-9]+$"},
                "maxProperties": 4096,
                "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
            },
        ),
    ],
)
def test_a_default_has_the_range_of_a_request(field: str, schema: dict[str, Any]) -> None:
    assert properties("ModelEntry")["defaults"]["properties"][field] == schema
