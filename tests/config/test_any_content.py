# SPDX-License-Identifier: Apache-2.0
"""Whatever a file holds, it is read, or refused in lines; there is no third way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.config_file import ConfigFileError, load
from llm_gateway.config_file.schema import BackendEntry, ModelEntry

if TYPE_CHECKING:
    from pathlib import Path

FIELDS = [*ModelEntry.model_fields, *BackendEntry.model_fields, "models", "connect_ms", "temperature", "logit_bias"]
WORDS = ["vllm", "http://a", "dns+http://a", "session"]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(WORDS)
NAMES = st.sampled_from(FIELDS) | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=15
)
BACKENDS = st.dictionaries(st.sampled_from(list(BackendEntry.model_fields)), VALUES)
MODELS = st.fixed_dictionaries(
    {"name": SCALARS, "backends": st.lists(BACKENDS, max_size=3) | VALUES},
    optional={"defaults": VALUES, "aliases": VALUES},
)
CONTENTS = st.dictionaries(NAMES, VALUES, max_size=3) | st.fixed_dictionaries({"models": st.lists(MODELS, max_size=3)})
WHOLE = """
models:
  - name: m
    aliases: [n]
    defaults: {temperature: 1.0}
    backends:
      - {name: a, url: ["http://a", "http://b"], weight: 2}
      - name: b
        url: dns+https://c
"""


@given(content=CONTENTS)
def test_any_mapping(tmp_path: Path, content: dict[str, Any]) -> None:
    assert_read_or_refused(tmp_path / "f", yaml.safe_dump(content, allow_unicode=True))


@given(content=st.text() | st.text("[]{}:-?&*!|>'\"%@`#, \n\tab1<") | st.binary())
def test_any_text(tmp_path: Path, content: str | bytes) -> None:
    assert_read_or_refused(tmp_path / "f", content)


@given(cut=st.integers(0, len(WHOLE)))
def test_a_file_that_is_cut_off(tmp_path: Path, cut: int) -> None:
    assert_read_or_refused(tmp_path / "f", WHOLE[:cut])


def assert_read_or_refused(path: Path, content: str | bytes) -> None:
    path.write_bytes(content.encode(errors="surrogatepass") if isinstance(content, str) else content)
    try:
        lines = [f"read: {load(path, {}).version}"]
    except ConfigFileError as error:
        lines = list(error.lines)

    assert lines
    assert [line for line in lines if not line.isprintable() or ": " not in line] == []
