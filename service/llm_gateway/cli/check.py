# SPDX-License-Identifier: Apache-2.0
"""`llm-gateway check`."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_gateway.app import make_backend
from llm_gateway.cli.screen import complain, say, show, table
from llm_gateway.cli.serve import WRONG_SETTINGS, settings_or_complaint
from llm_gateway.errors import GatewayError
from llm_gateway.settings import effective, variables

if TYPE_CHECKING:
    from llm_gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Findings:
    """What the backend said; `error` says what is wrong with it."""

    healthy: bool
    models: tuple[str, ...]
    error: str | None

    @property
    def answers(self) -> bool:
        """Whether it can serve: it is healthy and lists its models, so that it takes our key as well."""
        return self.healthy and self.error is None


def check(*, as_json: bool) -> int:
    """Print the settings and what the backend says. Gives the exit code."""
    settings = settings_or_complaint()
    if settings is None:
        return WRONG_SETTINGS
    if not as_json:
        _show_settings(settings)
    found = asyncio.run(ask_backend(settings))
    if as_json:
        say(_as_json(settings, found))
    else:
        _show_findings(settings, found)
    return 0 if found.answers else 1


async def ask_backend(settings: Settings) -> Findings:
    """Ask for the backend's health and its models."""
    backend = make_backend(settings)
    healthy = False
    try:
        healthy = await backend.is_healthy()
        models = tuple(model.name for model in await backend.list_models())
    except GatewayError as error:
        return Findings(healthy, (), f"{error.reason}: {error.message}")
    finally:
        await backend.close()
    return Findings(healthy, models, None)


def _show_settings(settings: Settings) -> None:
    """Every setting; what differs from its default is bright."""
    defaults = {name: default for name, default, _ in variables()}
    settings_table = table("Setting", "Value")
    for name, value in effective(settings):
        settings_table.add_row(name, value, style="dim" if value == defaults[name] else "bold")
    show(settings_table)
    say("")


def _show_findings(settings: Settings, found: Findings) -> None:
    say(f"{settings.vllm_url} {'is healthy' if found.healthy else 'is not healthy'}")
    if found.error is not None:
        complain(found.error)
        return
    say(f"serves {', '.join(found.models) or 'no model'}")
    if settings.default_model not in {None, *found.models}:
        complain(f"DEFAULT_MODEL: {settings.default_model} is not served")


def _as_json(settings: Settings, found: Findings) -> str:
    backend = {
        "url": settings.vllm_url,
        "answers": found.answers,
        "healthy": found.healthy,
        "models": found.models,
        "error": found.error,
    }
    return json.dumps({"settings": dict(effective(settings)), "backend": backend}, ensure_ascii=False)
