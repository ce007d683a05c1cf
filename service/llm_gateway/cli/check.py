# SPDX-License-Identifier: Apache-2.0
"""`llm-gateway check`."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from llm_gateway.app import model_specs, read_config
from llm_gateway.cli.asking import ask_all
from llm_gateway.cli.screen import complain, say, show, table
from llm_gateway.cli.serve import WRONG_SETTINGS, complain_about, settings_or_complaint
from llm_gateway.config_file import ConfigFileError
from llm_gateway.settings import effective, notes, variables
from llm_gateway.upstream.spec import ANY_MODEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_gateway.cli.asking import Finding, ModelFindings
    from llm_gateway.config_file import Config
    from llm_gateway.settings import Settings

MANY_MODELS = 3


def check(*, as_json: bool) -> int:
    """Print the settings, the models, and what each backend says. Gives the exit code."""
    settings = settings_or_complaint()
    if settings is None:
        return WRONG_SETTINGS
    try:
        config = read_config(settings)
    except ConfigFileError as error:
        return complain_about(error)
    if not as_json:
        _show_settings(settings)
    for note in notes(settings):
        complain(note)
    models = asyncio.run(ask_all(model_specs(settings, config), settings))
    if as_json:
        say(_as_json(settings, config, models))
    else:
        _show_models(settings, models)
    return 0 if all(model.answers for model in models) else 1


def _show_settings(settings: Settings) -> None:
    """Every setting; what differs from its default is bright."""
    defaults = {name: default for name, default, _ in variables()}
    settings_table = table("Setting", "Value")
    for name, value in effective(settings):
        settings_table.add_row(name, value, style="dim" if value == defaults[name] else "bold")
    show(settings_table)
    say("")


def _show_models(settings: Settings, models: Sequence[ModelFindings]) -> None:
    """Every address of every backend, and then what is wrong."""
    columns = ("Model", "Aliases", "Backend", "Dialect", "Address", "Tier", "Weight", "Answers", "Serves")
    models_table = table(*columns)
    for model in models:
        names = (model.spec.name or "any", ", ".join(model.spec.aliases))
        for finding in model.found:
            models_table.add_row(*names, *_row(finding))
    show(models_table)
    for model in models:
        for finding in model.found:
            for fault in _faults(finding):
                complain(f"{finding.spec.name} at {finding.url}: {fault}")
        if not model.answers:
            complain(f"{model.spec.name or 'any model'}: no backend that gets calls answers")
    served = [name for model in models if model.spec.name == ANY_MODEL for f in model.found for name in f.models or ()]
    if served and settings.default_model not in {None, *served}:
        complain(f"DEFAULT_MODEL: {settings.default_model} is not served")


def _row(finding: Finding) -> Sequence[str]:
    spec = finding.spec
    models = finding.models or ()
    serves = ", ".join(models[:MANY_MODELS])
    if len(models) > MANY_MODELS:
        serves += f" and {len(models) - MANY_MODELS} more"
    answers = "yes" if finding.answers else "no"
    return (spec.name, spec.dialect, finding.url, str(spec.tier), str(spec.weight), answers, serves)


def _faults(finding: Finding) -> Sequence[str]:
    """What is wrong with it, in a sentence each."""
    faults = []
    if finding.error is not None:
        faults.append(finding.error)
    elif not finding.answers:
        faults.append(f"it is {finding.readiness}")
    if finding.lacks is not None:
        faults.append(f"it does not list {finding.lacks} among its models")
    return faults


def _as_json(settings: Settings, config: Config | None, models: Sequence[ModelFindings]) -> str:
    found = {
        "settings": dict(effective(settings)),
        "notes": list(notes(settings)),
        "config_version": None if config is None else config.version,
        "models": [_model_as_json(model) for model in models],
    }
    return json.dumps(found, ensure_ascii=False)


def _model_as_json(model: ModelFindings) -> dict[str, Any]:
    return {
        "name": model.spec.name or None,
        "aliases": model.spec.aliases,
        "answers": model.answers,
        "backends": [_backend_as_json(finding) for finding in model.found],
    }


def _backend_as_json(finding: Finding) -> dict[str, Any]:
    spec = finding.spec
    return {
        "name": spec.name,
        "dialect": spec.dialect,
        "url": finding.url,
        "model": spec.model,
        "tier": spec.tier,
        "weight": spec.weight,
        "answers": finding.answers,
        "readiness": finding.readiness,
        "models": finding.models,
        "faults": _faults(finding),
    }
