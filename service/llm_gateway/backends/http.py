# SPDX-License-Identifier: Apache-2.0
"""HTTP to one backend: httpx's interface over aiohttp's connections, and the one place where their errors are mapped.

httpx's own pool is quadratic and wedges after some hundred cancelled streams; its client layer costs 0.3 ms a request.
So requests go straight to httpx-aiohttp's transport. aiohttp's errors are mapped by their own class and not by the one
that the transport gives them: it calls a refused connection, a reset and a missing header all a ConnectTimeout.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Self

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from httpx_aiohttp import AiohttpTransport
from multidict import CIMultiDict
from yarl import URL

from llm_gateway.backends.lookup import look_up
from llm_gateway.errors import BackendLost, BackendProtocolError, NoHealthyBackend

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llm_gateway.errors import GatewayError

KEEP_ALIVE = 4.0
"""Seconds that an idle connection is kept: below the 5 s after which uvicorn closes it from its side."""

READ_BUFFER = 64 * 1024
"""Bytes that wait for a slow caller, times two, before the backend's socket is no longer read."""

NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
"""Of an address that is no name: nobody needs to look it up again."""

TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For the transport, which has no use for it: the session's connector has aiohttp's own, one for all. Without it each
backend would read all certificates again, for some 30 ms of the loop's time and 800 kB.
"""


class HttpClient:
    """The connections to one backend. Paths are relative to `url`; `connect_timeout` is in seconds.

    Where `url` has the address of one replica, `host` is the name that all of them have: it is asked for, and over TLS
    it is what the certificate must be of.
    """

    def __init__(
        self, url: str, *, headers: Mapping[str, str], connect_timeout: float, host: str | None = None
    ) -> None:
        self._url = url.rstrip("/")
        self._urls: dict[str, URL] = {}
        self._headers = CIMultiDict({"accept-encoding": "identity", "user-agent": "llm-gateway"} | dict(headers))
        if host is not None:
            self._headers["host"] = _host_header(host, URL(self._url))
        self._timeout = aiohttp.ClientTimeout(sock_connect=connect_timeout)  # TLS is part of it
        self._transport = _Transport(client=partial(_session, connect_timeout), verify=TRUSTS_NOBODY)
        self._transport.server_hostname = host

    async def send(self, method: str, path: str, *, body: bytes = b"", request_id: str = "") -> Exchange:
        """Send a request and wait for the headers of its answer. Raises NoHealthyBackend, BackendLost or
        BackendProtocolError.
        """
        headers = self._headers.copy()
        if body:
            headers["content-type"] = "application/json"
        if request_id:
            headers["x-request-id"] = request_id
        with map_errors():
            url = self._urls.get(path)
            if url is None:
                url = self._urls[path] = URL(self._url + path)
            return Exchange(await self._transport.open(method, url, headers, body, self._timeout))

    async def close(self) -> None:
        """Close every connection."""
        await self._transport.aclose()


class _Transport(AiohttpTransport):
    """httpx's transport over aiohttp, with a second entrance for requests of which every part is ready.

    The first one builds an httpx.Request, an httpx.Response and the headers of both for everything it sends, and reads
    most of it once: a tenth of what a short request costs in all.
    """

    server_hostname: str | None = None
    """Whom a server proves to be by its certificate, where that is not the host of the URL."""

    async def open(
        self, method: str, url: URL, headers: CIMultiDict[str], body: bytes, timers: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """Send a request and wait for the headers of its answer; raises what aiohttp raises."""
        if not isinstance(self.client, aiohttp.ClientSession):
            self.client = self.get_client()
        return await self.client.request(
            method,
            url,
            headers=headers,
            data=body or None,
            allow_redirects=False,
            timeout=timers,
            server_hostname=self.server_hostname,
        )


class Exchange:
    """One response: its head, and its body as it comes. Close it, however it ends."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._aiohttp = response
        self._content = response.content
        self._failure: Exception | None = None

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._aiohttp.status

    @property
    def content_type(self) -> str:
        """The media type, in lower case and without its parameters."""
        return self._aiohttp.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def encoded(self) -> bool:
        """Whether the body is compressed, although the request forbade it."""
        return self._aiohttp.headers.get("content-encoding", "").strip().lower() not in {"", "identity"}

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait, from `retry-after-ms` or `retry-after`, a number or a date; None if absent or nonsense."""
        for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
            value = self._aiohttp.headers.get(name, "")
            with contextlib.suppress(ValueError, OverflowError):
                seconds = _seconds_until(value) if value[:1].isalpha() else float(value) * unit
                if 0 <= seconds <= 3600:  # noqa: PLR2004 - an hour: more is as good as never
                    return seconds
        return None

    async def read(self) -> bytes:
        """The bytes that have arrived, as soon as there are any; b"" at the end of the body.

        Raises BackendLost or BackendProtocolError where the connection broke, after the bytes that came before.
        """
        if self._failure is not None:
            raise error_of_exception(self._failure) from self._failure
        try:
            return await self._content.readany()
        except FOREIGN_ERRORS as error:
            late = self._content._read_nowait(-1)
            if not late:
                raise error_of_exception(error) from error
            self._failure = error
            return late
        except RuntimeError as error:  # aiohttp tells the connection, and not the body, that its framing was nonsense
            raise _no_http() from error

    async def read_all(self, limit: int) -> bytes:
        """The whole body. Raises as `read`, and BackendProtocolError where it is longer than `limit` bytes."""
        body = bytearray()
        while data := await self.read():
            body += data
            if len(body) > limit:
                raise BackendProtocolError("The backend sent a body that is larger than the gateway takes.")
        return bytes(body)

    @property
    def at_end(self) -> bool:
        """Whether the body has ended, as far as it arrived."""
        return self._content.is_eof()

    def close(self) -> None:
        """Close the connection at once, unless the body was read to its end: then it is kept for the next request."""
        self._aiohttp.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


def _seconds_until(date: str) -> float:
    """How far a date of HTTP is away; 0 where it has passed. Raises ValueError where it is none."""
    moment = parsedate_to_datetime(date)
    if moment.tzinfo is None:  # "-0000": a time of nowhere
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _host_header(host: str, url: URL) -> str:
    return host if url.is_default_port() else f"{host}:{url.port}"


class _TimedResolver(AbstractResolver):
    """Looks names up, in no more than `timeout` seconds: a timer for each lookup, and not for each request."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a host, of any family. Raises OSError."""
        try:
            async with asyncio.timeout(self._timeout):
                found = await look_up(host)
        except TimeoutError as error:
            raise OSError(errno.ETIMEDOUT, "the name was not resolved in time") from error
        return [
            ResolveResult(hostname=host, host=ip, port=port, family=of, proto=socket.IPPROTO_TCP, flags=NUMERIC)
            for of, ip in found
        ]

    async def close(self) -> None:
        """Nothing is open: whoever still waits, the connector cancels."""


