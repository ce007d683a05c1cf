# SPDX-License-Identifier: Apache-2.0
"""grpcurl as a person at a terminal uses it."""

from __future__ import annotations

import json

from tests.cluster.kube import run, tool

STREAM = "llm_gateway.v1.LLMService/ChatCompletionStream"
TOKENS = 8
WHOLE = f'"completion_tokens": {TOKENS}'
"""What stands in an answer that is whole."""


def question(**fields: object) -> str:
    """A request as JSON."""
    messages = [{"role": "ROLE_USER", "content": "Tell me a story."}]
    return json.dumps({"messages": messages, "params": {"max_tokens": TOKENS}, **fields})


def answer(address: str, **fields: object) -> str:
    """What grpcurl prints of a stream, or of the status in its place."""
    return run(tool("grpcurl"), "-plaintext", "-d", question(**fields), address, STREAM, check=False)
