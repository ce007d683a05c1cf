# SPDX-License-Identifier: Apache-2.0
"""Relays one answer from a backend to a caller: the commit point, the merging, the timers, the one ending.

There is one task, and no queue. While a write waits for the caller, what the backend sends waits in the socket's
bounded buffer; the next read brings it all, and it leaves as one delta for each run of a choice. So deltas are merged
only if they came while a write was in flight, or together; and a caller who stops reading stops the reading from the
backend.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

from llm_gateway.deadline import NEVER, TimeLimitReached
from llm_gateway.errors import (
    BackendError,
    DeadlineExceeded,
    GatewayError,
    Interrupted,
    StreamError,
    StreamInterrupted,
    StreamStalled,
)
from llm_gateway.gateway.hedge import Race
from llm_gateway.generation import (
    Attempt,
    AttemptOutcome,
    Completed,
    Finish,
    FinishReason,
    Piece,
    Started,
    Usage,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from llm_gateway.backends.base import AnswerStream
    from llm_gateway.deadline import Watchdog
    from llm_gateway.gateway.attempts import Attempts
    from llm_gateway.generation import Generation
    from llm_gateway.observability.call import Call
    from llm_gateway.upstream.pool import Lease
    from llm_gateway.upstream.spec import Timeouts

Event = Started | Piece | Completed


class Writer(Protocol):
    """Takes an answer to its caller."""

    async def begin(self) -> None:
        """Say that an answer comes. It is not broken off: gRPC could not send a status behind half of it."""

    async def write(self, event: Event) -> None:
        """Write one event; returns when the caller's flow control lets it."""


class UsageMissingError(Exception):
    """The usage did not come; the answer is whole without it."""


