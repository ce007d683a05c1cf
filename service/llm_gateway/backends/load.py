# SPDX-License-Identifier: Apache-2.0
"""How busy a backend says it is: three gauges of a page of metrics, whose other hundred kilobytes are not parsed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llm_gateway.backends.base import Load

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from llm_gateway.backends.dialect import LoadFamilies


def load_of(page: bytes, families: LoadFamilies, models: Collection[str]) -> Load | None:
    """The load of these models, over all engines; None where the page does not tell.

    A backend behind one address may be several engines: what runs and waits is added up, of the cache usage the
    greatest counts. A sample without the label `model_name` is of the whole backend.
    """
    page = b"\n" + page  # so that every line begins alike
    labels = [b'model_name="%s"' % _escaped(model) for model in models]
    running = _values(page, families.running, labels)
    waiting = _values(page, families.waiting, labels)
    if not running or not waiting:
        return None
    usage = max(_values(page, families.kv_usage, labels), default=None)
    return Load(int(sum(running)), int(sum(waiting)), None if usage is None else min(max(usage, 0.0), 1.0))


def _values(page: bytes, family: bytes, labels: list[bytes]) -> list[float]:
    return [value for line in _samples(page, family) if (value := _value(line, labels)) is not None]


def _samples(page: bytes, family: bytes) -> Iterator[bytes]:
    """What follows the name in each of a family's lines. Names that only begin like it are others'."""
    name = b"\n" + family
    at = page.find(name)
    while at >= 0:
        start = at + len(name)
        end = page.find(b"\n", start)
        line = page[start : end if end >= 0 else len(page)]
        if line.startswith((b"{", b" ")):
            yield line
        at = page.find(name, start)


def _value(line: bytes, labels: list[bytes]) -> float | None:
    """A sample's value; None where it is another model's or none to reckon with."""
    named, _, rest = line.rpartition(b"}")
    if b"model_name=" in named and not any(label in named for label in labels):
        return None
    try:
        value = float(rest.split()[0])
    except (ValueError, IndexError):
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _escaped(label: str) -> bytes:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").encode()
