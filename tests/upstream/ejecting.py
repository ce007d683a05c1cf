# SPDX-License-Identifier: Apache-2.0
"""What may befall an endpoint's ejection, in a word each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_gateway.upstream.ejection import EjectionPolicy, FailureKind, Health

if TYPE_CHECKING:
    from llm_gateway.backends.base import Readiness
    from llm_gateway.upstream.ejection import Ejection

POLICY = EjectionPolicy(jitter=0.0)


def fail(ejection: Ejection, *kinds: FailureKind, spared: bool = False) -> bool:
    """Calls that fail one after another; whether the last one ejected it."""
    ejected = [ejection.failed(kind, spared=spared, term=ejection.began()) for kind in kinds]
    return ejected[-1]


def break_off(ejection: Ejection, times: int, *, spared: bool = False) -> bool:
    """Answers that break off behind their first token; whether the last one ejected it."""
    ejected = False
    for _ in range(times):
        term = ejection.began()
        ejection.succeeded(term)
        ejected = ejection.failed(FailureKind.ANSWER, spared=spared, term=term, broken=True)
    return ejected


def probe(ejection: Ejection, *findings: Readiness, spared: bool = False) -> None:
    """Probes, one after another."""
    for finding in findings:
        ejection.probed(finding, spared=spared)


def eject(ejection: Ejection, kind: FailureKind) -> None:
    """As many failures as it takes."""
    fail(ejection, *[kind] * (3 if kind is FailureKind.LOCAL else 5))

    assert ejection.health is Health.EJECTED
