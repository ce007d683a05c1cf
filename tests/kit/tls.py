# SPDX-License-Identifier: Apache-2.0
"""Certificates for loopback, good and bad ones, made by the openssl command."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

LOOPBACK = "IP:127.0.0.1"
KEY_KIND = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """Signs certificates; `certificate` is its own. Everything is in `directory`, which is made."""

    def __init__(self, directory: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("there is no openssl command to make certificates with")
        directory.mkdir()
        self._directory = directory
        self.certificate = directory / "authority.pem"
        self._key = directory / "authority.key"
        _openssl("req", "-x509", *KEY_KIND, "-subj", "/CN=tests", "-days", "2", "-keyout", self._key,
                 "-out", self.certificate)  # fmt: skip

    def context(self, *, days: int = 1, name: str = LOOPBACK) -> ssl.SSLContext:
        """A server's context with a certificate for `name` that is valid for so many days; 0: it has expired."""
        key, request, signed, extensions = (self._directory / f"{kind}{days}" for kind in ("key", "csr", "pem", "ext"))
        extensions.write_text(f"subjectAltName={name}\n")
        _openssl("req", *KEY_KIND, "-subj", "/CN=127.0.0.1", "-keyout", key, "-out", request)
        _openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key, "-days", str(days or -1),
                 "-extfile", extensions, "-out", signed)  # fmt: skip
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(signed, key)
        return context


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
