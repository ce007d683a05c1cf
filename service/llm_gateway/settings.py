# SPDX-License-Identifier: Apache-2.0
"""Settings: from the environment, a `.env` file and a mounted Secret's directory, checked before anything starts."""

from __future__ import annotations

import difflib
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import httpx
from dotenv import dotenv_values
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableError

if TYPE_CHECKING:
    from collections.abc import Iterable

DELIMITER = "__"
SECRETS_DIR = "SECRETS_DIR"
DEFAULT_SECRETS_DIR = "/run/secrets/llm-gateway"
SIMILAR = 0.75
MAX_INT32 = 2**31 - 1
NO_BLANKS = re.compile(r"[!-~]*\Z")


class SettingsError(Exception):
    """The settings are wrong; `lines` says what, a field a line."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("\n".join(self.lines))


def _backend_url(url: str) -> str:
    url = url.strip()
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or not NO_BLANKS.match(url):
        raise ValueError("must be an http:// or https:// address")
    if parts.port == 0:  # reading it refuses what is no port at all
        raise ValueError("must not have port 0")
    if not _has_host(url, parts.hostname):
        raise ValueError("must have a host that is a name or an IP address")
    if parts.username or parts.password:
        raise ValueError("must not have credentials in it; use VLLM_API_KEY")
    if parts.query or parts.fragment:
        raise ValueError("must not have a query or a fragment")
    return url.rstrip("/").removesuffix("/v1")


def _has_host(url: str, host: str) -> bool:
    """Whether those who connect would look for its host at all: the HTTP client, and then the resolver."""
    try:
        httpx.URL(url)
        host.encode("idna")
    except (httpx.InvalidURL, UnicodeError):
        return False
    return True


def _api_key(key: SecretStr) -> SecretStr:
    """A key without the line end that files and shells leave on it."""
    stripped = key.get_secret_value().strip()
    if not NO_BLANKS.match(stripped):
        raise ValueError("must be printable ASCII without blanks: it goes into an HTTP header")
    return SecretStr(stripped)


def _names(value: object) -> object:
    """Names with commas between, as `check` prints them, or a JSON list."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [name.strip() for name in value.split(",") if name.strip()]


