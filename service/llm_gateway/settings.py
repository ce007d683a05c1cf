# SPDX-License-Identifier: Apache-2.0
"""Settings: from the environment, a `.env` file and a mounted Secret's directory, checked before anything starts."""

from __future__ import annotations

import difflib
import json
import os
import re
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableError

from llm_gateway.backends.access import backend_url, header_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DELIMITER = "__"
DOTENV = ".env"
SECRETS_DIR = "SECRETS_DIR"
DEFAULT_SECRETS_DIR = "/run/secrets/llm-gateway"
SIMILAR = 0.75
MAX_INT32 = 2**31 - 1
SERVICE_LINK = re.compile(r"(?:tcp|udp|sctp)://")
"""How the value begins that Kubernetes gives to METRICS_PORT where there is a Service with the name `metrics`."""


class SettingsError(Exception):
    """The settings are wrong; `lines` says what, a field a line."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("\n".join(self.lines))


def _vllm_url(url: str) -> str:
    return backend_url(url, key_setting="VLLM_API_KEY")


def _api_key(key: SecretStr) -> SecretStr:
    return SecretStr(header_key(key.get_secret_value()))


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
Port = Annotated[int, Field(ge=0, le=65535)]
BackendUrl = Annotated[str, AfterValidator(_vllm_url)]
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
    max_stall_ms: Milliseconds = Field(
        60_000, description="A caller that takes nothing for so long, while there is something, is SLOW_CALLER."
    )


class AdmissionSettings(Group):
    """How many calls run and wait at once."""

    max_in_flight: int = Field(1024, gt=0, description="Calls that run at once; others wait.")
    max_queued: int = Field(256, ge=0, description="Calls that wait; one more is QUEUE_FULL.")
    max_queued_bytes: Bytes = Field(64 * 1024 * 1024, description="Bytes of their requests; more is QUEUE_FULL.")
    max_wait_ms: Milliseconds = Field(10_000, description="Who has waited so long is QUEUE_TIMEOUT.")
    memory_percent: int = Field(
        90, ge=0, le=100, description="Admit nobody while more of the container's memory is in use. 0: never look."
    )
    max_loop_lag_ms: Milliseconds = Field(
        1_000, description="Admit nobody while the process is so far behind with its own work."
    )


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
    budget_percent: int = Field(20, ge=0, le=100, description="Further attempts for each 100 requests.")
    budget_floor: int = Field(
        50, ge=0, description="Further attempts in 10 s that are allowed however few the requests."
    )


class EjectionSettings(Group):
    """When a backend that fails is left alone, and for how long."""

    local_failures: int = Field(3, ge=1, description="Eject a backend that could not be reached so often in a row.")
    answer_failures: int = Field(
        5,
        ge=1,
        description="Eject one that failed so often in a row, in whatever way; the last one only if it is not there.",
    )
    base_ms: Milliseconds = Field(
        2_000,
        description="The first time, for this long; each next time, so much longer. One that probes found dead "
        "stays out until a probe finds it well.",
    )
    longest_ms: Milliseconds = Field(10_000, description="Never for longer.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.base_ms > self.longest_ms:
            raise ValueError("BASE_MS must not be more than LONGEST_MS")
        return self


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
    """How the backends are watched."""

    probe_interval_ms: Milliseconds = Field(2_000, description="Ask each backend this often whether it answers.")
    probe_timeout_ms: Milliseconds = Field(2_000, description="Who has not answered by then does not answer.")
    load_interval_ms: Delay = Field(
        1_000, description="Read this often from the /metrics of vLLM, SGLang or llama.cpp how busy it is. 0: never."
    )
    resolve_interval_ms: Milliseconds = Field(
        5_000, description="Look up this often which addresses are behind the name of a dns+ backend."
    )


class AdminSettings(Group):
    """AdminService, which shows the gateway to its operator and ends calls."""

    enabled: bool = Field(False, description="Whether AdminService is served.")
    host: str = Field("127.0.0.1", description="Address that it listens on; whoever reaches it may end calls.")
    port: Port = Field(50053, description="Port that it listens on; 0 takes a free one.")


class MetricsSettings(Group):
    """Metrics for Prometheus."""

    enabled: bool = Field(False, description="Whether /metrics is served.")
    host: str = Field("0.0.0.0", description="Address that it listens on.")  # noqa: S104 - a pod's is not known in advance
    port: Port = Field(9090, description="Port that it listens on; 0 takes a free one.")


class Settings(BaseSettings):
    """Everything that can be set. The field's name in capitals is the variable; a group's is GROUP__FIELD."""

    model_config = SettingsConfigDict(
        env_nested_delimiter=DELIMITER,
        env_file=DOTENV,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # a wrong key is still a key
    )

    port: Port = Field(50052, description="Port to listen on; 0 takes a free one.")
    log_level: Annotated[str, Field(pattern="(?i)^(debug|info|warning|error|critical)$")] = Field(
        "info", description="debug, info, warning, error or critical."
    )
    log_format: Annotated[str, Field(pattern="^(auto|json|text)$")] = Field(
        "auto", description="json, text, or auto: text on a terminal."
    )
    vllm_url: BackendUrl = Field("http://localhost:8000", description="The vLLM server, where there is no CONFIG_FILE.")
    vllm_api_key: ApiKey | None = Field(None, description="The key that vLLM wants (its --api-key).")
    openai_api_key: ApiKey | None = Field(None, description="A key for backends whose api_key_env names it.")
    config_file: Path | None = Field(None, description="A file with models and their backends, instead of VLLM_URL.")
    config_poll_interval_ms: Milliseconds = Field(1_000, description="Look this often whether that file has changed.")
    timeout_ms: Milliseconds = Field(600_000, description="The longest that a call may take.")
    default_model: str | None = Field(None, description="The model of requests that name none.")
    server: ServerSettings = ServerSettings()
    admission: AdmissionSettings = AdmissionSettings()
    timeouts: TimeoutSettings = TimeoutSettings()
    retry: RetrySettings = RetrySettings()
    ejection: EjectionSettings = EjectionSettings()
    backend: BackendSettings = BackendSettings()
    health: HealthSettings = HealthSettings()
    admin: AdminSettings = AdminSettings()
    metrics: MetricsSettings = MetricsSettings()

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        ports = {"PORT": self.port}
        for name, group in (("ADMIN__PORT", self.admin), ("METRICS__PORT", self.metrics)):
            if group.enabled:
                ports[name] = group.port
        for one, other in combinations(ports, 2):
            if ports[one] == ports[other] != 0:
                raise ValueError(f"{other}: is {ports[other]}, as {one} is; each needs a port of its own")
        return self


def load_settings() -> Settings:
    """Read the settings. Raises SettingsError."""
    unread = list(_unread_variables())
    secrets_dir = secrets_directory()
    if secrets_dir is not None and not secrets_dir.is_dir():
        unread.append(f"{SECRETS_DIR}: there is no such directory")
        secrets_dir = None
    try:
        settings = Settings(_secrets_dir=secrets_dir)
    except UnreadableError as error:
        raise SettingsError(unread or [str(error)]) from error
    except ValidationError as error:
        raise SettingsError([*unread, *(_line(found) for found in error.errors(include_url=False))]) from error
    if unread:
        raise SettingsError(unread)
    return settings


def given_variables() -> dict[str, str]:
    """Every variable that is not empty, of whatever name: of the environment, and else of `.env`."""
    given = {**dotenv_values(DOTENV), **_not_empty(os.environ)}
    return _not_empty(given)


def secrets_directory() -> Path | None:
    """The directory that a Secret is mounted at, where one is named or mounted at the usual place."""
    named = os.environ.get(SECRETS_DIR)
    if named:
        return Path(named)
    usual = Path(DEFAULT_SECRETS_DIR)
    return usual if usual.is_dir() else None


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


def notes(settings: Settings) -> Iterable[str]:
    """What is set and has no effect."""
    if settings.config_file is not None and "vllm_url" in settings.model_fields_set:
        yield "VLLM_URL: is not used, for CONFIG_FILE names the backends"


def _not_empty(given: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in given.items() if value}


def _shown(value: Any) -> str:  # noqa: ANN401 - whatever a setting holds
    if value is None:
        return ""
    if isinstance(value, frozenset):
        return ",".join(sorted(value))
    return str(value)


def _line(error: Any) -> str:  # noqa: ANN401 - pydantic's error dict
    name = DELIMITER.join(str(part) for part in error["loc"]).upper()
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"{name}: there is no such setting"
    return f"{name}: {message}" if name else message  # one about several settings names them itself


def _unread_variables() -> Iterable[str]:
    """Variables that look like ours and are read by nobody: a group's name alone or with a typo, or one underscore."""
    groups = {
        name.upper(): {inner.upper() for inner in field.annotation.model_fields}
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Group)
    }
    names = [(group, field) for group, own in groups.items() for field in own]
    one_underscore = {f"{group}_{field}": f"{group}{DELIMITER}{field}" for group, field in names}
    given = dotenv_values(DOTENV) | os.environ
    for variable in sorted(given):
        group, delimiter, field = variable.upper().partition(DELIMITER)
        if variable.upper() in groups and given[variable]:
            yield f"{variable}: is a group of settings; {group}{DELIMITER}{min(groups[group])} is one of its fields"
        elif variable.upper() in one_underscore and not SERVICE_LINK.match(given[variable] or ""):
            yield f"{variable}: there is no such setting; {one_underscore[variable.upper()]} is one"
        elif delimiter and group and group not in groups:
            close = difflib.get_close_matches(group, groups, n=1, cutoff=SIMILAR)
            owners = [name for name, own in groups.items() if field in own]
            if close or owners:
                yield f"{variable}: there is no such group of settings; {(close or owners)[0]} is one"
