# SPDX-License-Identifier: Apache-2.0
"""LLMService at the wire: decode, call the gateway, encode. Errors pass through; the interceptors know what they are.

Requests arrive as bytes and are parsed here, so that one that is too large or broken gets a typed error like any
other; responses leave as bytes, encoded once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import grpc

from llm_gateway.codec import requests, responses
from llm_gateway.observability.call import CURRENT_CALL
from llm_gateway.v1 import llm_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine

    from llm_gateway.codec.responses import StreamResponse
    from llm_gateway.gateway import Gateway
    from llm_gateway.gateway.relay import Event
    from llm_gateway.generation import Answer, Generation
    from llm_gateway.observability.call import Call

    Context = grpc.aio.ServicerContext[Any, Any]
    Encode = Callable[[Answer, str], bytes]

SERVICE = pb.DESCRIPTOR.services_by_name["LLMService"].full_name


class Decode(Protocol):
    """Makes a Generation of a request's bytes, and tells the call what it found in them."""

    def __call__(self, data: bytes, call: Call, *, unary: bool) -> Generation:
        """Raises what `requests` raises."""


class LLMServicer:
    """The six RPCs. `max_message_bytes` bounds a request, `extensions` names the backend fields that one may carry."""

    def __init__(self, gateway: Gateway, *, max_message_bytes: int, extensions: Collection[str]) -> None:
        self._gateway = gateway
        self._max_message_bytes = max_message_bytes
        self._extensions = frozenset(extensions)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register the RPCs, as the generated code would, but for bytes."""
        unary = {
            "ChatCompletion": self.chat_completion,
            "Generate": self.generate,
            "ListModels": self.list_models,
            "CountTokens": self.count_tokens,
        }
        streams = {"ChatCompletionStream": self.chat_completion_stream, "StreamGenerate": self.stream_generate}
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            name: grpc.unary_unary_rpc_method_handler(behaviour) for name, behaviour in unary.items()
        } | {name: grpc.unary_stream_rpc_method_handler(behaviour) for name, behaviour in streams.items()}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        server.add_registered_method_handlers(SERVICE, handlers)

    async def chat_completion(self, data: bytes, context: Context) -> bytes:
        """ChatCompletion."""
        return await self._unary(self._chat, responses.encode_chat, data, context)

    async def chat_completion_stream(self, data: bytes, context: Context) -> None:
        """ChatCompletionStream."""
        await self._stream(self._chat, pb.ChatCompletionStreamResponse, data, context)

    async def generate(self, data: bytes, context: Context) -> bytes:
        """Generate."""
        return await self._unary(self._prompt, responses.encode_generate, data, context)

    async def stream_generate(self, data: bytes, context: Context) -> None:
        """StreamGenerate."""
        await self._stream(self._prompt, pb.StreamGenerateResponse, data, context)

    async def list_models(self, data: bytes, context: Context) -> bytes:
        """ListModels."""
        call = CURRENT_CALL.get()
        requests.parse(pb.ListModelsRequest, data, self._max_message_bytes)
        models = await self._gateway.list_models(call)
        await _send_request_id(call, context)
        return responses.encode_models(models)

    async def count_tokens(self, data: bytes, context: Context) -> bytes:
        """CountTokens."""
        call = CURRENT_CALL.get()
        request = requests.parse(pb.CountTokensRequest, data, self._max_message_bytes)
        call.model = _model_asked_for(request)
        count = await self._gateway.count_tokens(requests.decode_token_query(request), call)
        await _send_request_id(call, context)
        return responses.encode_token_count(count, include_token_ids=request.include_token_ids)

    async def _unary(self, decode: Decode, encode: Encode, data: bytes, context: Context) -> bytes:
        call = CURRENT_CALL.get()
        answer = await self._gateway.complete(decode(data, call, unary=True), call)
        await _send_request_id(call, context)
        return encode(answer, call.request_id)

    async def _stream(self, decode: Decode, kind: StreamResponse, data: bytes, context: Context) -> None:
        call = CURRENT_CALL.get()
        writer = EventWriter(call, context, kind)
        await self._gateway.stream(decode(data, call, unary=False), call, writer)

    def _chat(self, data: bytes, call: Call, *, unary: bool) -> Generation:
        request = requests.parse(pb.ChatCompletionRequest, data, self._max_message_bytes)
        call.model = _model_asked_for(request)
        generation = requests.decode_chat(request, unary=unary, extensions=self._extensions)
        call.session_id, call.user, call.metadata = generation.session_id, generation.user, generation.metadata
        return generation

    def _prompt(self, data: bytes, call: Call, *, unary: bool) -> Generation:
        request = requests.parse(pb.GenerateRequest, data, self._max_message_bytes)
        call.model = _model_asked_for(request)
        generation = requests.decode_generate(request, unary=unary)
        call.session_id = generation.session_id
        return generation


class EventWriter:
    """Writes a stream's events to its caller, numbered; the initial metadata leaves with the first."""

    __slots__ = ("_call", "_context", "_kind")

    def __init__(self, call: Call, context: Context, kind: StreamResponse) -> None:
        self._call = call
        self._context = context
        self._kind = kind

    def begin(self) -> Coroutine[Any, Any, None]:
        """Send the initial metadata."""
        return _send_request_id(self._call, self._context)

    async def write(self, event: Event) -> None:
        """Write one event; returns when gRPC has taken it, which is when the caller's flow control lets it."""
        call = self._call
        sequence = call.last_sequence + 1
        data = responses.encode_event(self._kind, event, sequence, call.request_id)
        # A write that is broken off, by a deadline say, has begun: what gRPC took arrives ahead of the status.
        call.last_sequence = sequence
        await self._context.write(data)


def _model_asked_for(request: pb.ChatCompletionRequest | pb.GenerateRequest | pb.CountTokensRequest) -> str | None:
    """For the record of a call, and of one that is refused too: nobody has checked it yet, so it may be cut."""
    return request.model[: requests.MAX_NAME_BYTES] or None


async def _send_request_id(call: Call, context: Context) -> None:
    await context.send_initial_metadata((("x-request-id", call.request_id),))
