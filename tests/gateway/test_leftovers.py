# SPDX-License-Identifier: Apache-2.0
"""What a call has made goes when it ends, and not when the garbage collector looks: by then it would be of hundreds of
calls, each with its prompt.
"""

from __future__ import annotations

import gc
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from llm_gateway.simulator import Behaviour, Fault, Simulator
from tests.kit.calls import stream, until
from tests.kit.gateway import start_gateway_of

if TYPE_CHECKING:
    from collections.abc import Iterator

OF_A_CALL = ("Attempts", "Call", "ClientResponse", "Generation", "Lease", "OpenAIAnswer", "Relay", "Watchdog")


@contextmanager
def leftovers() -> Iterator[Counter[str]]:
    """What only the collector can free of all that is made meanwhile, by class; known at the end."""
    found: Counter[str] = Counter()
    gc.collect()
    gc.freeze()  # what other tests have left is not looked at
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found.update(type(each).__name__ for each in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        gc.unfreeze()


@pytest.mark.parametrize("fault", [None, Fault.HTTP], ids=["served at once", "served elsewhere"])
async def test_a_call_that_has_ended_leaves_nothing_for_the_collector(fault: Fault | None) -> None:
    async with Simulator() as a, Simulator() as b:
        replicas = [{"name": name, "url": each.url, "model": "sim"} for name, each in (("a", a), ("b", b))]
        async with start_gateway_of([{"name": "llama", "backends": replicas}]) as gateway:
            await stream(gateway, max_tokens=1)
            with leftovers() as found:
                for _ in range(10):
                    if fault is not None:
                        a.script(Behaviour(fault=fault, status=500))
                    await stream(gateway, max_tokens=3)
                await until(lambda: not gateway.server.in_flight)

    assert {name: found[name] for name in OF_A_CALL if found[name] > 1} == {}
