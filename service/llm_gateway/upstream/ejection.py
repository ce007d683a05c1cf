# SPDX-License-Identifier: Apache-2.0
"""Whether one endpoint is asked at all: ejected for its failures, let back on probation, sound again by one success.

The rules, in the order in which they apply:

1. Failures in a row eject: `local_failures` that never reached it, or `answer_failures` of whatever kind. A success, a
   first token, ends that row, but not that of the answers which broke off behind it: `answer_failures` of these eject
   too, unless one between them ended well. Bad and slow answers never eject the last healthy endpoint of a model: a
   poor answer is better than none. That it cannot be reached does.
2. An ejection ends by time, each further one in a row a little later, and never more than 1.2 x `longest` after the
   call that proved the endpoint ill was *begun*. Then it is on probation: one call is its trial. A success makes it
   sound, a failure ejects it again, an end from our own side gives the trial back. A trial without an outcome after
   `longest` holds up nobody: another may begin. Where there is nobody else, what the last probe found ready takes
   calls beside its trial; they count as the trial does.
3. Many calls are under way at once, and a failure says how the endpoint was when its call began. So each call is of a
   *term*, and a term ends with an ejection, with loading and when a trial begins. A failure of an earlier term counts
   for nothing, and neither does a success of a call begun before the ejection. But that of a trial which took so long
   that another was begun does: else an endpoint that is slow to its first token would never return.
4. A probe does not exercise the path of the data. So it ends an ejection for failures to *reach* the endpoint, or by
   probes, but never one for bad or slow answers; and it does not eject what answers calls between two probes. What
   it said is heeded for `longest`, then time goes on: a prober that stops locks nobody out.
5. Silence is not death: one that is slow to answer a probe may have much to do. It ejects only what is healthy, never
   the last one, and prolongs no ejection. So a trial comes by time, and a call shows what the probes cannot.

With probes every two seconds, an endpoint can thus be asked again within 15 s of its recovery, whatever happened.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from llm_gateway.backends.base import Readiness
from llm_gateway.deadline import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable


class Health(StrEnum):
    """What is thought of an endpoint."""

    HEALTHY = "healthy"
    EJECTED = "ejected"
    PROBATION = "probation"
    """Its ejection is over, and one call shows whether it is well again."""
    LOADING = "loading"
    """It says that its model is not there yet."""


class FailureKind(StrEnum):
    """How an attempt failed."""

    LOCAL = "local"
    """The endpoint could not be reached."""
    ANSWER = "answer"
    """It was reached, and failed."""
    SLOW = "slow"
    """It gave no first token in time, or fell silent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EjectionPolicy:
    """When an endpoint is ejected, and for how long: times in seconds, failures and probes in a row."""

    local_failures: int = 3
    answer_failures: int = 5
    probe_failures: int = 3
    base: float = 2.0
    """The first ejection; each further one in a row is as much longer."""
    longest: float = 10.0
    jitter: float = 0.2
    """Each is longer or shorter by up to this share, so that gateways do not return all at once."""


def _nobody() -> None:
    """Nobody wants to know."""


