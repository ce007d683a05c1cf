# SPDX-License-Identifier: Apache-2.0
"""The command line: run the gateway, look at it, talk to it."""

from llm_gateway.cli.commands import app

__all__ = ["app"]
