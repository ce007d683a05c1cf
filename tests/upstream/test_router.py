# SPDX-License-Identifier: Apache-2.0
"""From the model that a caller names, or does not name, to the one that is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_gateway.errors import BackendLost, InvalidRequest
from llm_gateway.generation import Model
from llm_gateway.upstream.router import Router, Timeouts

if TYPE_CHECKING:
    from collections.abc import Sequence

BASE = Model(name="base")
OTHER = Model(name="other")
ADAPTER = Model(name="adapter", parent="base")


class Backend:
    """A backend that lists what it is told to; None: it cannot."""

    name = "vllm"

    def __init__(self, models: Sequence[Model] | None) -> None:
        self._models = models

    async def list_models(self) -> Sequence[Model]:
        if self._models is None:
            raise BackendLost("Gone.")
        return self._models


def route_over(models: Sequence[Model] | None, default: str | None = None) -> Router:
    timeouts = Timeouts(first_token=1.0, idle=1.0)
    return Router(Backend(models), address="http://x", timeouts=timeouts, default_model=default)  # type: ignore[arg-type]  # a part of one


@pytest.mark.parametrize(
    ("models", "default", "named", "resolved"),
    [
        (None, None, "base", "base"),
        (None, "other", "base", "base"),
        ([BASE], None, "not-listed", "not-listed"),
        (None, "other", None, "other"),
        ([BASE, OTHER], "other", None, "other"),
        ([BASE], None, None, "base"),
        ([ADAPTER, BASE], None, None, "base"),
    ],
)
async def test_a_model_is_resolved(
    models: Sequence[Model] | None, default: str | None, named: str | None, resolved: str
) -> None:
    route = await route_over(models, default).resolve(named)

    assert route.model == resolved


@pytest.mark.parametrize("models", [[BASE, OTHER], []], ids=["several", "none"])
async def test_a_model_that_could_be_any_is_refused_by_its_field(models: Sequence[Model]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await route_over(models).resolve(None)

    assert [violation.field for violation in caught.value.violations] == ["model"]


async def test_a_backend_that_cannot_say_what_it_serves_is_not_hidden() -> None:
    with pytest.raises(BackendLost):
        await route_over(None).resolve(None)


@pytest.mark.parametrize(
    ("models", "default", "marked"),
    [
        ([OTHER, BASE], None, []),
        ([OTHER, BASE], "other", ["other"]),
        ([BASE, ADAPTER], None, ["base"]),
        ([BASE], "gone", []),
    ],
)
async def test_models_are_listed_by_name_and_the_default_is_marked(
    models: Sequence[Model], default: str | None, marked: list[str]
) -> None:
    listed = await route_over(models, default).list_models()

    assert [model.name for model in listed] == sorted(model.name for model in models)
    assert [model.name for model in listed if model.is_default] == marked
