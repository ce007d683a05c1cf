# SPDX-License-Identifier: Apache-2.0
"""OpenAI's HTTP API as vLLM and others speak it: generation by server-sent events, token counts, models, health, load.

What differs between them is in the Dialect.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar

from llm_gateway.backends.assembly import Assembly
from llm_gateway.backends.base import Readiness
from llm_gateway.backends.dialect import VLLM, RawLength
from llm_gateway.backends.failures import error_of_response
from llm_gateway.backends.http import HttpClient
from llm_gateway.backends.load import load_of
from llm_gateway.backends.refusal import refusal_of, refusal_of_count
from llm_gateway.backends.request import generation_request, tokenize_request
from llm_gateway.backends.wire import ModelListWire, NotTheProtocolError, TokenizeWire, decode_as
from llm_gateway.errors import (
    BackendLost,
    BackendProtocolError,
    GatewayError,
    InvalidRequest,
    ModelLoading,
    UnsupportedParameter,
)
from llm_gateway.generation import Model, TokenCount, TokenQuery

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_gateway.backends.base import Load
    from llm_gateway.backends.dialect import Dialect
    from llm_gateway.backends.http import Exchange
    from llm_gateway.generation import Generation, Piece, Usage

_T = TypeVar("_T")

EVENT_STREAM = "text/event-stream"
JSON = "application/json"
MAX_ERROR_BODY = 64 * 1024
MAX_ANSWER_BODY = 64 * 1024 * 1024
MAX_METRICS_BODY = 2 * 1024 * 1024
MAX_CALL_BODY = 2 * 1024 * 1024
"""Bytes of an answer that is no generation: it is decoded at once, while all calls wait. Tokens have more room."""
MAX_BYTES_OF_TOKEN = 16
"""A prompt has hardly more tokens than bytes, and each is a number of up to ten digits."""
MODELS_TTL = 10.0
"""Seconds for which the list of models is believed; a model that appears is served at once, for its name is not checked
against the list."""
LAST_CHUNK_WAIT = 0.05
"""Seconds to wait, after the whole answer, for the end of its body, so that the connection can be kept."""


class OpenAIBackend:
    """One server. `max_event_bytes` bounds one server-sent event, `timeout` (seconds) the calls that are not guarded by
    whoever asks: models, health. `host` is the name that the address in `url` was found by: what the
    server is asked for and has to prove to be.
    """

    def __init__(  # noqa: PLR0913 - the settings of one backend
        self,
        name: str,
        url: str,
        *,
        dialect: Dialect = VLLM,
        api_key: str | None = None,
        connect_timeout: float = 2.0,
        timeout: float = 5.0,
        max_event_bytes: int = 4 * 1024 * 1024,
        host: str | None = None,
    ) -> None:
        self.name = name
        self.dialect = dialect.name
        self.probe_patience = dialect.probing.patience
        self._dialect = dialect
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = HttpClient(url, headers=headers, connect_timeout=connect_timeout, host=host)
        self._timeout = timeout
        self._max_event_bytes = max_event_bytes
        self._models: Sequence[Model] = ()
        self._models_until = 0.0
        self._listing: asyncio.Task[Sequence[Model]] | None = None

    def refusal(self, asked: Generation | TokenQuery) -> UnsupportedParameter | None:
        """Why this dialect cannot honour a request."""
        refuse = refusal_of_count if isinstance(asked, TokenQuery) else refusal_of
        return refuse(asked, self._dialect)  # type: ignore[arg-type]  # each with its own kind

    async def open(self, generation: Generation, model: str, request_id: str) -> OpenAIAnswer:
        """Send the request and wait for the headers of its answer."""
        dialect = self._dialect
        context_length = None
        if (
            generation.prompt is not None
            and "max_tokens" not in generation.sampling
            and dialect.raw_length is RawLength.CONTEXT
        ):
            context_length = await self._context_length(model)
        path, body = generation_request(generation, model, dialect, context_length)
        exchange = await self._http.send("POST", path, body=body, request_id=request_id)
        if exchange.status == HTTPStatus.OK:
            return OpenAIAnswer(exchange, generation, self._max_event_bytes)
        async with exchange:
            raise await _refusal_of(exchange)

    async def list_models(self) -> Sequence[Model]:
        """The models that it serves, adapters among them; asked anew every MODELS_TTL seconds.

        Callers who ask at once share one request, and its failure.
        """
        if time.monotonic() < self._models_until:
            return self._models
        if self._listing is None:
            self._listing = asyncio.create_task(self._list_models(), name="list-models")
            self._listing.add_done_callback(self._listed)
        return await asyncio.shield(self._listing)

    async def count_tokens(self, query: TokenQuery, model: str, request_id: str) -> TokenCount:
        """Count a prompt's tokens by `/tokenize`; vLLM's renders the chat template as a generation would."""
        if (refusal := self.refusal(query)) is not None:
            raise refusal
        body = tokenize_request(query, model, self._dialect)
        counted = await self._call("POST", "/tokenize", TokenizeWire, body=body, request_id=request_id)
        if counted.tokens is None and counted.count is None:
            raise BackendProtocolError("The backend's answer to /tokenize counts nothing.")
        tokens = tuple(counted.tokens or ())
        count = len(tokens) if counted.count is None else counted.count
        return TokenCount(model, self.name, tokens, count, counted.max_model_len)

    async def probe(self) -> Readiness:
        """Ask for its health as its dialect has it, of a path that it has."""
        try:
            async with asyncio.timeout(self._timeout):
                for path in self._dialect.probing.paths[:-1]:
                    found = await self._probe(path)
                    if found is not None:
                        return found
                return await self._probe(self._dialect.probing.paths[-1]) or Readiness.DOWN
        except TimeoutError:
            return Readiness.SILENT
        except GatewayError:
            return Readiness.DOWN

    async def load(self) -> Load | None:
        """How busy its `/metrics` say that its own models keep it."""
        families = self._dialect.load
        if families is None:
            return None
        try:
            models = {model.name for model in await self.list_models()}
            async with await self._http.send("GET", "/metrics") as exchange:
                if exchange.status != HTTPStatus.OK:
                    return None
                return load_of(await exchange.read_all(MAX_METRICS_BODY), families, models)
        except GatewayError:
            return None

    async def close(self) -> None:
        """Close every connection."""
        if self._listing is not None:
            self._listing.cancel()
            await asyncio.wait({self._listing})
        await self._http.close()

    async def _probe(self, path: str) -> Readiness | None:
        """What one path says; None where the backend does not have it."""
        probing = self._dialect.probing
        async with await self._http.send("GET", path) as exchange:
            status = exchange.status
            if status in probing.ready:
                with contextlib.suppress(BackendProtocolError):  # a body that is too long: no reason to call it ill
                    await exchange.read_all(MAX_ERROR_BODY)  # so that the connection is kept for the next probe
                return Readiness.READY
            if status in probing.loading:
                return Readiness.LOADING
            if status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
                return None
            return Readiness.LOADING if isinstance(await _refusal_of(exchange), ModelLoading) else Readiness.DOWN

    async def _list_models(self) -> Sequence[Model]:
        listed = await self._get_models()
        return tuple(
            Model(name=m.id, context_length=m.max_model_len, parent=m.parent, owned_by=m.owned_by) for m in listed.data
        )

    def _listed(self, listing: asyncio.Task[Sequence[Model]]) -> None:
        """Keep what was listed. A failure is for those who wait; there may be nobody left who does."""
        self._listing = None
        if not listing.cancelled() and listing.exception() is None:
            self._models = listing.result()
            self._models_until = time.monotonic() + MODELS_TTL

    async def _get_models(self) -> ModelListWire:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._call("GET", "/v1/models", ModelListWire)
        except TimeoutError as error:
            raise BackendLost("The backend did not list its models in time.") from error

    async def _context_length(self, model: str) -> int:
        """The context of a model, for a raw prompt without `max_tokens`; an adapter has its base's."""
        lengths = {listed.name: listed.context_length for listed in await self.list_models() if listed.context_length}
        if not lengths:
            raise InvalidRequest.of("params.max_tokens", "is needed here: the backend does not tell the context")
        return lengths.get(model) or max(lengths.values())

    async def _call(self, method: str, path: str, kind: type[_T], *, body: bytes = b"", request_id: str = "") -> _T:
        async with await self._http.send(method, path, body=body, request_id=request_id) as exchange:
            if exchange.status != HTTPStatus.OK:
                raise await _refusal_of(exchange)
            answer = await exchange.read_all(min(MAX_CALL_BODY + len(body) * MAX_BYTES_OF_TOKEN, MAX_ANSWER_BODY))
        try:
            return decode_as(answer, kind)
        except NotTheProtocolError as error:
            raise BackendProtocolError(f"The backend's answer to {path} is not of its protocol.") from error


