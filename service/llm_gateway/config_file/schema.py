# SPDX-License-Identifier: Apache-2.0
"""What a configuration file may say: its documentation, its JSON schema and its rules in one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from llm_gateway.backends.access import backend_url
from llm_gateway.backends.dialect import DIALECTS
from llm_gateway.backends.refusal import refusal_of
from llm_gateway.codec.defaults import decode_defaults, defaults_schema
from llm_gateway.errors import InvalidRequest
from llm_gateway.generation import Generation
from llm_gateway.upstream.spec import Balancing

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

FAULTS = "faults"
"""The type of an error that stands for several: its context has a list of (path, text) by this name."""
DNS = "dns+"
MODEL_NAME = re.compile(r"[!-~]{1,256}")
BACKEND_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
KEY_SETTING = "api_key_env or api_key_file"

Place = tuple[str | int, ...]


def faults(found: Iterable[tuple[Place, str]]) -> PydanticCustomError:
    """One error for all that is wrong; paths are relative to what is being read."""
    return PydanticCustomError(FAULTS, "is wrong", {FAULTS: list(found)})


def _named(pattern: re.Pattern[str], words: str) -> AfterValidator:
    """Text that a pattern matches; `words` say it to a person."""

    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(f"must be {words}")
        return value

    return AfterValidator(check)


def _in_schema(**keywords: Any) -> Any:  # noqa: ANN401 - what pydantic gives
    """What the JSON schema says of a rule that is ours."""
    return Field(json_schema_extra=keywords)


def _addresses(value: object) -> tuple[str, ...]:
    """One address or several as a tuple; a dns+ address stands alone, since it is several already."""
    if isinstance(value, str):
        scheme, address = (DNS, value.strip().removeprefix(DNS)) if value.strip().startswith(DNS) else ("", value)
        return (scheme + backend_url(address, key_setting=KEY_SETTING),)
    if not isinstance(value, Sequence) or not value:
        raise ValueError("must be an address or a list of addresses")
    wrong, read = [], []
    for index, item in enumerate(value):
        try:
            read.append(_one_of_several(item))
        except ValueError as error:
            wrong.append(((index,), str(error)))
    wrong += [((index,), "is there twice") for index in _repeated(read)] if not wrong else []
    if wrong:
        raise faults(wrong)
    return tuple(read)


def _one_of_several(item: object) -> str:
    if not isinstance(item, str):
        raise ValueError("must be text")  # noqa: TRY004 - pydantic wants it so
    if item.strip().startswith(DNS):
        raise ValueError("must not be a dns+ address: such a one stands alone")
    return backend_url(item, key_setting=KEY_SETTING)


def _dialect(value: str) -> str:
    if value not in DIALECTS:
        raise ValueError(f"must be one of {', '.join(DIALECTS)}")
    return value


def _defaults(values: dict[str, Any]) -> dict[str, Any]:
    try:
        return decode_defaults(values)
    except InvalidRequest as error:
        raise faults(((*v.field.split("."),), v.description) for v in error.violations) from None


def _missing(defaults: dict[str, Any], dialect: str) -> Iterator[str]:
    """The defaults that a dialect does not have."""
    refusal = refusal_of(Generation(sampling=defaults), DIALECTS[dialect])
    for violation in refusal.violations if refusal is not None else ():
        yield violation.field.removeprefix("params.")


def _repeated(items: Sequence[Hashable]) -> Iterator[int]:
    """The places of items that have been there before."""
    counts: Counter[Hashable] = Counter()
    for index, item in enumerate(items):
        counts[item] += 1
        if counts[item] > 1:
            yield index


Milliseconds = Annotated[int, Field(strict=True, gt=0, le=86_400_000)]
ModelName = Annotated[
    str,
    _named(MODEL_NAME, "1 to 256 printable ASCII characters without blanks"),
    _in_schema(pattern=f"^{MODEL_NAME.pattern}$"),
]
BackendName = Annotated[
    str,
    _named(BACKEND_NAME, '1 to 64 letters, digits, ".", "_" or "-", the first a letter or a digit'),
    _in_schema(pattern=f"^{BACKEND_NAME.pattern}$"),
]
Variable = Annotated[
    str,
    _named(VARIABLE, "the name of a variable, and not the key itself"),
    _in_schema(pattern=f"^{VARIABLE.pattern}$"),
]
Text = Annotated[str, Field(min_length=1)]
ADDRESS_SCHEMA = {"type": "string", "pattern": "^(dns\\+)?https?://"}
Addresses = Annotated[
    tuple[str, ...],
    PlainValidator(_addresses),
    WithJsonSchema({"anyOf": [ADDRESS_SCHEMA, {"type": "array", "items": ADDRESS_SCHEMA, "minItems": 1}]}),
]
Defaults = Annotated[dict[str, Any], AfterValidator(_defaults), WithJsonSchema(defaults_schema())]


class Entry(BaseModel):
    """A part of the file; a name in it that is not known is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)


class BackendTimeouts(Entry):
    """The timers of an attempt at one backend; those that are left out are the settings' (TIMEOUTS__…)."""

    connect_ms: Milliseconds | None = None
    """Until it accepts the connection."""
    first_token_ms: Milliseconds | None = None
    """Until it gives something to deliver."""
    idle_ms: Milliseconds | None = None
    """Until it gives the next piece."""