Milliseconds = Annotated[int, Field(gt=0, le=86_400_000)]
Delay = Annotated[int, Field(ge=0, le=86_400_000)]
Bytes = Annotated[int, Field(gt=0, le=MAX_INT32 // 2)]  # gRPC's own limit is twice ours, and an int32
BackendUrl = Annotated[str, AfterValidator(_backend_url)]
ApiKey = Annotated[SecretStr, AfterValidator(_api_key)]


class Group(BaseModel):
    """A group of settings; a name in it that is not known is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerSettings(Group):
    """How the gRPC server listens and drains."""

    host: str = Field("0.0.0.0", description="Address to listen on.")  # noqa: S104 - a pod's is not known in advance
    reflection: bool = Field(True, description="Whether grpcurl may ask for the services.")
    max_message_bytes: Bytes = Field(32 * 1024 * 1024, description="The largest request.")
    max_metadata_bytes: Bytes = Field(16 * 1024, description="The largest metadata of a call.")
    max_concurrent_streams: int = Field(2048, gt=0, le=MAX_INT32, description="Calls on one connection.")
    keepalive_time_ms: Milliseconds = Field(30_000, description="Ping a silent caller after this long.")
    keepalive_timeout_ms: Milliseconds = Field(10_000, description="A caller that does not answer a ping is gone.")
    min_ping_interval_ms: Milliseconds = Field(10_000, description="How often a caller may ping.")
    max_connection_age_ms: Milliseconds | None = Field(
        None, description="Ask callers to connect anew after this long; running streams go on. Unset: never."
    )
    drain_delay_ms: Delay = Field(2_000, description="After SIGTERM, admit new calls for this long.")
    drain_grace_ms: Delay = Field(600_000, description="Then wait this long for running calls.")


class AdmissionSettings(Group):
    """How many calls run at once."""

    max_in_flight: int = Field(1024, gt=0, description="Calls that run at once; one more is QUEUE_FULL.")


class TimeoutSettings(Group):
    """The timers of an attempt."""

    connect_ms: Milliseconds = Field(2_000, description="Until a backend accepts the connection.")
    first_token_ms: Milliseconds = Field(60_000, description="Until it gives something to deliver.")
    idle_ms: Milliseconds = Field(30_000, description="Until it gives the next piece.")
    usage_ms: Milliseconds = Field(2_000, description="Until it gives the usage, once the answer is whole.")


class RetrySettings(Group):
    """How often a backend is tried before the first token."""

    max_attempts: int = Field(3, ge=1, le=10, description="Attempts in all.")
    backoff_ms: Delay = Field(50, description="The first pause is up to this long; each next one up to twice as long.")
    max_backoff_ms: Delay = Field(1_000, description="No pause is longer.")


class BackendSettings(Group):
    """What a backend may send and be sent."""

    max_event_bytes: Bytes = Field(4 * 1024 * 1024, description="The largest event of a stream.")
    extensions: Annotated[frozenset[str], NoDecode, BeforeValidator(_names)] = Field(
        frozenset({
            "add_generation_prompt", "add_special_tokens", "chat_template_kwargs", "continue_final_message",
            "documents", "echo", "mm_processor_kwargs", "vllm_xargs",
        }),
        description="Fields that a request's backend_extensions may have.",
    )  # fmt: skip


class HealthSettings(Group):
    """How the backend is watched."""

    probe_interval_ms: Milliseconds = Field(2_000, description="Ask the backend this often whether it answers.")


class Settings(BaseSettings):
    """Everything that can be set. The field's name in capitals is the variable; a group's is GROUP__FIELD."""

    model_config = SettingsConfigDict(
        env_nested_delimiter=DELIMITER,
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # a wrong key is still a key
    )

    port: int = Field(50052, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    log_level: Annotated[str, Field(pattern="(?i)^(debug|info|warning|error|critical)$")] = Field(
        "info", description="debug, info, warning, error or critical."
    )
    log_format: Annotated[str, Field(pattern="^(auto|json|text)$")] = Field(
        "auto", description="json, text, or auto: text on a terminal."
    )
    vllm_url: BackendUrl = Field("http://localhost:8000", description="The vLLM server.")
    vllm_api_key: ApiKey | None = Field(None, description="The key that vLLM wants (its --api-key).")
    timeout_ms: Milliseconds = Field(600_000, description="The longest that a call may take.")
    default_model: str | None = Field(None, description="The model of requests that name none.")
    server: ServerSettings = ServerSettings()
    admission: AdmissionSettings = AdmissionSettings()
    timeouts: TimeoutSettings = TimeoutSettings()
    retry: RetrySettings = RetrySettings()
    backend: BackendSettings = BackendSettings()
    health: HealthSettings = HealthSettings()


def load_settings() -> Settings:
    """Read the settings. Raises SettingsError."""
    unread = list(_unread_variables())
    secrets_dir = os.environ.get(SECRETS_DIR)
    if secrets_dir is not None and not Path(secrets_dir).is_dir():
        unread.append(f"{SECRETS_DIR}: there is no such directory")
        secrets_dir = None
    elif secrets_dir is None and Path(DEFAULT_SECRETS_DIR).is_dir():
        secrets_dir = DEFAULT_SECRETS_DIR
    try:
        settings = Settings(_secrets_dir=secrets_dir)
    except UnreadableError as error:
        raise SettingsError(unread or [str(error)]) from error
    except ValidationError as error:
        raise SettingsError([*unread, *(_line(found) for found in error.errors(include_url=False))]) from error
    if unread:
        raise SettingsError(unread)
    return settings


def variables() -> Iterable[tuple[str, str, str]]:
    """Every variable with its default and its meaning, for the documentation and for `check`."""
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Group):
            for inner, inner_field in field.annotation.model_fields.items():
                yield f"{name}{DELIMITER}{inner}".upper(), _shown(inner_field.default), inner_field.description or ""
        else:
            yield name.upper(), _shown(field.default), field.description or ""


def effective(settings: Settings) -> Iterable[tuple[str, str]]:
    """Every variable with its value in force, secrets masked."""
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if isinstance(value, Group):
            for inner in type(value).model_fields:
                yield f"{name}{DELIMITER}{inner}".upper(), _shown(getattr(value, inner))
        else:
            yield name.upper(), _shown(value)


def _shown(value: Any) -> str:  # noqa: ANN401 - whatever a setting holds
    if value is None:
        return ""
    if isinstance(value, frozenset):
        return ",".join(sorted(value))
    return str(value)


def _line(error: Any) -> str:  # noqa: ANN401 - pydantic's error dict
    name = DELIMITER.join(str(part) for part in error["loc"]).upper()
    if error["type"] == "extra_forbidden":
        return f"{name}: there is no such setting"
    return f"{name}: {error['msg'].removeprefix('Value error, ')}"


def _unread_variables() -> Iterable[str]:
    """Variables that look like ours and are read by nobody: a group's name alone or with a typo, or one underscore."""
    groups = {
        name.upper(): {inner.upper() for inner in field.annotation.model_fields}
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Group)
    }
    names = [(group, field) for group, own in groups.items() for field in own]
    one_underscore = {f"{group}_{field}": f"{group}{DELIMITER}{field}" for group, field in names}
    given = dotenv_values(".env") | os.environ
    for variable in sorted(given):
        group, delimiter, field = variable.upper().partition(DELIMITER)
        if variable.upper() in groups and given[variable]:
            yield f"{variable}: is a group of settings; {group}{DELIMITER}{min(groups[group])} is one of its fields"
        elif variable.upper() in one_underscore:
            yield f"{variable}: there is no such setting; {one_underscore[variable.upper()]} is one"
        elif delimiter and group and group not in groups:
            close = difflib.get_close_matches(group, groups, n=1, cutoff=SIMILAR)
            owners = [name for name, own in groups.items() if field in own]
            if close or owners:
                yield f"{variable}: there is no such group of settings; {(close or owners)[0]} is one"