class Relay:
    """The events of one call, over as many attempts as it takes. `committed` once an event was written.

    `max_stall` is how long the caller may take for one event, in seconds.
    """

    def __init__(
        self, generation: Generation, call: Call, watchdog: Watchdog, writer: Writer, *, max_stall: float
    ) -> None:
        self._generation = generation
        self._stopwatch = call.stopwatch
        self._writer = writer
        self._max_stall = max_stall
        self._lease: Lease | None = None
        self._race: Race | None = None
        self._stream: AnswerStream | None = None
        self._held: list[Piece] = []
        self._held_bytes = 0
        self._flush_at = 0.0
        self._interval = generation.stream_options.min_flush_interval
        self._began: float | None = None
        self._completed = False
        self.call = call
        self.watchdog = watchdog
        self.committed = False

    @property
    def _timeouts(self) -> Timeouts:
        assert self._lease is not None, "an attempt is under way"  # noqa: S101 - narrows the type
        return self._lease.timeouts

    @property
    def attempts(self) -> int:
        """How many attempts were made."""
        return len(self.call.attempts)

    def hedge(self, attempts: Attempts, *, after: float) -> None:
        """Have a second backend asked as well where the first token does not come within `after` seconds."""
        self._race = Race(attempts, after=after, open_stream=self._open, on_second=self._expect_first_token)

    async def attempt(self, lease: Lease) -> None:
        """One try at a backend, to the answer's end.

        Raises what went wrong, as it is called before or after the commit point, or TimeLimitReached.
        """
        self._began = lease.began
        self._lease = lease
        self._stream = None
        self._held = []
        try:
            await self._serve(lease)
        except TimeLimitReached as reached:
            self._settle_race(reached)
            raise
        except GatewayError as error:
            if self._completed:
                return
            self._settle_race(error)
            self._record(error)
            raise (after_commit(error) if self.committed else error) from error.__cause__
        except BaseException as error:
            self._settle_race(error)
            self._record(None)
            raise
        finally:
            if self._stream is not None:
                await self._stream.close()

    async def end_early(self) -> None:
        """End the answer well where it is: the caller's `time_limit` is up. The backend's connection is closed."""
        stream = self._stream if self._began is not None else None  # between two attempts there is none
        if stream is None:
            self._held = self._empty_ends()
        else:
            self._held += stream.time_limit()
        try:
            with self.watchdog:
                await self._complete(AttemptOutcome.CANCELLED if stream is None else AttemptOutcome.SERVED)
        except GatewayError as error:
            if self._completed:
                return
            self._record(error)
            raise

    async def _serve(self, lease: Lease) -> None:
        """Open, relay, complete. A usage that does not come ends the waiting for it, and nothing else."""
        try:
            self._expect_first_token(lease)
            with self.watchdog:
                await self._begin(lease)
                await self._relay()
        except UsageMissingError:
            assert self._stream is not None, "its answer is whole"  # noqa: S101 - narrows the type
            self._held += self._stream.settle()
        except (BackendError, StreamError):
            await self._flush_held()
            raise
        with self.watchdog:
            await self._complete()

    async def _begin(self, lease: Lease) -> None:
        """Open the answer. With a race, that is when something is in it, and perhaps of another backend."""
        self._stopwatch.wait()
        race = self._race
        try:
            if race is None:
                self._stream = await self._open(lease)
                return
            self._stream, pieces = await race.run()
        finally:
            now = self._stopwatch.upstream_done()
            if race is not None:
                self._follow(race.leader)
        if pieces:
            self._stopwatch.arrived(now)
        await self._deliver(pieces, now)

    def _expect_first_token(self, lease: Lease) -> None:
        # Beams do not stream: their first token comes with their last, and only the deadline can say when that is late.
        beams = self._generation.sampling.get("use_beam_search")
        self.watchdog.expect(NEVER if beams else lease.began + lease.patience, lease.on_late or lease.late)

    def _follow(self, leader: Lease) -> None:
        """The attempt that counts is that of whoever leads the race."""
        self._lease, self._began = leader, leader.began
        endpoint = leader.endpoint
        self.call.backend, self.call.address = endpoint.spec.name, endpoint.address.url

    def _settle_race(self, error: BaseException) -> None:
        if self._race is not None:
            self._race.settle(error)

    def _open(self, lease: Lease) -> Awaitable[AnswerStream]:
        return lease.endpoint.backend.open(self._generation, lease.model, self.call.request_id)

    async def _relay(self) -> None:
        """Read until nothing more comes. The hot loop: one step for each read, and no more than it needs."""
        stream, watchdog, stopwatch = self._stream, self.watchdog, self._stopwatch
        assert stream is not None, "opened before"  # noqa: S101 - narrows the type
        self.call.spent = stream.usage
        idle = self._timeouts.idle
        idle_until: float | None = None  # None: something has come since the timer was set, or it never was
        while not stream.finished:
            now = stopwatch.wait()
            if stream.whole:
                return await self._read_usage(stream, now)
            if self.committed:
                idle_until = idle_until or now + idle
                watchdog.extend(idle_until)
            pieces = await (stream.read() if not self._held or not self.committed else self._read_until_flush())
            now = stopwatch.upstream_done()
            if pieces is not None:
                idle_until = None
                if pieces:
                    stopwatch.arrived(now)
            if pieces or self._held:
                await self._deliver(pieces or [], now)
        return None

    async def _read_usage(self, stream: AnswerStream, now: float) -> None:
        """Read what comes after the last end, for a while: the usage, and ends that waited for it."""
        until = now + self._timeouts.usage
        if self.committed:
            await self._send_held()  # all its text is here
        while not stream.finished:
            self.watchdog.expect(until, _no_usage)
            self._stopwatch.wait()
            pieces = await stream.read()
            await self._deliver(pieces, self._stopwatch.upstream_done())

    async def _deliver(self, pieces: list[Piece], now: float) -> None:
        if not self.committed:
            self._held += pieces
            if any(piece.has_content for piece in self._held):
                assert self._lease is not None, "an attempt is under way"  # noqa: S101 - narrows the type
                self._lease.answered(now - self._lease.began)
                await self._commit()
            return
        if self._interval:
            self._held += pieces
            self._held_bytes += sum(piece.size for piece in pieces)
            full = self._held_bytes >= self._generation.stream_options.max_merge_bytes
            if now < self._flush_at and not full:
                return
            pieces, self._held, self._held_bytes = self._held, [], 0
            self._flush_at = now + self._interval
        await self._send(pieces)

    async def _commit(self) -> None:
        """Write Started and, alone, the first piece with something in it; then what came with it."""
        pieces, self._held = self._held, []
        await self._start()
        opening, pieces = _opening(pieces)
        if opening:
            await self._emit(Piece.joined(opening))
        self._flush_at = time.monotonic() + self._interval
        if self._interval:
            self._held, self._held_bytes = pieces, sum(piece.size for piece in pieces)
        elif pieces:
            await self._send(pieces)
        self.watchdog.expect(NEVER, _silent)  # the next read, if there is one, says until when

    async def _flush_held(self) -> None:
        """Deliver what a backend sent before it failed, though the caller's interval still held it back."""
        if self.committed and self._held:
            with self.watchdog:
                await self._send_held()

    async def _send_held(self) -> None:
        pieces, self._held, self._held_bytes = self._held, [], 0
        if pieces:
            await self._send(pieces)

    async def _start(self) -> None:
        self.committed = True
        self.watchdog.defer()
        await self._writer.begin()
        self.watchdog.resume()
        model = self._stream.model if self._stream is not None else None
        call, lease = self.call, self._lease
        if lease is None:  # the time limit was up before anybody was asked
            await self._emit(Started(call.model or "", call.backend or "", self.attempts))
            return
        backend = lease.endpoint.spec.name
        await self._emit(Started(model or lease.model, backend, self.attempts + (self._began is not None)))

    async def _send(self, pieces: list[Piece]) -> None:
        """Write pieces, neighbours of one choice as one."""
        if len(pieces) == 1:
            await self._emit(pieces[0])
            return
        start = 0
        for end in range(1, len(pieces) + 1):
            if end == len(pieces) or pieces[end].index != pieces[start].index:
                run = pieces[start:end]
                # An end without anything else in it is not a delta that was merged away.
                self.call.merged += sum(piece.has_content for piece in run[1:])
                await self._emit(Piece.joined(run) if len(run) > 1 else run[0])
                start = end

    async def _emit(self, event: Event) -> None:
        self.watchdog.hold(self._stopwatch.wait() + self._max_stall)
        try:
            await self._writer.write(event)
        finally:
            self._stopwatch.client_done()

    async def _complete(self, outcome: AttemptOutcome = AttemptOutcome.SERVED) -> None:
        """Write what is left, and Completed."""
        call = self.call
        if not self.committed:
            await self._commit()
        await self._send_held()
        call.usage = self._cost()
        attempts = (*call.attempts, *self._ended(outcome, None))
        call.attempts[:] = attempts
        self._began = None
        # From here on the answer has its one good ending. What still passes, a deadline or the grace of a drain, while
        # this write waits for the caller, must not put a bad status behind it.
        self._completed = True
        await self._emit(Completed(call.usage, call.stopwatch.timing(), attempts, call.merged))

    async def _read_until_flush(self) -> list[Piece] | None:
        """Read, but not past the moment at which held pieces must leave: then it is None that came."""
        assert self._stream is not None, "opened before"  # noqa: S101 - narrows the type
        try:
            async with asyncio.timeout(max(0.0, self._flush_at - time.monotonic())):
                return await self._stream.read()
        except TimeoutError:
            return None

    def _record(self, error: GatewayError | None) -> None:
        """Keep how an attempt ended that did not serve; what ended it from this side does not blame the backend."""
        failed = error is not None and not isinstance(error, DeadlineExceeded | Interrupted)
        outcome = AttemptOutcome.FAILED if failed else AttemptOutcome.CANCELLED
        self.call.attempts += self._ended(outcome, error.reason if error is not None and failed else None)
        self._began = None
        self.call.usage = self._cost()

    def _cost(self) -> Usage:
        """What the attempt has cost; of one that was given up before its answer began nobody can tell."""
        return self._stream.usage() if self._stream is not None else Usage(estimated=True)

    def _ended(self, outcome: AttemptOutcome, reason: str | None) -> tuple[Attempt, ...]:
        """The attempt that is under way, as it ended; none between two attempts."""
        if self._began is None or self._lease is None:
            return ()
        return (Attempt(self._lease.endpoint.spec.name, outcome, reason, time.monotonic() - self._began),)

    def _empty_ends(self) -> list[Piece]:
        return [Piece(i, finish=Finish(FinishReason.TIME_LIMIT)) for i in range(self._generation.choices)]


def _opening(pieces: list[Piece]) -> tuple[list[Piece], list[Piece]]:
    """The first piece with something in it, behind what its choice had before it (token ids without a text yet); and
    the others.
    """
    first = next((place for place, piece in enumerate(pieces) if piece.has_content), None)
    if first is None:
        return [], pieces
    index = pieces[first].index
    opening = [piece for piece in pieces[: first + 1] if piece.index == index]
    return opening, [piece for piece in pieces[:first] if piece.index != index] + pieces[first + 1 :]


def after_commit(error: GatewayError) -> GatewayError:
    """What an error is once part of the answer was delivered."""
    if isinstance(error, BackendError):
        return error.committed()
    if isinstance(error, StreamError | DeadlineExceeded | Interrupted):
        return error
    return StreamInterrupted("The backend failed while it generated the answer.")


def _silent() -> GatewayError:
    return StreamStalled("The backend fell silent in the middle of the answer.")


def _no_usage() -> Exception:
    return UsageMissingError()
