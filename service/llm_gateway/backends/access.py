# SPDX-License-Identifier: Apache-2.0
"""What an address and a key must be like to reach a backend, wherever they are configured. Raises ValueError."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

import httpx

NO_BLANKS = re.compile(r"[!-~]*\Z")


def backend_url(url: str, *, key_setting: str) -> str:
    """A backend's address without the `/v1` that people write at its end; `key_setting` is where its key belongs."""
    url = url.strip()
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or not NO_BLANKS.match(url):
        raise ValueError("must be an http:// or https:// address")
    if parts.username or parts.password:
        raise ValueError(f"must not have credentials in it; use {key_setting}")
    _check_port(parts)
    if not _has_host(url, parts.hostname):
        raise ValueError("must have a host that is a name or an IP address")
    if parts.query or parts.fragment:
        raise ValueError("must not have a query or a fragment")
    return url.rstrip("/").removesuffix("/v1")


def header_key(key: str) -> str:
    """A key without the line end that files and shells leave on it."""
    stripped = key.strip()
    if not NO_BLANKS.match(stripped):
        raise ValueError("must be printable ASCII without blanks: it goes into an HTTP header")
    return stripped


def _check_port(parts: SplitResult) -> None:
    """Refuse what is no port, in words of our own: those of urllib quote it, and it may be part of a password."""
    try:
        port = parts.port
    except ValueError:
        raise ValueError("must have a port from 1 to 65535, or none") from None
    if port == 0:
        raise ValueError("must not have port 0")


def _has_host(url: str, host: str) -> bool:
    """Whether those who connect would look for its host at all: the HTTP client, and then the resolver."""
    try:
        httpx.URL(url)
        host.encode("idna")
    except (httpx.InvalidURL, UnicodeError):
        return False
    return True
