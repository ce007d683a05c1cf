from llm_gateway.v1 import outcome_pb2 as _outcome_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CallReport(_message.Message):
    __slots__ = ("last_sequence", "usage", "timing", "attempts")
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    last_sequence: int
    usage: _outcome_pb2.Usage
    timing: _outcome_pb2.Timing
    attempts: _containers.RepeatedCompositeFieldContainer[_outcome_pb2.Attempt]
    def __init__(self, last_sequence: _Optional[int] = ..., usage: _Optional[_Union[_outcome_pb2.Usage, _Mapping]] = ..., timing: _Optional[_Union[_outcome_pb2.Timing, _Mapping]] = ..., attempts: _Optional[_Iterable[_Union[_outcome_pb2.Attempt, _Mapping]]] = ...) -> None: ...
