# SPDX-License-Identifier: Apache-2.0
"""HTTP to a backend: what breaks has one of our names, what arrived is given, and nothing of a caller's leaks."""

from __future__ import annotations

import asyncio
import inspect
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

import aiohttp
import httpx
import pytest
from aiohttp import client_exceptions
from httpx import _exceptions as httpx_exceptions

from llm_gateway.backends.http import HttpClient, error_of_exception, map_errors
from llm_gateway.errors import BackendLost, BackendProtocolError, GatewayError, NoHealthyBackend
from tests.kit.calls import until
from tests.kit.scripted import STREAM_HEAD, Close, Hold, Pause, Reset, ScriptedBackend, json_response
from tests.kit.sockets import closed_port
from tests.kit.tls import Authority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path
    from types import ModuleType

    from llm_gateway.backends.http import Exchange
    from tests.kit.scripted import Step

UNREACHABLE = {
    "ClientConnectorError", "ClientConnectorDNSError", "ClientProxyConnectionError", "UnixClientConnectorError",
    "ConnectionTimeoutError", "ClientSSLError", "ClientConnectorSSLError", "ClientConnectorCertificateError",
}  # fmt: skip
NO_HTTP = {
    "ClientResponseError", "ContentTypeError", "WSServerHandshakeError", "ClientHttpProxyError", "TooManyRedirects",
    "InvalidURL", "InvalidUrlClientError", "InvalidUrlRedirectClientError", "UnsupportedProtocol",
}  # fmt: skip
LOST = {
    "ClientError", "ClientConnectionError", "ClientConnectionResetError", "ClientOSError", "ServerConnectionError",
    "ServerDisconnectedError", "ServerTimeoutError", "SocketTimeoutError", "ServerFingerprintMismatch",
    "ClientPayloadError", "UploadAbortedError", "RedirectClientError", "NonHttpUrlClientError",
    "NonHttpUrlRedirectClientError", "HTTPError", "RequestError", "TransportError", "TimeoutException",
    "ConnectTimeout", "ReadTimeout", "WriteTimeout", "PoolTimeout", "NetworkError", "ReadError", "WriteError",
    "ConnectError", "CloseError", "ProxyError", "ProtocolError", "LocalProtocolError", "RemoteProtocolError",
    "DecodingError", "HTTPStatusError",
}  # fmt: skip
# Web sockets, cookies, and the order in which a response of httpx's own client is read: none of it is used.
UNUSED = {"WSMessageTypeError", "CookieConflict", "StreamError", "StreamConsumed", "StreamClosed", "ResponseNotRead",
          "RequestNotRead"}  # fmt: skip
HTTPX_TOO = {"TooManyRedirects": BackendLost}  # the one name that both have, and mean otherwise


def classes_of(module: ModuleType) -> Iterator[type[Exception]]:
    for kind in vars(module).values():
        if inspect.isclass(kind) and issubclass(kind, Exception) and kind.__name__ not in UNUSED:
            yield kind


def expected_of(kind: type[Exception]) -> type[GatewayError]:
    name = kind.__name__
    if kind.__module__.startswith("httpx") and name in HTTPX_TOO:
        return HTTPX_TOO[name]
    known: dict[str, type[GatewayError]] = (
        dict.fromkeys(UNREACHABLE, NoHealthyBackend)
        | dict.fromkeys(NO_HTTP, BackendProtocolError)
        | dict.fromkeys(LOST, BackendLost)
    )
    return known[name]


FOREIGN = [*classes_of(client_exceptions), *classes_of(httpx_exceptions)]


@pytest.mark.parametrize("kind", FOREIGN, ids=lambda kind: f"{kind.__module__.partition('.')[0]}.{kind.__name__}")
def test_every_exception_of_the_http_libraries_is_mapped_to_one_of_ours(kind: type[Exception]) -> None:
    foreign = kind.__new__(kind)

    with pytest.raises(GatewayError) as caught, map_errors():
        raise foreign

    assert type(caught.value) is expected_of(kind)
    assert caught.value.__cause__ is foreign


