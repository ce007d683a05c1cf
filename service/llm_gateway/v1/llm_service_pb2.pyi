from google.protobuf import struct_pb2 as _struct_pb2
from llm_gateway.v1 import generation_pb2 as _generation_pb2
from llm_gateway.v1 import message_pb2 as _message_pb2
from llm_gateway.v1 import model_pb2 as _model_pb2
from llm_gateway.v1 import outcome_pb2 as _outcome_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ChatCompletionRequest(_message.Message):
    __slots__ = ("model", "messages", "params", "tools", "tool_choice", "parallel_tool_calls", "structured_output", "reasoning", "stream_options", "priority", "session_id", "cache_salt", "user", "metadata", "backend_extensions")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    TOOL_CHOICE_FIELD_NUMBER: _ClassVar[int]
    PARALLEL_TOOL_CALLS_FIELD_NUMBER: _ClassVar[int]
    STRUCTURED_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    REASONING_FIELD_NUMBER: _ClassVar[int]
    STREAM_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    CACHE_SALT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    BACKEND_EXTENSIONS_FIELD_NUMBER: _ClassVar[int]
    model: str
    messages: _containers.RepeatedCompositeFieldContainer[_message_pb2.Message]
    params: _generation_pb2.GenerationParams
    tools: _containers.RepeatedCompositeFieldContainer[_message_pb2.Tool]
    tool_choice: _message_pb2.ToolChoice
    parallel_tool_calls: bool
    structured_output: _generation_pb2.StructuredOutput
    reasoning: _generation_pb2.ReasoningOptions
    stream_options: _generation_pb2.StreamOptions
    priority: _generation_pb2.Priority
    session_id: str
    cache_salt: str
    user: str
    metadata: _containers.ScalarMap[str, str]
    backend_extensions: _struct_pb2.Struct
    def __init__(self, model: _Optional[str] = ..., messages: _Optional[_Iterable[_Union[_message_pb2.Message, _Mapping]]] = ..., params: _Optional[_Union[_generation_pb2.GenerationParams, _Mapping]] = ..., tools: _Optional[_Iterable[_Union[_message_pb2.Tool, _Mapping]]] = ..., tool_choice: _Optional[_Union[_message_pb2.ToolChoice, _Mapping]] = ..., parallel_tool_calls: _Optional[bool] = ..., structured_output: _Optional[_Union[_generation_pb2.StructuredOutput, _Mapping]] = ..., reasoning: _Optional[_Union[_generation_pb2.ReasoningOptions, _Mapping]] = ..., stream_options: _Optional[_Union[_generation_pb2.StreamOptions, _Mapping]] = ..., priority: _Optional[_Union[_generation_pb2.Priority, str]] = ..., session_id: _Optional[str] = ..., cache_salt: _Optional[str] = ..., user: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., backend_extensions: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class ChatCompletionResponse(_message.Message):
    __slots__ = ("request_id", "model", "backend", "choices", "usage", "timing", "attempts")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    backend: str
    choices: _containers.RepeatedCompositeFieldContainer[_outcome_pb2.Choice]
    usage: _outcome_pb2.Usage
    timing: _outcome_pb2.Timing
    attempts: _containers.RepeatedCompositeFieldContainer[_outcome_pb2.Attempt]
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., backend: _Optional[str] = ..., choices: _Optional[_Iterable[_Union[_outcome_pb2.Choice, _Mapping]]] = ..., usage: _Optional[_Union[_outcome_pb2.Usage, _Mapping]] = ..., timing: _Optional[_Union[_outcome_pb2.Timing, _Mapping]] = ..., attempts: _Optional[_Iterable[_Union[_outcome_pb2.Attempt, _Mapping]]] = ...) -> None: ...

