# SPDX-License-Identifier: Apache-2.0
"""`python -m llm_gateway` is `llm-gateway`."""

from llm_gateway.cli import app

app(prog_name="llm-gateway")
