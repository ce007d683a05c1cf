# SPDX-License-Identifier: Apache-2.0
"""The gRPC plumbing of an interceptor, once: one coroutine around a call, unary or stream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]
    Behaviour = Callable[[Any, Context], Awaitable[Any]]

OURS = "/llm_gateway.v1."


class Around(ABC, grpc.aio.ServerInterceptor):
    """Wraps the calls of our own services; health and reflection pass untouched.

    It wraps the handler and never raises from `intercept_service`: that would reach the caller as UNKNOWN, with the
    exception's text.
    """

    def __init__(self) -> None:
        self._wrapped: dict[str, Handler] = {}

    @abstractmethod
    async def around(self, method: str, proceed: Behaviour, request: Any, context: Context) -> Any:  # noqa: ANN401 - whatever it gives
        """Do what is to be done around one call of `method` ("/package.Service/Method"): give what `proceed` gives for
        the request and its context.

        A plain coroutine, and not a context manager: it is a tenth of the code on the way of every call.
        """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wrap the handler of a method, once for all its calls."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None or not method.startswith(OURS):
                return handler
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: Handler) -> Handler:
        # The stubs know only handlers that are not coroutines.
        behaviour = cast("Behaviour", handler.unary_stream if handler.response_streaming else handler.unary_unary)
        # It is the coroutine itself that gRPC calls: one around it would be resumed for every token, too.
        call = partial(type(self).around, self, method, behaviour)
        make = (
            grpc.unary_stream_rpc_method_handler if handler.response_streaming else grpc.unary_unary_rpc_method_handler
        )
        return make(
            call,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
