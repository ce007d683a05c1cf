# SPDX-License-Identifier: Apache-2.0
"""`llm-gateway schema`."""

from __future__ import annotations

import json

from llm_gateway.cli.screen import say
from llm_gateway.config_file import json_schema


def schema() -> int:
    """Print the JSON schema of the configuration file. Gives the exit code."""
    say(json.dumps(json_schema(), indent=2, ensure_ascii=False))
    return 0
