# SPDX-License-Identifier: Apache-2.0
"""Looks names up, each by a thread of its own, and by one only, however many ask for it and however often.

A lookup cannot be ended, only left. The event loops have pools for them, of a few threads: one name whose lookup hangs,
asked for again and again, takes them all, so that no other name is found any more; and no process ends before they do.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from concurrent.futures import Future
from threading import Thread

Address = tuple[socket.AddressFamily, str]
Found = tuple[Address, ...]
NUMERIC = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV

UNDER_WAY: dict[str, Future[Found]] = {}
"""By name, in the whole process: threads know no loop, and names come from the configuration alone, so that the names
are the limit of the threads.
"""


async def look_up(name: str) -> Found:
    """The addresses behind a name, with their families, in the order of the system's resolver; an address is itself.

    They are of families that this machine has. Raises OSError, or UnicodeError for what can be no name. It takes as
    long as the resolver likes: whoever has waited long enough may leave.
    """
    address = _address(name)
    return (address,) if address is not None else await asyncio.wrap_future(_lookup(name))


def _address(name: str) -> Address | None:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return None
    return socket.AF_INET if address.version == 4 else socket.AF_INET6, str(address)  # noqa: PLR2004 - IPv4


def _lookup(name: str) -> Future[Found]:
    """The lookup of a name that is under way, else a new one."""
    new: Future[Found] = Future()
    lookup = UNDER_WAY.setdefault(name, new)
    if lookup is new:
        lookup.set_running_or_notify_cancel()  # from now on nobody who leaves can cancel it for the others
        try:
            Thread(target=_run, args=(name, lookup), name=f"look-up {name}", daemon=True).start()
        except RuntimeError:
            del UNDER_WAY[name]
            lookup.set_exception(OSError(errno.EAGAIN, "there is no thread to look the name up"))
    return lookup


def _run(name: str, lookup: Future[Found]) -> None:
    try:
        found = _found(name)
    except Exception as error:  # whatever it is, it is theirs who wait
        del UNDER_WAY[name]  # before they are told: who asks again then must not be given this answer
        lookup.set_exception(error)
    else:
        del UNDER_WAY[name]
        lookup.set_result(found)


def _found(name: str) -> Found:
    answer = socket.getaddrinfo(
        name, None, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_ADDRCONFIG
    )
    # A link-local address is none without its scope, which only getnameinfo writes; it asks nobody.
    return tuple((family, socket.getnameinfo(address, NUMERIC)[0]) for family, *_, address in answer)