def test_what_the_transport_wraps_is_read_by_its_cause() -> None:
    wrapped = httpx.ConnectTimeout("refused, says the transport")
    wrapped.__cause__ = aiohttp.ServerDisconnectedError()

    assert type(error_of_exception(wrapped)) is BackendLost


@pytest.mark.parametrize("error", [ConnectionResetError(), BrokenPipeError(), TimeoutError(), OSError("no route")])
def test_what_the_system_raises_is_a_lost_backend(error: OSError) -> None:
    assert type(error_of_exception(error)) is BackendLost


# ---------------------------------------------------------------------------------------------------- on real sockets


@pytest.fixture
async def clients() -> AsyncIterator[list[HttpClient]]:
    """Clients that are closed at the end."""
    opened: list[HttpClient] = []
    yield opened
    for client in opened:
        await client.close()


def connect(clients: list[HttpClient], url: str) -> HttpClient:
    client = HttpClient(url, headers={"authorization": "Bearer sk-1"}, connect_timeout=5.0)
    clients.append(client)
    return client


async def ask(client: HttpClient) -> Exchange:
    return await client.send("POST", "/v1/chat/completions", body=b"{}", request_id="r-1")


@pytest.mark.parametrize("host", ["a..b", "a" * 70], ids=["empty-part", "long-part"])
async def test_a_host_that_no_resolver_takes_is_no_healthy_backend(clients: list[HttpClient], host: str) -> None:
    """The settings refuse it; a resolver's UnicodeError is none of those that the libraries document."""
    with pytest.raises(NoHealthyBackend):
        await ask(connect(clients, f"http://{host}:8000"))