def _session(connect_timeout: float) -> aiohttp.ClientSession:
    """A session without a limit of connections (ours is the admission's), cookies, proxies or decompression."""
    connector = aiohttp.TCPConnector(
        limit=0, keepalive_timeout=KEEP_ALIVE, ttl_dns_cache=10, resolver=_TimedResolver(connect_timeout)
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        read_bufsize=READ_BUFFER,
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
    )


FOREIGN_ERRORS = (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, OSError, UnicodeError)
"""What the libraries raise; the last one is a resolver's, for a host that is no name."""


@contextlib.contextmanager
def map_errors() -> Iterator[None]:
    """Turn what httpx and aiohttp raise into our errors, the cause kept."""
    try:
        yield
    except FOREIGN_ERRORS as error:
        raise error_of_exception(error) from error


def error_of_exception(error: Exception) -> GatewayError:
    """Our error for one of httpx's or aiohttp's; the most specific class wins."""
    cause = error.__cause__ if isinstance(error, httpx.HTTPError) and error.__cause__ is not None else error
    for kinds, make in ERRORS:
        if isinstance(cause, kinds):
            return make()
    return BackendLost("The connection to the backend broke.")


def _unreachable() -> GatewayError:
    return NoHealthyBackend("The backend cannot be reached.")


def _no_http() -> GatewayError:
    return BackendProtocolError("The backend's answer is not HTTP.")


ERRORS = (
    # Refused, DNS, TLS, no answer, no name that a resolver takes.
    ((aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, UnicodeError), _unreachable),
    ((aiohttp.ClientResponseError, aiohttp.InvalidURL, httpx.InvalidURL, httpx.UnsupportedProtocol), _no_http),
)
