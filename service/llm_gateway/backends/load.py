# SPDX-License-Identifier: Apache-2.0
"""How busy a backend says it is: three gauges of a page of metrics, whose other hundred kilobytes are not parsed."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING

from llm_gateway.backends.base import Load

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from llm_gateway.backends.dialect import LoadFamilies

MAX_SAMPLES = 1_000
"""Samples of one family. No server has so many engines, and to read more of them would hold up all calls."""
MAX_VALUE = 2**31
MODEL_NAME = re.compile(rb'[{,]\s*model_name="([^"\\]*(?:\\.[^"\\]*)*)"')


def load_of(page: bytes, families: LoadFamilies, models: Collection[str]) -> Load | None:
    """The load of these models, over all engines; None where the page does not tell, or tells too much.

    A backend behind one address may be several engines: what runs and waits is added up, of the cache usage the
    greatest counts. A sample without the label `model_name` is of the whole backend.
    """
    page = b"\n" + page  # so that every line begins alike
    names = {_escaped(model) for model in models}
    running = _values(page, families.running, names)
    waiting = _values(page, families.waiting, names)
    if not running or not waiting:
        return None
    usage = max(_values(page, families.kv_usage, names), default=None)
    return Load(int(sum(running)), int(sum(waiting)), None if usage is None else min(usage, 1.0))


def _values(page: bytes, family: bytes, names: set[bytes]) -> list[float]:
    """The values of a family's samples of these models; none where it has more than MAX_SAMPLES."""
    lines = list(islice(_samples(page, family), MAX_SAMPLES + 1))
    if len(lines) > MAX_SAMPLES:
        return []
    return [value for line in lines if (value := _value(line, names)) is not None]


def _samples(page: bytes, family: bytes) -> Iterator[bytes]:
    """What follows the name in each of a family's lines. Names that only begin like it are others'."""
    for name in (b"\n%s{" % family, b"\n%s " % family):
        at = page.find(name)
        while at >= 0:
            start = at + len(name) - 1
            end = page.find(b"\n", start)
            yield page[start : end if end >= 0 else len(page)]
            at = page.find(name, start)


def _value(line: bytes, names: set[bytes]) -> float | None:
    """A sample's value; None where it is another model's or none to reckon with."""
    labels, _, rest = line.rpartition(b"}")
    named = MODEL_NAME.search(labels)
    if named is not None and named[1] not in names:
        return None
    try:
        value = float(rest.split(maxsplit=1)[0])
    except (ValueError, IndexError):
        return None
    return value if 0 <= value <= MAX_VALUE else None  # NaN is not


def _escaped(label: str) -> bytes:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").encode()