class ChatCompletionStreamResponse(_message.Message):
    __slots__ = ("sequence", "started", "delta", "completed")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    started: _outcome_pb2.Started
    delta: _outcome_pb2.Delta
    completed: _outcome_pb2.Completed
    def __init__(self, sequence: _Optional[int] = ..., started: _Optional[_Union[_outcome_pb2.Started, _Mapping]] = ..., delta: _Optional[_Union[_outcome_pb2.Delta, _Mapping]] = ..., completed: _Optional[_Union[_outcome_pb2.Completed, _Mapping]] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("model", "prompt", "system", "params", "raw", "structured_output", "stream_options", "priority", "session_id")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    STRUCTURED_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    STREAM_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    model: str
    prompt: str
    system: str
    params: _generation_pb2.GenerationParams
    raw: bool
    structured_output: _generation_pb2.StructuredOutput
    stream_options: _generation_pb2.StreamOptions
    priority: _generation_pb2.Priority
    session_id: str
    def __init__(self, model: _Optional[str] = ..., prompt: _Optional[str] = ..., system: _Optional[str] = ..., params: _Optional[_Union[_generation_pb2.GenerationParams, _Mapping]] = ..., raw: _Optional[bool] = ..., structured_output: _Optional[_Union[_generation_pb2.StructuredOutput, _Mapping]] = ..., stream_options: _Optional[_Union[_generation_pb2.StreamOptions, _Mapping]] = ..., priority: _Optional[_Union[_generation_pb2.Priority, str]] = ..., session_id: _Optional[str] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("request_id", "model", "backend", "text", "finish_reason", "choices", "usage", "timing", "attempts")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    backend: str
    text: str
    finish_reason: _outcome_pb2.FinishReason
    choices: _containers.RepeatedCompositeFieldContainer[_outcome_pb2.Choice]
    usage: _outcome_pb2.Usage
    timing: _outcome_pb2.Timing
    attempts: _containers.RepeatedCompositeFieldContainer[_outcome_pb2.Attempt]
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., backend: _Optional[str] = ..., text: _Optional[str] = ..., finish_reason: _Optional[_Union[_outcome_pb2.FinishReason, str]] = ..., choices: _Optional[_Iterable[_Union[_outcome_pb2.Choice, _Mapping]]] = ..., usage: _Optional[_Union[_outcome_pb2.Usage, _Mapping]] = ..., timing: _Optional[_Union[_outcome_pb2.Timing, _Mapping]] = ..., attempts: _Optional[_Iterable[_Union[_outcome_pb2.Attempt, _Mapping]]] = ...) -> None: ...

class StreamGenerateResponse(_message.Message):
    __slots__ = ("sequence", "started", "delta", "completed")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    started: _outcome_pb2.Started
    delta: _outcome_pb2.Delta
    completed: _outcome_pb2.Completed
    def __init__(self, sequence: _Optional[int] = ..., started: _Optional[_Union[_outcome_pb2.Started, _Mapping]] = ..., delta: _Optional[_Union[_outcome_pb2.Delta, _Mapping]] = ..., completed: _Optional[_Union[_outcome_pb2.Completed, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[_model_pb2.Model]
    def __init__(self, models: _Optional[_Iterable[_Union[_model_pb2.Model, _Mapping]]] = ...) -> None: ...

class CountTokensRequest(_message.Message):
    __slots__ = ("model", "messages", "tools", "prompt", "include_token_ids")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    model: str
    messages: _containers.RepeatedCompositeFieldContainer[_message_pb2.Message]
    tools: _containers.RepeatedCompositeFieldContainer[_message_pb2.Tool]
    prompt: str
    include_token_ids: bool
    def __init__(self, model: _Optional[str] = ..., messages: _Optional[_Iterable[_Union[_message_pb2.Message, _Mapping]]] = ..., tools: _Optional[_Iterable[_Union[_message_pb2.Tool, _Mapping]]] = ..., prompt: _Optional[str] = ..., include_token_ids: _Optional[bool] = ...) -> None: ...

class CountTokensResponse(_message.Message):
    __slots__ = ("token_count", "context_length", "token_ids", "model", "backend")
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    token_count: int
    context_length: int
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    model: str
    backend: str
    def __init__(self, token_count: _Optional[int] = ..., context_length: _Optional[int] = ..., token_ids: _Optional[_Iterable[int]] = ..., model: _Optional[str] = ..., backend: _Optional[str] = ...) -> None: ...