class OpenAIAnswer:
    """One answer on its way; see AnswerStream."""

    def __init__(self, exchange: Exchange, generation: Generation, max_event_bytes: int) -> None:
        self._exchange = exchange
        self._assembly = Assembly(generation, max_event_bytes)
        self._prompt_bytes = generation.size
        self._streams = exchange.content_type == EVENT_STREAM and not exchange.encoded
        self.finished = False

    @property
    def model(self) -> str | None:
        """The model that answers, as the backend names it."""
        return self._assembly.model

    @property
    def whole(self) -> bool:
        """Whether every choice has its finish reason."""
        return self._assembly.whole

    async def read(self) -> list[Piece]:
        """The pieces of the next event that carries a choice."""
        assembly = self._assembly
        if assembly.failure is not None:
            raise assembly.failure
        if not self._streams:
            return self._ended(assembly.feed_whole(await self._read_json()))
        while True:
            data = await self._read_some()
            pieces = assembly.feed(data)
            if not data or assembly.done:
                return self._ended(pieces)
            if pieces or assembly.moved or assembly.failure is not None:
                return self._deliverable(pieces)

    def settle(self) -> list[Piece]:
        """The ends that waited for a usage which does not come."""
        return self._assembly.settle()

    def time_limit(self) -> list[Piece]:
        """End every choice that has not ended."""
        return self._assembly.time_limit()

    def usage(self) -> Usage:
        """What the answer has cost so far."""
        return self._assembly.usage(self._prompt_bytes)

    async def close(self) -> None:
        """Keep the connection if the answer was read to its end, close it at once if not."""
        try:
            if self.finished and not self._exchange.at_end:
                with contextlib.suppress(GatewayError, TimeoutError):
                    async with asyncio.timeout(LAST_CHUNK_WAIT):
                        while await self._exchange.read():
                            pass
        finally:
            self._exchange.close()

    async def _read_some(self) -> bytes:
        """The next bytes; b"" at the end, of whatever kind where the answer is whole."""
        try:
            return await self._exchange.read()
        except GatewayError:
            if self._assembly.whole:
                return b""  # how the connection of a whole answer ends does not matter any more
            raise

    async def _read_json(self) -> bytes:
        """An answer in one JSON body: of a beam search, or of a proxy that does not stream."""
        if self._exchange.content_type != JSON or self._exchange.encoded:
            raise BackendProtocolError("The backend's answer is neither an event stream nor JSON.")
        return await self._exchange.read_all(MAX_ANSWER_BODY)

    def _ended(self, pieces: list[Piece]) -> list[Piece]:
        """The last pieces. The verdict on the answer is raised now if there are none, else by the next read."""
        pieces += self._assembly.end()
        self.finished = self._assembly.failure is None
        return self._deliverable(pieces)

    def _deliverable(self, pieces: list[Piece]) -> list[Piece]:
        """What came before a fault is given first; the fault is raised when there is nothing to give."""
        if self._assembly.failure is not None and not pieces:
            raise self._assembly.failure
        return pieces


async def _refusal_of(exchange: Exchange) -> GatewayError:
    body = b""
    with contextlib.suppress(GatewayError):  # without a body that can be read, the status says what it says
        body = await exchange.read_all(MAX_ERROR_BODY)
    return error_of_response(exchange.status, body, exchange.retry_after)