class BackendEntry(Entry):
    """One or more replicas that serve a model in the same way."""

    name: BackendName
    """Names it in answers, logs and metrics; unique within its model."""
    dialect: Annotated[str, AfterValidator(_dialect), _in_schema(enum=list(DIALECTS))] = "vllm"
    """What it is: this decides which parameters it may be sent, and how its answers are read."""
    url: Addresses
    """Where it is: http://vllm:8000 or a list of such addresses, each a replica, or dns+http://vllm:8000, where every
    address behind the name is a replica, as with a headless Service of Kubernetes; of IPv4 and IPv6 only one counts."""
    model: Text | None = None
    """Its own name for the model. Left out: the model's name."""
    weight: Annotated[int, Field(strict=True, ge=0, le=1000)] = 1
    """How much of the work each replica gets, beside others of its priority. 0: no new calls; running ones go on."""
    priority: Annotated[int, Field(strict=True, ge=0, le=100)] = 0
    """A higher number is a fallback: it is used while no backend with a lower one can serve."""
    api_key_env: Variable | None = None
    """The variable that holds its key: of the environment, of .env, or a file of SECRETS_DIR."""
    api_key_file: Text | None = None
    """The file that holds its key; a relative path begins at the directory of this file."""
    timeouts: BackendTimeouts = BackendTimeouts()
    """Timers of its own."""

    @property
    def resolves(self) -> bool:
        """Whether the host of its one address is a name, behind which every address is a replica."""
        return self.url[0].startswith(DNS)

    @property
    def urls(self) -> tuple[str, ...]:
        """Its addresses as they are connected to."""
        return tuple(url.removeprefix(DNS) for url in self.url)

    @model_validator(mode="after")
    def _has_one_key(self) -> Self:
        if self.api_key_env is not None and self.api_key_file is not None:
            raise faults([(("api_key_file",), "cannot go with api_key_env")])
        return self


class ModelEntry(Entry):
    """A model that callers may ask for, and the backends that serve it."""

    name: ModelName
    """What callers ask for; unique among the names and aliases of all models."""
    aliases: tuple[ModelName, ...] = ()
    """Its other names."""
    balancing: Balancing = Balancing.LEAST_LOAD
    """How a replica is chosen: the one with less to do; always the same for a session_id; always the same for the
    beginning of a prompt, whose prefix is cached there. The last two give way where a replica has too much to do."""
    defaults: Defaults = {}
    """Sampling parameters where a request is silent; every backend's dialect must have them."""
    max_in_flight: Annotated[int, Field(strict=True, gt=0, le=1_000_000)] | None = None
    """Calls that run at once; others wait. Left out: only ADMISSION__MAX_IN_FLIGHT bounds them."""
    hedge_after_ms: Milliseconds | None = None
    """Ask a second replica where the first has given nothing for so long; whoever is first answers. It costs some work
    twice. Left out: never."""
    backends: Annotated[tuple[BackendEntry, ...], _in_schema(minItems=1)]
    """Who serves it."""

    @field_validator("backends")
    @classmethod
    def _backends_differ_and_one_works(cls, backends: tuple[BackendEntry, ...]) -> tuple[BackendEntry, ...]:
        found: list[tuple[Place, str]] = [
            ((index, "name"), "is the name of another backend of this model")
            for index in _repeated([backend.name for backend in backends])
        ]
        if not any(backend.weight for backend in backends):
            found.append(((), "needs at least one, and one with a weight above 0"))
        if found:
            raise faults(found)
        return backends

    @model_validator(mode="after")
    def _backends_honour_the_defaults(self) -> Self:
        """Or what the caller never said would keep calls from a backend, or be refused as a fault of theirs."""
        found: list[tuple[Place, str]] = [
            (("backends", index, "dialect"), f"{backend.dialect} has no {name}, which is among the model's defaults")
            for index, backend in enumerate(self.backends)
            for name in _missing(self.defaults, backend.dialect)
        ]
        if found:
            raise faults(found)
        return self


class ConfigFile(Entry):
    """Models and the backends that serve them."""

    models: Annotated[tuple[ModelEntry, ...], _in_schema(minItems=1)]
    """What callers may ask for."""

    @field_validator("models")
    @classmethod
    def _names_differ(cls, models: tuple[ModelEntry, ...]) -> tuple[ModelEntry, ...]:
        if not models:
            raise ValueError("needs at least one")
        places: list[Place] = []
        names: list[str] = []
        for index, model in enumerate(models):
            places += [(index, "name"), *((index, "aliases", place) for place in range(len(model.aliases)))]
            names += [model.name, *model.aliases]
        if repeated := [(places[at], "is there twice among the names and aliases") for at in _repeated(names)]:
            raise faults(repeated)
        return models


def json_schema() -> dict[str, Any]:
    """The JSON schema of the file, for editors and for CI."""
    schema: dict[str, Any] = _unwrapped(ConfigFile.model_json_schema())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema


def _unwrapped(schema: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    """The same with each description in one line."""
    if isinstance(schema, dict):
        return {
            key: " ".join(value.split()) if key == "description" and isinstance(value, str) else _unwrapped(value)
            for key, value in schema.items()
        }
    return [_unwrapped(item) for item in schema] if isinstance(schema, list) else schema
