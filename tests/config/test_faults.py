# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a file is said in one line for each fault: where it is, and what; never a value."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from llm_gateway.config_file import ConfigFileError, load

if TYPE_CHECKING:
    from pathlib import Path

KEY = "sk-very-secret"
VARIABLE = "must be the name of a variable, and not the key itself"
UNSET = "the variable that it names is not set"
NAME = "must be 1 to 256 printable ASCII characters without blanks"
BACKEND_NAME = 'must be 1 to 64 letters, digits, ".", "_" or "-", the first a letter or a digit'
TEXT = "must be text; put it in quotes if it looks like a number or a yes"
A_NAME = "must be a name; put it in quotes if it looks like a number or a yes"
CREDENTIALS = "must not have credentials in it; use api_key_env or api_key_file"
TWICE = "is there twice among the names and aliases"
IDLE = "needs at least one, and one with a weight above 0"
NO_VALUE = "has a value that its type cannot have"
DIALECT = "must be one of vllm, openai, sglang, llamacpp, ollama, generic"
NO_FIELD = "there is no such field"
ADDRESS = "must be an http:// or https:// address"


def lines_of(path: Path, text: str | bytes, **options: Any) -> tuple[str, ...]:
    """The lines with which a file is refused."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigFileError) as caught:
        load(path, {}, **options)
    assert path in caught.value.digests
    return caught.value.lines


def model(fields: str) -> str:
    """A file with one model; `fields` begin in its fourth line."""
    return f"models:\n  - name: m\n    backends: [{{name: a, url: http://a}}]\n    {fields}\n"


def backend(fields: str) -> str:
    """A file with one backend; `fields` begin in its fifth line."""
    return f"models:\n  - name: m\n    backends:\n      - name: a\n        {fields}\n        url: http://a\n"


def url(value: str) -> str:
    return f"models:\n  - name: m\n    backends:\n      - name: a\n        url: {value}\n"


AT_MODEL, AT_BACKEND = "models[0].", "models[0].backends[0]."
WHOLE = {
    "an empty file": ("", "CONFIG_FILE: is empty"),
    "only comments": ("# nothing\n---\n", "CONFIG_FILE: is empty"),
    "a list": ("- models\n", "CONFIG_FILE: must be a mapping that has models"),
    "a word": ("models", "CONFIG_FILE: must be a mapping that has models"),
    "not utf-8": (b"models: \xff", "CONFIG_FILE: is not UTF-8"),
    "too long": ("#" * 2_000_000, "CONFIG_FILE: has more than 1,048,576 bytes"),
    "too deep": ("[" * 300_000, "CONFIG_FILE: line 1, column 51: is nested more than 50 deep"),
    "no models": ("{}", "models: is missing"),
    "no model": ("models: []", "models (line 1): needs at least one"),
    "a cut-off line": ("models:\n  - name: m\n    back", "CONFIG_FILE: line 4, column 1: could not find expected ':'"),
    "half of a model": ("models:\n  - name: m\n", "models[0].backends (line 2): is missing"),
    "a mapping in a word": (
        "models:\n  a: b: c",
        "CONFIG_FILE: line 2, column 7: mapping values are not allowed in this context",
    ),
    "an open quote": ("models: 'x", "CONFIG_FILE: line 1, column 11: found unexpected end of stream"),
    "two documents": (
        "models: []\n---\n",
        "CONFIG_FILE: line 2, column 1: expected a single document in the stream but found another document",
    ),
    "a bell": ("models:\n\n  \x07", "CONFIG_FILE: line 3: has a character that YAML does not allow"),
    "a tag": ("models: !!set {a, b}", "CONFIG_FILE: line 1, column 9: has a tag that is not known here"),
    "a program": (
        "models: !!python/name:os.system x",
        "CONFIG_FILE: line 1, column 9: has a tag that is not known here",
    ),
    "a tag without its value": ("models: !!int x", f"CONFIG_FILE: line 1, column 9: {NO_VALUE}"),
    "a number without measure": ("models: " + "9" * 5000, f"CONFIG_FILE: line 1, column 9: {NO_VALUE}"),
    "a name twice": ("models: []\nmodels: []", "CONFIG_FILE: line 2, column 1: models is there twice"),
    "a list for a name": ("? [a]\n: b", "CONFIG_FILE: line 1, column 3: found unhashable key"),
    "itself": ("models: &a [*a]", "models[0] (line 1): must be a mapping"),
}
FAULTS = {
    "a typo": (model("balancng: session"), f"{AT_MODEL}balancng (line 4): {NO_FIELD}; did you mean balancing?"),
    "a stranger": (model("zzz: 1"), f"{AT_MODEL}zzz (line 4): {NO_FIELD}"),
    "a stranger with control characters": (model('"\\e[31m": 1'), f"{AT_MODEL}'\\x1b[31m' (line 4): {NO_FIELD}"),
    "a number for a name": (model("7: 1"), f"models[0][7] (line 4): {A_NAME}"),
    "balancing": (
        model("balancing: random"),
        f"{AT_MODEL}balancing (line 4): must be 'least_load', 'session' or 'prefix'",
    ),
    "no seats": (model("max_in_flight: 0"), f"{AT_MODEL}max_in_flight (line 4): must be more than 0"),
    "seats in quotes": (model("max_in_flight: '5'"), f"{AT_MODEL}max_in_flight (line 4): must be a whole number"),
    "hedging": (model("hedge_after_ms: 1.5"), f"{AT_MODEL}hedge_after_ms (line 4): must be a whole number"),
    "one alias without a list": (model("aliases: n"), f"{AT_MODEL}aliases (line 4): must be a list"),
    "an alias with a blank": (model("aliases: [n, o p]"), f"{AT_MODEL}aliases[1] (line 4): {NAME}"),
    "an alias twice": (model("aliases: [n, n]"), f"{AT_MODEL}aliases[1] (line 4): {TWICE}"),
    "the name as an alias": (model("aliases: [m]"), f"{AT_MODEL}aliases[0] (line 4): {TWICE}"),
    "the same model": (
        model("") + "  - name: m\n    backends: [{name: a, url: http://a}]",
        f"models[1].name (line 5): {TWICE}",
    ),
    "a yes for a name": (
        "models: [{name: yes, backends: [{name: a, url: http://a}]}]",
        f"{AT_MODEL}name (line 1): {TEXT}",
    ),
    "a default out of range": (
        model("defaults: {temperature: 9}"),
        f"{AT_MODEL}defaults.temperature (line 4): must be at least 0 and at most 2",
    ),
    "an unknown default": (
        model("defaults:\n      temprature: 1"),
        f"{AT_MODEL}defaults.temprature (line 5): there is no such parameter; did you mean temperature?",
    ),
    "a default within a default": (
        model("defaults: {repetition_detection: {min_count: 2}}"),
        f"{AT_MODEL}defaults.repetition_detection.max_pattern_size (line 4): must be at least 1",
    ),
    "a default that is the caller's": (
        model("defaults: {n: 2}"),
        f"{AT_MODEL}defaults.n (line 4): cannot have a default: only a caller can want it",
    ),
    "a default that a backend does not have": (
        model("defaults: {top_k: 20}").replace("{name: a,", "{name: a, dialect: openai,"),
        f"{AT_BACKEND}dialect (line 3): openai has no top_k, which is among the model's defaults",
    ),
    "defaults that are none": (model("defaults: [1]"), f"{AT_MODEL}defaults (line 4): must be a mapping"),
    "no backend": ("models: [{name: m, backends: []}]", f"{AT_MODEL}backends (line 1): {IDLE}"),
    "a backend twice": (
        "models: [{name: m, backends: [{name: a, url: http://a}, {name: a, url: http://b}]}]",
        "models[0].backends[1].name (line 1): is the name of another backend of this model",
    ),
    "nobody who works": (backend("weight: 0"), f"{AT_MODEL}backends (line 3): {IDLE}"),
    "no address": ("models: [{name: m, backends: [{name: a}]}]", f"{AT_BACKEND}url (line 1): is missing"),
    "a backend that is none": (
        "models: [{name: m, backends: [5]}]",
        "models[0].backends[0] (line 1): must be a mapping",
    ),
    "a backend's name": (
        "models: [{name: m, backends: [{name: a b, url: http://a}]}]",
        f"{AT_BACKEND}name (line 1): {BACKEND_NAME}",
    ),
    "a negative weight": (backend("weight: -1"), f"{AT_BACKEND}weight (line 5): must be at least 0"),
    "a yes for a weight": (backend("weight: yes"), f"{AT_BACKEND}weight (line 5): must be a whole number"),
    "a priority": (backend("priority: 101"), f"{AT_BACKEND}priority (line 5): must be at most 100"),
    "a dialect": (backend("dialect: vlm"), f"{AT_BACKEND}dialect (line 5): {DIALECT}"),
    "an empty model": (backend("model: ''"), f"{AT_BACKEND}model (line 5): must not be empty"),
    "a timer": (
        backend("timeouts: {idle: 5}"),
        f"{AT_BACKEND}timeouts.idle (line 5): {NO_FIELD}; did you mean idle_ms?",
    ),
    "a timer of none": (
        backend("timeouts: {idle_ms: 0}"),
        f"{AT_BACKEND}timeouts.idle_ms (line 5): must be more than 0",
    ),
    "no timers": (backend("timeouts:"), f"{AT_BACKEND}timeouts (line 5): must be a mapping"),
    "the key itself": (
        backend(f"api_key: {KEY}"),
        f"{AT_BACKEND}api_key (line 5): {NO_FIELD}; did you mean api_key_env?",
    ),
    "the key for its variable": (backend(f"api_key_env: {KEY}"), f"{AT_BACKEND}api_key_env (line 5): {VARIABLE}"),
    "a variable that is not set": (backend("api_key_env: VERY_SECRET"), f"{AT_BACKEND}api_key_env (line 5): {UNSET}"),
    "a key file that is not there": (
        backend(f"api_key_file: {KEY}"),
        f"{AT_BACKEND}api_key_file (line 5): the file that it names: there is no such file",
    ),
    "a directory for a key file": (
        backend("api_key_file: ."),
        f"{AT_BACKEND}api_key_file (line 5): the file that it names: is no file",
    ),
    "two keys": (
        backend("api_key_env: K\n        api_key_file: f"),
        f"{AT_BACKEND}api_key_file (line 6): cannot go with api_key_env",
    ),
    "no scheme": (url("vllm:8000"), f"{AT_BACKEND}url (line 5): {ADDRESS}"),
    "no text": (url("5"), f"{AT_BACKEND}url (line 5): must be an address or a list of addresses"),
    "no addresses": (url("[]"), f"{AT_BACKEND}url (line 5): must be an address or a list of addresses"),
    "dns+ of nothing": (url("dns+vllm:8000"), f"{AT_BACKEND}url (line 5): {ADDRESS}"),
    "dns+ among others": (
        url("[http://a, dns+http://b]"),
        f"{AT_BACKEND}url[1] (line 5): must not be a dns+ address: such a one stands alone",
    ),
    "an address twice": (url("[http://a, http://a/v1]"), f"{AT_BACKEND}url[1] (line 5): is there twice"),
    "a number among addresses": (url("[5]"), f"{AT_BACKEND}url[0] (line 5): must be text"),
    "credentials in an address": (url(f"http://me:{KEY}@a"), f"{AT_BACKEND}url (line 5): {CREDENTIALS}"),
    "a key for a port": (
        url(f"http://a:{KEY}"),
        f"{AT_BACKEND}url (line 5): must have a port from 1 to 65535, or none",
    ),
}


@pytest.mark.parametrize(("text", "line"), WHOLE.values(), ids=WHOLE)
def test_a_file_that_is_wrong_as_a_whole_is_refused_in_one_line(tmp_path: Path, text: str | bytes, line: str) -> None:
    assert lines_of(tmp_path / "f", text) == (line,)


@pytest.mark.parametrize(("text", "line"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_one_line_that_says_where_and_what_and_no_value(tmp_path: Path, text: str, line: str) -> None:
    lines = lines_of(tmp_path / "f", text)

    assert lines == (line,)
    assert KEY not in line


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    text = (
        "models:\n- name: a b\n  defaults: {top_k: x, n: 1}\n  backends:\n  - {name: c, url: d, weight: e}\nother: 1\n"
    )

    assert [line.partition(" ")[0] for line in lines_of(tmp_path / "f", text)] == [
        "models[0].name",
        "models[0].defaults.top_k",
        "models[0].defaults.n",
        "models[0].backends[0].url",
        "models[0].backends[0].weight",
        "other",
    ]


def test_a_default_is_a_fault_of_each_backend_that_does_not_have_it(tmp_path: Path) -> None:
    backends = [{"name": name, "dialect": name, "url": f"http://{name}"} for name in ("vllm", "openai", "ollama")]
    defaults = {"temperature": 1, "top_k": 20, "min_tokens": 0, "min_p": 0.1}
    lines = lines_of(
        tmp_path / "f", json.dumps({"models": [{"name": "m", "defaults": defaults, "backends": backends}]})
    )

    assert lines == tuple(
        f"models[0].backends[{index}].dialect (line 1): {name} has no {default}, which is among the model's defaults"
        for index, name in ((1, "openai"), (2, "ollama"))
        for default in ("top_k", "min_p")
    )


def test_of_very_many_faults_the_first_are_said(tmp_path: Path) -> None:
    lines = lines_of(tmp_path / "f", json.dumps({"models": [5] * 1000}))

    assert len(lines) == 51
    assert lines[-1] == "CONFIG_FILE: and 950 more faults"


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigFileError, match=r"^CONFIG_FILE: there is no such file$") as caught:
        load(tmp_path / "f", {})

    assert caught.value.digests == {tmp_path / "f": None}


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigFileError, match=r"^CONFIG_FILE: is no file$"):
        load(tmp_path, {})


def test_a_default_model_that_the_file_does_not_have_is_a_fault(tmp_path: Path) -> None:
    lines = lines_of(tmp_path / "f", model(""), default_model="n")

    assert lines == ("DEFAULT_MODEL: is not among the models of CONFIG_FILE",)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("two words", "the key must be printable ASCII without blanks: it goes into an HTTP header"),
        ("\n", "the key is empty"),
    ],
)
def test_a_key_that_cannot_be_one_is_not_quoted(tmp_path: Path, value: str, said: str) -> None:
    (tmp_path / "k").write_text(value)

    lines = lines_of(tmp_path / "f", backend("api_key_file: k"))

    assert lines == (f"{AT_BACKEND}api_key_file (line 5): {said}",)


def test_a_key_that_is_nowhere_was_looked_for_in_the_secret_too(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text(backend("api_key_env: K"))

    with pytest.raises(ConfigFileError) as caught:
        load(path, {}, secrets_dir=tmp_path / "secrets")

    assert caught.value.lines == (
        f"{AT_BACKEND}api_key_env (line 5): {UNSET}, and the file of SECRETS_DIR by that name: there is no such file",
    )
    assert caught.value.digests[tmp_path / "secrets" / "K"] is None
