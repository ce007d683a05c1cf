# SPDX-License-Identifier: Apache-2.0
"""What a caller of a stream sees when all goes well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.kit.calls import stream

if TYPE_CHECKING:
    from tests.kit.gateway import RunningGateway


async def test_a_stream_starts_then_brings_the_text_then_completes(gateway: RunningGateway) -> None:
    outcome = await stream(gateway, max_tokens=5)

    assert outcome.failure is None
    assert outcome.text() == " one night a small star"
    assert outcome.finish() == "LENGTH"
    assert outcome.completed.usage.completion_tokens == 5
