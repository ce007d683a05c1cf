# SPDX-License-Identifier: Apache-2.0
"""What the chaos run draws: the same for the same seed, and only what it may be."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest

from llm_gateway.config_file import load
from llm_gateway.simulator import Fault
from tests.chaos.stage import KEY, MODELS, models_at
from tests.chaos.trouble import changed_models, fault
from tests.chaos.wishes import Wisher

if TYPE_CHECKING:
    from pathlib import Path

MANY = 300


@pytest.fixture(scope="module")
def wisher() -> Wisher:
    """Draws calls."""
    return Wisher(MODELS)


def test_the_same_seed_gives_the_same_call(wisher: Wisher) -> None:
    assert wisher.wish("call-1", random.Random("7 call 1")) == Wisher(MODELS).wish("call-1", random.Random("7 call 1"))


def test_another_call_is_promised_another_text(wisher: Wisher) -> None:
    wishes = [wisher.wish(f"call-{number}", random.Random(number)) for number in range(MANY)]
    own = [wish.promise.texts[0] for wish in wishes if "text=" in wish.prompt and "max_tokens" not in wish.params]

    assert len(own) == len(set(own)) > MANY / 3


def test_every_fault_is_drawn() -> None:
    assert {fault(random.Random(number)).fault for number in range(MANY * 3)} == set(Fault)


def test_every_configuration_that_is_drawn_for_a_right_one_is_right_and_another(tmp_path: Path) -> None:
    usual = models_at({name: f"http://127.0.0.1:{port}" for port, name in enumerate(("a1", "a2", "b", *"cdef"), 1)})
    (tmp_path / "key").write_text(KEY)
    file = tmp_path / "models.yaml"
    versions = set()

    for number in range(MANY // 5):
        file.write_text(json.dumps({"models": changed_models(usual, random.Random(number), "http://127.0.0.1:9")}))
        versions.add(load(file, {}, secrets_dir=None, default_model=None).version)

    assert len(versions) > len(usual)
