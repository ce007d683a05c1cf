# SPDX-License-Identifier: Apache-2.0
"""What each dialect makes of the rows of request_rows.py, by the tables of docs/dialects.md and by hand where a name is
not all that differs.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tests.house.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.backends.request_rows import Row

OTHERS = ("openai", "sglang", "llamacpp", "ollama", "generic")
REFUSED, LEFT_OUT = "refused", "–"
PAGE = (ROOT / "docs" / "dialects.md").read_text()
Table = dict[str, dict[str, str]]

# Honoured by leaving them out where there is no such field.
UNASKED: list[tuple[str, Any]] = [
    ("params.n", 1),
    ("params.min_tokens", 0),
    ("params.include_stop", False),
    ("params.ignore_eos", False),
    ("params.use_beam_search", False),
    ("params.logprobs", False),
    ("params.skip_special_tokens", True),
    ("tools.strict", False),
    ("tool_choice.mode", "MODE_AUTO"),
    ("parallel_tool_calls", True),
    ("reasoning.include", True),
    ("messages.content_parts.image_url.detail", "auto"),
    ("stream_options.include_token_ids", False),
]

RENAMED = {
    "vllm": {},
    "openai": {},
    "sglang": {"include_stop_str_in_output": "no_stop_trim"},
    "llamacpp": {"max_completion_tokens": "max_tokens", "repetition_penalty": "repeat_penalty"},
    "ollama": {"max_completion_tokens": "max_tokens"},
    "generic": {"max_completion_tokens": "max_tokens"},
}
YES_OR_NO = 'root ::= "yes" | "no"'
FORMS = {
    "sglang": {"regex": {"regex": "a+"}, "grammar": {"ebnf": 'root ::= "a"'}, "choice": {"ebnf": YES_OR_NO}},
    "llamacpp": {"grammar": {"grammar": 'root ::= "a"'}, "choice": {"grammar": YES_OR_NO}},
}
DEVELOPERS = {"vllm", "openai"}
THOUGHTS = {"sglang": "reasoning_content", "llamacpp": "reasoning_content"}
EVERY_TOKEN = {"sglang": -1, "llamacpp": 0}


def tables() -> list[Table]:
    """The tables of fields: path, dialect, cell; of a chat, of what a prompt has beside it, of a raw prompt."""
    found: list[Table] = []
    heads: list[str] = []
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| field |"):
            heads = cells[1:]
            found.append({})
        elif line.startswith("| `") and heads:
            found[-1][cells[0].strip("`")] = dict(zip(heads, cells[1:], strict=True))
        elif not line.startswith("|"):
            heads = []
    return found


CHAT_TABLE, PROMPT_TABLE, RAW_TABLE = tables()


def is_unasked(row: Row) -> bool:
    """Whether a row sets its field to what every backend does."""
    path, fields, _ = row
    return any(path == unasked and _at(fields, path) == value for unasked, value in UNASKED)


def _at(fields: Any, path: str) -> Any:
    for step in path.split("."):
        fields = fields[0] if isinstance(fields, list) else fields
        fields = fields[step]
    return fields


def names_in(cell: str) -> list[str]:
    """The names that a cell says."""
    return re.findall(r"`([^`]+)`", cell)


def expected(dialect: str, row: Row, cell: str, *, raw: bool = False) -> dict[str, Any]:
    """What a row that the dialect honours adds to its request."""
    path, _, vllms = row
    sent = json.loads(json.dumps(vllms))
    if cell in {REFUSED, LEFT_OUT}:
        sent = _without(path, sent)
    sent = {RENAMED[dialect].get(name, name): value for name, value in sent.items()}
    if "structured_outputs" in sent and dialect in FORMS:
        sent |= FORMS[dialect][next(iter(sent.pop("structured_outputs")))]
    if raw and dialect == "llamacpp" and "response_format" in sent:
        form = sent.pop("response_format")
        sent["json_schema"] = form["json_schema"]["schema"] if "json_schema" in form else {"type": "object"}
    if sent.get("top_k") in {0, -1} and dialect in EVERY_TOKEN:
        sent["top_k"] = EVERY_TOKEN[dialect]
    if dialect == "llamacpp" and sent.get("logprobs") is True:
        sent["top_logprobs"] = max(1, sent.get("top_logprobs", 0))
    if "messages" in sent:
        sent["messages"] = list(_messages(dialect, sent["messages"]))
    return sent


def _without(path: str, sent: dict[str, Any]) -> dict[str, Any]:
    """A row's request without the field that is left out, with what it needs around it."""
    if path == "tools.strict":
        del sent["tools"][0]["function"]["strict"]
        return sent
    kept = {"tools"} if path.startswith("tool_choice") else {"messages"}
    return {name: value for name, value in sent.items() if name in kept}


def _messages(dialect: str, messages: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for message in messages:
        if message["role"] == "developer" and dialect not in DEVELOPERS:
            message["role"] = "system"
        if "reasoning" in message and dialect in THOUGHTS:
            message[THOUGHTS[dialect]] = message.pop("reasoning")
        yield message
