# SPDX-License-Identifier: Apache-2.0
"""`llm-gateway serve`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from llm_gateway import app
from llm_gateway.cli.screen import complain
from llm_gateway.config_file import ConfigFileError
from llm_gateway.observability.logging import configure_logging
from llm_gateway.server import PortInUseError
from llm_gateway.settings import SettingsError, load_settings, notes

if TYPE_CHECKING:
    from llm_gateway.settings import Settings

LOG = logging.getLogger(__name__)
WRONG_SETTINGS = 2
AS_JSON = {"json": True, "text": False, "auto": None}


def serve() -> int:
    """Run the gateway until it is told to end. Gives the exit code."""
    settings = settings_or_complaint()
    if settings is None:
        return WRONG_SETTINGS
    configure_logging(settings.log_level, as_json=AS_JSON[settings.log_format])
    for note in notes(settings):
        LOG.warning(note)
    try:
        return app.run(settings)
    except ConfigFileError as error:
        return complain_about(error)
    except PortInUseError as error:
        complain(f"{error}; is another gateway running? {error.setting} chooses another port")
        return 1


def settings_or_complaint() -> Settings | None:
    """The settings, or None once it was said what is wrong with them, a line for each field."""
    try:
        return load_settings()
    except SettingsError as error:
        complain_about(error)
        return None


def complain_about(error: SettingsError | ConfigFileError) -> int:
    """Say what is wrong, a line for each fault. Gives the exit code."""
    for line in error.lines:
        complain(line)
    return WRONG_SETTINGS