class Ejection:
    """The state of one endpoint.

    `on_change` is called whenever `available` may have changed for another reason than time; for what time alone
    changes, and when, there is `changes_at`. Nothing is computed, and no clock is read, while all is well.
    """

    __slots__ = (
        "_after_loading",
        "_broken",
        "_clock",
        "_curable",
        "_down",
        "_ejections",
        "_failures",
        "_local",
        "_on_change",
        "_policy",
        "_ready",
        "_returned_at",
        "_shut_term",
        "_silent",
        "_since",
        "_state",
        "_trial",
        "_uniform",
        "changes_at",
        "ejections",
        "term",
    )

    def __init__(
        self,
        policy: EjectionPolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
        on_change: Callable[[], None] = _nobody,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._uniform = uniform
        self._on_change = on_change
        self.term = 0
        """To be told with the outcome of what begins now."""
        self.ejections = 0
        """Of all time, those by probes too."""
        self.changes_at = NEVER
        """When, on the clock, health or availability changes next by itself."""
        self._state = Health.HEALTHY
        self._shut_term = 0  # the first one since it was ejected, or began to load
        self._since = -NEVER  # when the call that decides was begun: the trial
        self._trial = False
        self._curable = False  # by a probe
        self._ejections = 0  # in a row
        self._returned_at = -NEVER
        self._failures = 0  # in a row, and so are those below
        self._local = 0
        self._broken = 0
        self._down = 0
        self._silent = 0  # or down
        self._ready = False
        self._after_loading = Health.HEALTHY

    @property
    def health(self) -> Health:
        """What is so now; time alone turns EJECTED into PROBATION."""
        self._pass_time()
        return self._state

    def ejected_for(self) -> float | None:
        """Seconds until its ejection ends by itself; None where it is not ejected."""
        return max(0.0, self.changes_at - self._clock()) if self.health is Health.EJECTED else None

    def available(self) -> bool:
        """Whether a call may be sent to it: it is healthy, or its trial is open."""
        if self._state is Health.HEALTHY:
            return True
        return self.health is Health.PROBATION and not self._trial

    @property
    def consecutive_failures(self) -> int:
        """In the longer row: of failures since the last first token, of answers that broke off since one was whole."""
        return max(self._failures, self._broken)

    @property
    def dead(self) -> bool:
        """Whether probe after probe found it down or silent, and nothing has been well since."""
        return self._silent >= self._policy.probe_failures

    @property
    def better_than_nobody(self) -> bool:
        """Whether calls may be sent to it beside its trial: its last probe found it ready."""
        return self._ready and self.health is Health.PROBATION

    # ------------------------------------------------------------------------------------------------------- the calls

    def began(self) -> int:
        """A call is sent to it: on probation this is the trial. Gives the call's term, to be told with its outcome."""
        if self._state is not Health.HEALTHY:
            self._begin_trial()
        return self.term

    def succeeded(self, term: int) -> bool:
        """It gave a first token; gives whether that made it healthy. What stays are the answers that broke off, and
        how often it was ejected; the latter is forgotten once it stays well.
        """
        if term < self._shut_term:
            return False
        self._failures = self._local = self._down = self._silent = 0
        if self._state is Health.HEALTHY:
            return False
        self._become_healthy()
        return True

    def completed(self, term: int) -> None:
        """It ended an answer well."""
        if term >= self._shut_term:
            self._broken = 0

    def failed(self, kind: FailureKind, *, spared: bool, term: int, broken: bool = False) -> bool:
        """An attempt failed; gives whether that ejected it. `spared`: no other endpoint of its model is healthy.
        `broken`: it had given its first token.
        """
        if term != self.term or self._state not in {Health.HEALTHY, Health.PROBATION}:
            return False
        self._failures += 1
        self._broken += broken
        self._local = self._local + 1 if kind is FailureKind.LOCAL else 0
        if self._state is Health.HEALTHY:
            return self._is_too_much(spared=spared) and self._eject(kind, self._clock())
        if spared and kind is not FailureKind.LOCAL:
            self._become_healthy()  # it can be reached, and more is not asked of the last one
            return False
        return self._eject(kind, self._since)

    def abandoned(self, term: int) -> None:
        """The attempt ended from our side, or the endpoint was busy: it blames nobody, and the trial is open again."""
        if self._trial and term == self.term:
            self._open_trial()
            self._on_change()

    # ------------------------------------------------------------------------------------------------------ the probes

    def probed(self, readiness: Readiness, *, spared: bool) -> None:
        """What an active probe found. `spared`: no other endpoint of its model is healthy."""
        ready = readiness is Readiness.READY
        if ready is not self._ready:
            self._ready = ready
            self._on_change()
        self._down = self._down + 1 if readiness is Readiness.DOWN else 0
        self._silent = self._silent + 1 if readiness in {Readiness.DOWN, Readiness.SILENT} else 0
        if ready:
            self._found_ready()
        elif readiness is Readiness.LOADING:
            self._found_loading()
        elif self._down >= self._policy.probe_failures:
            self._found_down()
        elif self.dead and not spared and self._state is Health.HEALTHY:
            self._shut(Health.EJECTED, self._heeded_until())
            self._curable = True

    def _found_ready(self) -> None:
        if self._state is Health.LOADING and self._after_loading is Health.HEALTHY:
            self._become_healthy()
        elif self._state is Health.LOADING or (self._state is Health.EJECTED and self._curable):
            self._open_trial()
            self._on_change()

    def _found_loading(self) -> None:
        if self._state is not Health.LOADING:
            self._after_loading = Health.HEALTHY if self._state is Health.HEALTHY else Health.PROBATION
            self._shut(Health.LOADING, self._heeded_until())
        self.changes_at = self._heeded_until()

    def _found_down(self) -> None:
        if self._state is not Health.EJECTED:
            self._shut(Health.EJECTED, self._heeded_until())
        self._curable = True
        self.changes_at = max(self.changes_at, self._heeded_until())

    def _heeded_until(self) -> float:
        return self._clock() + self._policy.longest

    # ------------------------------------------------------------------------------------------------- changes of state

    def _is_too_much(self, *, spared: bool) -> bool:
        if self._local >= self._policy.local_failures:
            return True
        return not spared and max(self._failures, self._broken) >= self._policy.answer_failures

    def _pass_time(self) -> None:
        """Ejected for long enough, loading for too long without a word, a trial without an outcome: try (again)."""
        if self.changes_at < NEVER and self._clock() >= self.changes_at:
            self._open_trial()

    def _open_trial(self) -> None:
        self._state = Health.PROBATION
        self._trial = False
        self.changes_at = NEVER

    def _begin_trial(self) -> None:
        self._pass_time()
        if self._state is not Health.PROBATION or self._trial:
            return
        self._trial = True
        self.term += 1
        self._since = self._clock()
        self.changes_at = self._since + self._policy.longest
        self._on_change()

    def _become_healthy(self) -> None:
        self._state = Health.HEALTHY
        self._trial = False
        self.changes_at = NEVER
        self._returned_at = self._clock()
        self._on_change()

    def _eject(self, kind: FailureKind, since: float) -> bool:
        """Eject it for a time that began with `since`; gives whether any of that is left."""
        policy, now = self._policy, self._clock()
        if self._state is Health.HEALTHY and now - self._returned_at >= policy.longest:
            self._ejections = 0
        self._ejections += 1
        spread = self._uniform(1 - policy.jitter, 1 + policy.jitter)
        self._curable = kind is FailureKind.LOCAL
        self._shut(Health.EJECTED, since + min(policy.longest, policy.base * self._ejections) * spread)
        return now < self.changes_at

    def _shut(self, state: Health, until: float) -> None:
        self.ejections += state is Health.EJECTED
        self._state = state
        self._trial = False
        self.term = self._shut_term = self.term + 1
        self._since = self._clock()
        self.changes_at = until
        self._on_change()
