# SPDX-License-Identifier: Apache-2.0
"""Addresses that never answer, and what the kernel knows of connections to them."""

from __future__ import annotations

import socket
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SYN_SENT = "02"


@contextmanager
def deaf_listener() -> Iterator[int]:
    """A port on loopback that takes no connection: its queue is full, so that the kernel drops every SYN."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        while True:
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
            if connecting_to(address[1]):
                filler.close()  # the first that found the queue full
                break
        yield address[1]


@contextmanager
def closed_port() -> Iterator[int]:
    """A port on loopback that refuses every connection, and that nobody else gets meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def connecting_to(port: int) -> int:
    """How many sockets of this machine try to connect to a port of loopback."""
    remote = f"0100007F:{port:04X}"
    rows = Path("/proc/self/net/tcp").read_text().splitlines()[1:]
    return sum(row.split()[2] == remote and row.split()[3] == SYN_SENT for row in rows)
