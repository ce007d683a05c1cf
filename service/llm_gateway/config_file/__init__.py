# SPDX-License-Identifier: Apache-2.0
"""Models and backends from a file: read, checked and with its keys found, or refused with a line for each fault."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pydantic import ValidationError

from llm_gateway.config_file.document import Document, NotReadableError
from llm_gateway.config_file.keys import KeyRing, find_keys
from llm_gateway.config_file.reading import Reader, digests
from llm_gateway.config_file.schema import BackendEntry, ConfigFile, ModelEntry, json_schema
from llm_gateway.config_file.wording import FILE, lines, lines_of
from llm_gateway.upstream.spec import BackendSpec, ModelSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pydantic import SecretStr

    from llm_gateway.upstream.spec import Timeouts

__all__ = ["BackendEntry", "Config", "ConfigFile", "ConfigFileError", "ModelEntry", "digests", "json_schema", "load"]

VERSION_LENGTH = 12


class ConfigFileError(Exception):
    """The file is wrong; `lines` says what, a fault a line. `digests` are as in Config."""

    def __init__(self, found: Iterable[str], seen: Mapping[Path, bytes | None] | None = None) -> None:
        self.lines = tuple(found)
        self.digests = dict(seen or {})
        super().__init__("\n".join(self.lines))


@dataclass(frozen=True, slots=True)
class Config:
    """A file that is right. `version` names its content and that of its keys; `keys` are by model and backend."""

    file: ConfigFile
    version: str
    keys: Mapping[tuple[str, str], SecretStr] = field(default_factory=dict)
    digests: Mapping[Path, bytes | None] = field(default_factory=dict, repr=False)
    """What each file held that it was made of: when one of them holds something else, it is out of date."""

    def key(self, model: str, backend: str) -> SecretStr | None:
        """The key of a model's backend."""
        return self.keys.get((model, backend))

    def specs(self, timeouts: Timeouts) -> tuple[ModelSpec, ...]:
        """The models as the router takes them; `timeouts` are those of backends without timers of their own."""
        return tuple(self._model_spec(model, timeouts) for model in self.file.models)

    def _model_spec(self, model: ModelEntry, timeouts: Timeouts) -> ModelSpec:
        hedge = model.hedge_after_ms
        return ModelSpec(
            name=model.name,
            aliases=model.aliases,
            balancing=model.balancing,
            defaults=model.defaults,
            seats=model.max_in_flight,
            hedge_after=None if hedge is None else hedge / 1000,
            backends=tuple(self._backend_spec(model, entry, timeouts) for entry in model.backends),
        )

    def _backend_spec(self, model: ModelEntry, entry: BackendEntry, timeouts: Timeouts) -> BackendSpec:
        key = self.key(model.name, entry.name)
        own = entry.timeouts.model_dump(exclude_none=True)
        return BackendSpec(
            name=entry.name,
            urls=entry.urls,
            dialect=entry.dialect,
            resolve=entry.resolves,
            model=entry.model or model.name,
            weight=entry.weight,
            tier=entry.priority,
            api_key=None if key is None else key.get_secret_value(),
            timeouts=replace(timeouts, **{name.removesuffix("_ms"): value / 1000 for name, value in own.items()}),
        )


def load(
    path: Path, environ: Mapping[str, str], *, secrets_dir: Path | None = None, default_model: str | None = None
) -> Config:
    """Read and check a file. Keys are looked for in `environ` and then in the files of `secrets_dir`.

    Raises ConfigFileError. `default_model` must be among the models.
    """
    reader = Reader()
    try:
        data = reader.read(path)
        document = Document.of(data.decode("utf-8-sig"))
        file = _checked(document)
    except UnicodeDecodeError:
        raise ConfigFileError([f"{FILE}: is not UTF-8"], reader.digests) from None
    except ConfigFileError as error:
        raise ConfigFileError(error.lines, reader.digests) from None
    except (NotReadableError, ValueError) as error:
        raise ConfigFileError([f"{FILE}: {error}"], reader.digests) from None
    keys, faults = find_keys(file, KeyRing(reader, path.parent, environ, secrets_dir))
    found = lines(faults, document)
    if default_model is not None and not any(default_model in (m.name, *m.aliases) for m in file.models):
        found += (f"DEFAULT_MODEL: is not among the models of {FILE}",)
    if found:
        raise ConfigFileError(found, reader.digests)
    return Config(file, _version(data, keys), keys, reader.digests)


def _checked(document: Document) -> ConfigFile:
    if document.data is None:
        raise ValueError("is empty")
    if not isinstance(document.data, dict):
        raise ValueError("must be a mapping that has models")  # noqa: TRY004 - a fault of the file's, not of ours
    try:
        return ConfigFile.model_validate(document.data)
    except ValidationError as error:
        raise ConfigFileError(lines_of(error, document)) from None


def _version(data: bytes, keys: Mapping[tuple[str, str], SecretStr]) -> str:
    """A short name of this content.

    It is logged and shown, so that no key may be guessed from it: keys go into it by a hash that is slow on purpose,
    and most of the result is cut away.
    """
    digest = hashlib.sha256(data)
    if keys:
        values = "\0".join(key.get_secret_value() for key in keys.values()).encode()
        digest.update(hashlib.scrypt(values, salt=b"llm-gateway", n=2**12, r=8, p=1))
    return digest.hexdigest()[:VERSION_LENGTH]
