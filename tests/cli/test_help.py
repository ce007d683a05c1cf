# SPDX-License-Identifier: Apache-2.0
"""What the command line says of itself."""

from __future__ import annotations

import sys

import pytest
from typer.testing import CliRunner

from llm_gateway import __version__
from llm_gateway.cli import app
from tests.cli.program import run

COMMANDS = ["cancel", "chat", "check", "demo", "models", "schema", "serve", "simulate", "status"]


def invoke(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "TERM": "dumb"})
    return done.exit_code, done.output


async def test_the_script_prints_its_version() -> None:
    done = await run("--version")

    assert (done.code, done.out) == (0, f"llm-gateway {__version__}\n")


async def test_python_m_is_the_script() -> None:
    done = await run("--version", command=(sys.executable, "-m", "llm_gateway"))

    assert (done.code, done.out) == (0, f"llm-gateway {__version__}\n")


async def test_help_does_not_wait_for_what_it_does_not_need() -> None:
    done = await run("-c", "import sys, llm_gateway.cli; print(*sys.modules)", command=(sys.executable,))

    loaded = set(done.out.split())
    assert "typer" in loaded
    assert {"grpc", "aiohttp", "pydantic", "llm_gateway.app"} & loaded == set()


def test_without_a_command_there_is_help() -> None:
    assert invoke() == invoke("--help")


def test_every_command_has_a_sentence_in_the_help() -> None:
    code, text = invoke("--help")

    assert code == 0
    assert [name for name in COMMANDS if f" {name} " not in text] == []


@pytest.mark.parametrize("name", ["serve", "check", "chat", "simulate", "models", "status", "cancel"])
def test_a_command_whose_exit_code_matters_says_which_there_are(name: str) -> None:
    code, text = invoke(name, "--help")

    assert code == 0
    assert "Exit codes: 0 " in text


def test_an_unknown_command_is_a_mistake_of_the_user() -> None:
    assert invoke("sing")[0] == 2