async def test_a_client_reads_no_certificates_of_its_own(
    clients: list[HttpClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That takes as long as a dozen calls, and a name may have fifty replicas behind it. aiohttp has read them once."""
    monkeypatch.setenv("SSL_CERT_FILE", "/there/is/no/such/file")

    with closed_port() as port, pytest.raises(NoHealthyBackend):
        await ask(connect(clients, f"http://127.0.0.1:{port}"))


async def test_a_refused_connection_is_no_healthy_backend(clients: list[HttpClient]) -> None:
    with closed_port() as port, pytest.raises(NoHealthyBackend):
        await ask(connect(clients, f"http://127.0.0.1:{port}"))


async def test_a_name_that_does_not_exist_is_no_healthy_backend(clients: list[HttpClient]) -> None:
    with pytest.raises(NoHealthyBackend):
        await ask(connect(clients, "http://no-such-host.invalid"))


async def test_tls_where_there_is_none_is_no_healthy_backend(clients: list[HttpClient]) -> None:
    def answer_in_the_clear(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer_in_the_clear, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(NoHealthyBackend):
            await ask(connect(clients, f"https://127.0.0.1:{port}"))


HEADS: dict[str, tuple[Sequence[Step], type[GatewayError]]] = {
    "fin": ([Close], BackendLost),
    "rst": ([Reset], BackendLost),
    "half a head": ([b"HTTP/1.1 200 OK\r\ncontent", Close], BackendLost),
    "another protocol": ([b"220 smtp.example ready\r\n\r\n", Close], BackendProtocolError),
    "a bad header": ([b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", Close], BackendProtocolError),
    "a giant header": ([b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n", Close], BackendProtocolError),
    "a bad length": ([b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n", Close], BackendProtocolError),
}


@pytest.mark.parametrize(("script", "kind"), HEADS.values(), ids=HEADS)
async def test_an_answer_that_does_not_begin_is_lost_or_no_http(
    script: Sequence[Step], kind: type[GatewayError], clients: list[HttpClient]
) -> None:
    async with ScriptedBackend(script) as backend:
        with pytest.raises(GatewayError) as caught:
            await ask(connect(clients, backend.url))

    assert type(caught.value) is kind


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n"
SIZED = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nfirst"


@pytest.mark.parametrize("end", [Close, Reset])
@pytest.mark.parametrize("begin", [CHUNKED, SIZED], ids=["chunked", "sized"])
async def test_bytes_that_came_before_a_break_are_given_before_the_error(
    begin: bytes, end: type[Close | Reset], clients: list[HttpClient]
) -> None:
    gate = asyncio.Event()
    async with (
        ScriptedBackend([begin, Hold(gate), end]) as backend,
        await ask(connect(clients, backend.url)) as exchange,
    ):
        gate.set()
        await until(lambda: backend.open == 0)

        assert await exchange.read() == b"first"
        for _ in range(2):
            with pytest.raises(BackendLost):
                await exchange.read()


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
async def test_a_redirect_is_not_followed_and_the_key_stays_here(status: str, clients: list[HttpClient]) -> None:
    async with ScriptedBackend([json_response("200 OK", {})]) as other:
        redirect = json_response(status, {}, [f"location: {other.url}/v1/chat/completions"])
        async with ScriptedBackend([redirect]) as backend, await ask(connect(clients, backend.url)) as exchange:
            assert exchange.status == int(status[:3])

    assert not other.requests


async def test_cookies_are_not_kept(clients: list[HttpClient]) -> None:
    cookie = json_response("200 OK", {}, ["set-cookie: a=b; path=/"])
    async with ScriptedBackend([cookie]) as backend:
        client = connect(clients, backend.url.replace("127.0.0.1", "localhost"))  # no cookies are kept for an address
        for _ in range(2):
            async with await ask(client) as exchange:
                await exchange.read_all(100)

    assert [headers.get("cookie") for _, headers, _ in backend.requests] == [None, None]


async def test_proxies_of_the_environment_are_ignored(
    clients: list[HttpClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    with closed_port() as port:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        async with (
            ScriptedBackend([json_response("200 OK", {})]) as backend,
            await ask(connect(clients, backend.url)) as exchange,
        ):
            assert exchange.status == 200


async def test_a_finished_exchange_keeps_its_connection(clients: list[HttpClient]) -> None:
    async with ScriptedBackend([json_response("200 OK", {})]) as backend:
        client = connect(clients, backend.url)
        for _ in range(3):
            async with await ask(client) as exchange:
                await exchange.read_all(100)

        assert backend.open == 1


async def test_an_unfinished_exchange_closes_its_connection(clients: list[HttpClient]) -> None:
    async with ScriptedBackend([STREAM_HEAD, b"data: 1\n\n", Pause()]) as backend:
        async with await ask(connect(clients, backend.url)) as exchange:
            await exchange.read()
        await asyncio.wait_for(backend.left.wait(), 10)


async def test_three_hundred_exchanges_are_open_at_once(clients: list[HttpClient]) -> None:
    async with ScriptedBackend([STREAM_HEAD, b"data: 1\n\n", Pause()]) as backend:
        client = connect(clients, backend.url)
        exchanges = await asyncio.gather(*(ask(client) for _ in range(300)))

        assert backend.open == 300
        for exchange in exchanges:
            exchange.close()
        await until(lambda: backend.open == 0)


async def test_a_body_above_the_limit_is_not_read_to_its_end(clients: list[HttpClient]) -> None:
    async with (
        ScriptedBackend([json_response("200 OK", b"x" * 5000)]) as backend,
        await ask(connect(clients, backend.url)) as exchange,
    ):
        with pytest.raises(BackendProtocolError):
            await exchange.read_all(4999)


WAITS = {
    "retry-after: 7": 7.0,
    "retry-after: 0": 0.0,
    "retry-after: 0.5": 0.5,
    "retry-after-ms: 250": 0.25,
    "retry-after: Wed, 21 Oct 2015 07:28:00 GMT": 0.0,
    "retry-after: Wed, 21 Oct 2015 07:28:00 -0000": 0.0,
    "retry-after: Fri, 31 Dec 9999 23:59:59 GMT": None,
    "retry-after: Wed, 99 Oct 2015 07:28:00 GMT": None,
    "retry-after: soon": None,
    "retry-after: -1": None,
    "retry-after: nan": None,
    "retry-after: inf": None,
    "retry-after: 999999": None,
    "x-other: 1": None,
}


@pytest.mark.parametrize(("header", "seconds"), WAITS.items())
async def test_the_wait_that_a_backend_asks_for(header: str, seconds: float | None, clients: list[HttpClient]) -> None:
    async with (
        ScriptedBackend([json_response("503 Busy", {}, [header])]) as backend,
        await ask(connect(clients, backend.url)) as exchange,
    ):
        assert exchange.retry_after == seconds


async def test_a_date_is_as_far_away_as_it_is(clients: list[HttpClient]) -> None:
    header = f"retry-after: {format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)}"
    async with (
        ScriptedBackend([json_response("503 Busy", {}, [header])]) as backend,
        await ask(connect(clients, backend.url)) as exchange,
    ):
        wait = exchange.retry_after

    assert wait is not None
    assert 0 < wait <= 60


async def test_milliseconds_are_believed_before_seconds(clients: list[HttpClient]) -> None:
    response = json_response("503 Busy", {}, ["retry-after: 1", "retry-after-ms: 600"])
    async with ScriptedBackend([response]) as backend, await ask(connect(clients, backend.url)) as exchange:
        assert exchange.retry_after == 0.6


async def test_a_replica_is_asked_for_the_name_that_it_was_found_by(clients: list[HttpClient]) -> None:
    async with ScriptedBackend([json_response("200 OK", {})]) as backend:
        client = HttpClient(backend.url, headers={}, connect_timeout=5.0, host="replicas.test")
        clients.append(client)
        (await ask(client)).close()

        port = backend.url.rpartition(":")[2]

    assert backend.requests[0][1]["host"] == f"replicas.test:{port}"


@pytest.mark.parametrize(("url", "header"), [("https://10.0.0.7", "a.test"), ("http://10.0.0.7:80", "a.test"),
                                             ("http://[::1]:8443", "a.test:8443")])  # fmt: skip
def test_a_port_that_goes_without_saying_is_not_in_the_host_header(url: str, header: str) -> None:
    assert HttpClient(url, headers={}, connect_timeout=1.0, host="a.test")._headers["host"] == header


@pytest.mark.parametrize(("host", "trusted"), [("replicas.test", True), ("other.test", False), (None, False)])
async def test_over_tls_a_replica_must_be_who_it_was_found_as(
    host: str | None, trusted: bool, tmp_path: Path, clients: list[HttpClient]
) -> None:
    authority = Authority(tmp_path / "authority")
    names: list[str] = []
    context = authority.context(name="DNS:replicas.test")
    context.sni_callback = lambda _, name, __: names.append(name)
    client_context = ssl.create_default_context(cafile=authority.certificate)
    async with ScriptedBackend([json_response("200 OK", {})], tls=context) as backend:
        client = HttpClient(backend.url.replace("http:", "https:"), headers={}, connect_timeout=5.0, host=host)
        clients.append(client)
        client._transport.client = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client_context))
        if trusted:
            (await ask(client)).close()
        else:
            with pytest.raises(NoHealthyBackend):
                await ask(client)

    assert names == [host]
    assert len(backend.requests) == trusted


CHUNKED_HEAD = STREAM_HEAD[:-2] + b"transfer-encoding: chunked\r\n\r\n"


async def test_what_came_before_broken_framing_is_read_and_then_the_fault_is_told() -> None:
    async with ScriptedBackend([CHUNKED_HEAD, b"2\r\nhi\r\n", Pause(0), b"zz\r\n", Pause()]) as backend:
        client = HttpClient(backend.url, headers={}, connect_timeout=2.0)
        exchange = await client.send("POST", "/v1/chat/completions", body=b"{}")
        await backend.left.wait()  # aiohttp has closed the connection

        assert await exchange.read() == b"hi"
        with pytest.raises(BackendProtocolError):
            await exchange.read()
        exchange.close()
        await client.close()
