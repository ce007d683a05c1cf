import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from llm_gateway.v1 import generation_pb2 as _generation_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: GatewayStatus
    def __init__(self, status: _Optional[_Union[GatewayStatus, _Mapping]] = ...) -> None: ...

class WatchStatusRequest(_message.Message):
    __slots__ = ("interval",)
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    interval: _duration_pb2.Duration
    def __init__(self, interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class WatchStatusResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: GatewayStatus
    def __init__(self, status: _Optional[_Union[GatewayStatus, _Mapping]] = ...) -> None: ...

class CancelStreamRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class CancelStreamResponse(_message.Message):
    __slots__ = ("call", "ended")
    CALL_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    call: RunningCall
    ended: int
    def __init__(self, call: _Optional[_Union[RunningCall, _Mapping]] = ..., ended: _Optional[int] = ...) -> None: ...

class GatewayStatus(_message.Message):
    __slots__ = ("version", "phase", "uptime", "config_version", "seats", "models", "calls", "config_file_rejected")
    class Phase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PHASE_UNSPECIFIED: _ClassVar[GatewayStatus.Phase]
        PHASE_STARTING: _ClassVar[GatewayStatus.Phase]
        PHASE_SERVING: _ClassVar[GatewayStatus.Phase]
        PHASE_DRAINING: _ClassVar[GatewayStatus.Phase]
    PHASE_UNSPECIFIED: GatewayStatus.Phase
    PHASE_STARTING: GatewayStatus.Phase
    PHASE_SERVING: GatewayStatus.Phase
    PHASE_DRAINING: GatewayStatus.Phase
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    UPTIME_FIELD_NUMBER: _ClassVar[int]
    CONFIG_VERSION_FIELD_NUMBER: _ClassVar[int]
    SEATS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FILE_REJECTED_FIELD_NUMBER: _ClassVar[int]
    version: str
    phase: GatewayStatus.Phase
    uptime: _duration_pb2.Duration
    config_version: str
    seats: Seats
    models: _containers.RepeatedCompositeFieldContainer[ModelStatus]
    calls: _containers.RepeatedCompositeFieldContainer[RunningCall]
    config_file_rejected: bool
    def __init__(self, version: _Optional[str] = ..., phase: _Optional[_Union[GatewayStatus.Phase, str]] = ..., uptime: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., config_version: _Optional[str] = ..., seats: _Optional[_Union[Seats, _Mapping]] = ..., models: _Optional[_Iterable[_Union[ModelStatus, _Mapping]]] = ..., calls: _Optional[_Iterable[_Union[RunningCall, _Mapping]]] = ..., config_file_rejected: _Optional[bool] = ...) -> None: ...

class Seats(_message.Message):
    __slots__ = ("limit", "in_flight", "queued", "queued_bytes")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    QUEUED_BYTES_FIELD_NUMBER: _ClassVar[int]
    limit: int
    in_flight: int
    queued: int
    queued_bytes: int
    def __init__(self, limit: _Optional[int] = ..., in_flight: _Optional[int] = ..., queued: _Optional[int] = ..., queued_bytes: _Optional[int] = ...) -> None: ...

class ModelStatus(_message.Message):
    __slots__ = ("name", "aliases", "seats", "backends")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    SEATS_FIELD_NUMBER: _ClassVar[int]
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    aliases: _containers.RepeatedScalarFieldContainer[str]
    seats: Seats
    backends: _containers.RepeatedCompositeFieldContainer[BackendStatus]
    def __init__(self, name: _Optional[str] = ..., aliases: _Optional[_Iterable[str]] = ..., seats: _Optional[_Union[Seats, _Mapping]] = ..., backends: _Optional[_Iterable[_Union[BackendStatus, _Mapping]]] = ...) -> None: ...

class BackendStatus(_message.Message):
    __slots__ = ("name", "address", "dialect", "tier", "weight", "health", "in_flight", "consecutive_failures", "ejected_for", "reported_running", "reported_waiting", "reported_kv_usage", "ejections")
    class Health(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        HEALTH_UNSPECIFIED: _ClassVar[BackendStatus.Health]
        HEALTH_HEALTHY: _ClassVar[BackendStatus.Health]
        HEALTH_EJECTED: _ClassVar[BackendStatus.Health]
        HEALTH_PROBATION: _ClassVar[BackendStatus.Health]
        HEALTH_LOADING: _ClassVar[BackendStatus.Health]
    HEALTH_UNSPECIFIED: BackendStatus.Health
    HEALTH_HEALTHY: BackendStatus.Health
    HEALTH_EJECTED: BackendStatus.Health
    HEALTH_PROBATION: BackendStatus.Health
    HEALTH_LOADING: BackendStatus.Health
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DIALECT_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    CONSECUTIVE_FAILURES_FIELD_NUMBER: _ClassVar[int]
    EJECTED_FOR_FIELD_NUMBER: _ClassVar[int]
    REPORTED_RUNNING_FIELD_NUMBER: _ClassVar[int]
    REPORTED_WAITING_FIELD_NUMBER: _ClassVar[int]
    REPORTED_KV_USAGE_FIELD_NUMBER: _ClassVar[int]
    EJECTIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    dialect: str
    tier: int
    weight: int
    health: BackendStatus.Health
    in_flight: int
    consecutive_failures: int
    ejected_for: _duration_pb2.Duration
    reported_running: int
    reported_waiting: int
    reported_kv_usage: float
    ejections: int
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., dialect: _Optional[str] = ..., tier: _Optional[int] = ..., weight: _Optional[int] = ..., health: _Optional[_Union[BackendStatus.Health, str]] = ..., in_flight: _Optional[int] = ..., consecutive_failures: _Optional[int] = ..., ejected_for: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reported_running: _Optional[int] = ..., reported_waiting: _Optional[int] = ..., reported_kv_usage: _Optional[float] = ..., ejections: _Optional[int] = ...) -> None: ...

class RunningCall(_message.Message):
    __slots__ = ("request_id", "rpc", "model", "backend", "phase", "age", "deltas", "attempt", "priority", "completion_tokens")
    class Phase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PHASE_UNSPECIFIED: _ClassVar[RunningCall.Phase]
        PHASE_QUEUED: _ClassVar[RunningCall.Phase]
        PHASE_FIRST_TOKEN: _ClassVar[RunningCall.Phase]
        PHASE_STREAMING: _ClassVar[RunningCall.Phase]
    PHASE_UNSPECIFIED: RunningCall.Phase
    PHASE_QUEUED: RunningCall.Phase
    PHASE_FIRST_TOKEN: RunningCall.Phase
    PHASE_STREAMING: RunningCall.Phase
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RPC_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    DELTAS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    rpc: str
    model: str
    backend: str
    phase: RunningCall.Phase
    age: _duration_pb2.Duration
    deltas: int
    attempt: int
    priority: _generation_pb2.Priority
    completion_tokens: int
    def __init__(self, request_id: _Optional[str] = ..., rpc: _Optional[str] = ..., model: _Optional[str] = ..., backend: _Optional[str] = ..., phase: _Optional[_Union[RunningCall.Phase, str]] = ..., age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., deltas: _Optional[int] = ..., attempt: _Optional[int] = ..., priority: _Optional[_Union[_generation_pb2.Priority, str]] = ..., completion_tokens: _Optional[int] = ...) -> None: ...
