# SPDX-License-Identifier: Apache-2.0
"""Finds the keys that a file only names, so that it can be shown to anybody."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import SecretStr

from llm_gateway.backends.access import header_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from llm_gateway.config_file.reading import Reader
    from llm_gateway.config_file.schema import BackendEntry, ConfigFile, ModelEntry, Place


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Where keys are looked for."""

    reader: Reader
    directory: Path
    environ: Mapping[str, str]
    secrets_dir: Path | None

    def find(self, entry: BackendEntry) -> SecretStr | None:
        """A backend's key, None where it needs none. Raises ValueError, which does not say what was found."""
        if entry.api_key_file is not None:
            found = self._read(self.directory / entry.api_key_file, "the file that it names")
        elif entry.api_key_env is not None:
            found = self.environ.get(entry.api_key_env) or self._secret(entry.api_key_env)
        else:
            return None
        try:
            key = header_key(found)
        except ValueError as error:
            raise ValueError(f"the key {error}") from None
        if not key:
            raise ValueError("the key is empty")
        return SecretStr(key)

    def _secret(self, name: str) -> str:
        """A key of a mounted Secret, whose file has the variable's name in whatever case."""
        nowhere = "the variable that it names is not set"
        if self.secrets_dir is None:
            raise ValueError(nowhere)
        path = self.secrets_dir / name
        with contextlib.suppress(OSError):  # no directory, no file: the reader says so, and looks again later
            path = next((file for file in self.secrets_dir.iterdir() if file.name.lower() == name.lower()), path)
        return self._read(path, f"{nowhere}, and the file of SECRETS_DIR by that name")

    def _read(self, path: Path, what: str) -> str:
        try:
            return self.reader.read(path).decode("ascii")
        except UnicodeDecodeError:
            raise ValueError(f"{what}: is not ASCII") from None
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from None


def find_keys(file: ConfigFile, ring: KeyRing) -> tuple[dict[tuple[str, str], SecretStr], list[tuple[Place, str]]]:
    """The keys by model and backend, and those that cannot be found."""
    keys: dict[tuple[str, str], SecretStr] = {}
    faults: list[tuple[Place, str]] = []
    for place, model, entry in _backends(file):
        try:
            key = ring.find(entry)
        except ValueError as error:
            field_name = "api_key_env" if entry.api_key_file is None else "api_key_file"
            faults.append(((*place, field_name), str(error)))
        else:
            if key is not None:
                keys[model.name, entry.name] = key
    return keys, faults


def _backends(file: ConfigFile) -> Iterator[tuple[Place, ModelEntry, BackendEntry]]:
    for at, model in enumerate(file.models):
        for index, entry in enumerate(model.backends):
            yield ("models", at, "backends", index), model, entry
