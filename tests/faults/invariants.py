# SPDX-License-Identifier: Apache-2.0
"""What holds whatever fails: I1 to I8 of docs/fault-matrix.md, checked after every row by one witness."""

from __future__ import annotations

import asyncio
import itertools
import json
import tempfile
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from llm_gateway.simulator import Behaviour, Options, Simulator
from llm_gateway.v1.call_report_pb2 import CallReport
from tests.faults.ledger import confirm_metrics
from tests.faults.matrix import OK, Ending, attempts_of, ending_of
from tests.kit.calls import Outcome, assert_lawful, chat_request, read_stream, until
from tests.kit.gateway import failure_of, start_gateway_of
from tests.kit.logs import captured_logs
from tests.kit.operating import BESIDE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from contextlib import AbstractAsyncContextManager

    from llm_gateway.v1.llm_service_pb2 import ChatCompletionRequest
    from llm_gateway.v1.llm_service_pb2_grpc import LLMServiceAsyncStub
    from llm_gateway.v1.outcome_pb2 import Usage
    from tests.faults.matrix import Expected
    from tests.kit.gateway import RunningGateway
    from tests.kit.logs import Logs

CANARY = "canary"
PROMPT, KEY = f"{CANARY}-prompt", f"{CANARY}-key"
SAID = f"{CANARY}-answer: " + " ".join(f"w{n}" for n in range(30))
"""What backends say unless a row has it otherwise: each word is another one, so that nothing can be swapped unseen."""
MODEL, CALM = "sim", "calm"
UNDISTURBED = {"probe_interval_ms": 60_000, "load_interval_ms": 0}
"""Settings of the probes for rows in which a call is to find the fault before they do."""
DETAILS = "grpc-status-details-bin"
PATIENCE = 20.0
"""Seconds in which something must happen that has no limit of its own."""
GRACE = 1.0
"""Seconds after its deadline at which a call has ended."""
PROMPTLY = 5.0
"""Seconds in which a backend has seen an abort. It takes milliseconds; the rest is for a busy machine."""
NOT_OF_CALLS = ("RequestHandler.", "Proxy.", "ScriptedBackend.", "AioServer._request_")
"""Coroutines of backends, which live as long as the connections that are kept for the next call; gRPC's, that wait for
the next call."""
LARGEST_GAP = 2.0
"""Seconds without a token that a bystander may see; likewise."""


def saying(text: str = SAID, **behaviour: Any) -> Behaviour:
    """A behaviour of the simulator's that says, as far as it comes, what the witness expects."""
    return Behaviour(text=text, **behaviour)


def asking(text: str = SAID, **directives: Any) -> str:
    """A prompt with a canary in it, to which every simulator answers `text`, unless its script has it otherwise."""
    words = " ".join(f"{name}={json.dumps(str(value))}" for name, value in ({"text": text} | directives).items())
    return f"{PROMPT} [[sim {words}]]"


class Streaming:
    """One call on its way, which its row reads, leaves or ends; what came of it is kept for the witness."""

    def __init__(self, call: grpc.aio.UnaryStreamCall[Any, Any], request_id: str, *, said: str, timeout: float) -> None:
        self.call = call
        self.request_id = request_id
        self.said = said
        self.limit = time.monotonic() + timeout + GRACE
        self.events: list[Any] = []
        self.outcome: Outcome | None = None
        self.left = False
        self.rest = aiter(call)

    async def deltas(self, count: int) -> None:
        """Read until so many deltas have come."""
        while sum(event.WhichOneof("event") == "delta" for event in self.events) < count:
            self.events.append(await anext(self.rest))

    async def end(self) -> Outcome:
        """Read to the end, from where the row has left it."""
        self.outcome = await read_stream(self.call, self.events, self.rest)
        assert time.monotonic() < self.limit, "I1: a call has outlived its deadline"
        return self.outcome

    async def ending(self) -> Ending:
        """Read to the end, which may be one of gRPC's own, without details; only the other ones are kept."""
        try:
            async for event in self.rest:
                self.events.append(event)
        except grpc.aio.AioRpcError as error:
            self.left = True
            assert time.monotonic() < self.limit, "I1: a call has outlived its deadline"
            rich = any(key == DETAILS for key, _ in error.trailing_metadata())
            return ending_of(failure_of(error)) if rich else Ending(error.code().name, "–")
        self.outcome = Outcome(self.events, trailers=dict(await self.call.trailing_metadata()))
        assert_lawful(self.outcome)
        return OK

    def leave(self) -> None:
        """Cancel the call."""
        self.left = True
        self.call.cancel()

    def confirm(self) -> None:
        """I1, I2 and I7, as the caller sees them."""
        outcome = self.outcome or Outcome(self.events)
        assert self.said.startswith(outcome.text()), "I2: something was delivered that was not sent, or not so"
        assert self.left or self.outcome, "I1: a call has not ended"
        if not self.left and outcome.failure is None and outcome.finish() == "STOP":
            assert outcome.text() == self.said, "I2: a whole answer is not whole"
        told = repr([outcome.failure, outcome.initial_metadata, outcome.trailers])
        assert CANARY not in told, "I7: something confidential is in a status"

    def confirm_cost(self, line: dict[str, Any]) -> None:
        """I5: what the caller is told is what is accounted for, and what was delivered was not for nothing."""
        accounted = (line["prompt_tokens"], line["completion_tokens"], line["usage_estimated"])
        text = (self.outcome or Outcome(self.events)).text()
        assert line["completion_tokens"] or not text, "I5: tokens were delivered and not accounted for"
        usage = _told_usage(self.outcome)
        if usage is not None:
            told = (usage.prompt_tokens, usage.completion_tokens, usage.estimated)
            assert accounted == told, "I5: there are two accounts of one call"


def tasks() -> set[asyncio.Task[Any]]:
    """The tasks of this process but for those of backends, those that probe them, and the one that asks."""
    return {
        task
        for task in asyncio.all_tasks() - {asyncio.current_task()}
        if not getattr(task.get_coro(), "__qualname__", "").startswith(NOT_OF_CALLS) and task.get_name() != "probe"
    }


def _told_usage(outcome: Outcome | None) -> Usage | None:
    """What a caller was told of the cost, if it was."""
    if outcome is None:
        return None
    if outcome.failure is None:
        return outcome.completed.usage
    return outcome.failure.report.usage if CallReport.DESCRIPTOR.full_name in outcome.failure.details else None


@dataclass(slots=True)
class Witness:
    """Makes the calls of a row, and then tells whether the invariants hold.

    A row that makes calls of its own beside says so in `others`. Of calls that are `lost` on their way there need be no
    line in the log: they may never have come to a handler.
    """

    gateway: RunningGateway
    logs: Logs
    calls: list[Streaming] = field(default_factory=list)
    others: int = 0
    lost: int = 0
    stub: LLMServiceAsyncStub | None = None
    """By which the row's calls go, if not by the gateway's own channel, which stays the bystander's."""

    def begin(
        self,
        prompt: str | None = None,
        *,
        said: str = SAID,
        timeout: float = 30.0,
        model: str = MODEL,
        **params: Any,
    ) -> Streaming:
        """Begin a stream; `said` is what the backend that answers is to say, and without a prompt is told to."""
        request = chat_request(asking(said) if prompt is None else prompt, **params)
        request.model = model
        return self.send(request, said=said, timeout=timeout)

    def send(self, request: ChatCompletionRequest, *, said: str = SAID, timeout: float = 30.0) -> Streaming:
        """Begin a stream with a request of the row's own."""
        request_id = f"call-{len(self.calls)}"
        metadata = (("x-request-id", request_id),)
        stub = self.gateway.stub if self.stub is None or request.model == CALM else self.stub
        call = stub.ChatCompletionStream(request, timeout=timeout, metadata=metadata)
        streaming = Streaming(call, request_id, said=said, timeout=timeout)
        self.calls.append(streaming)
        return streaming

    async def stream(self, prompt: str | None = None, **more: Any) -> Outcome:
        """Stream an answer to its end, as `begin` does."""
        return await self.begin(prompt, **more).end()

    async def line(self, call: Streaming) -> dict[str, Any]:
        """What the log tells of a call, once it does: all that is known of one whose caller has left."""
        await until(lambda: call.request_id in self._lines)
        return self._lines[call.request_id]

    async def strange_line(self) -> dict[str, Any]:
        """What the log tells of the only call that is not the witness's own."""
        [line] = await self.strange_lines(1)
        return line

    async def strange_lines(self, count: int) -> list[dict[str, Any]]:
        """What it tells of so many of them."""
        await until(lambda: len(self._strange_lines()) >= count)
        return self._strange_lines()

    async def aborted(self, simulator: Simulator, count: int = 1) -> None:
        """I4: the backend has seen that nobody wants so many of its answers any more."""
        await simulator.wait_for(lambda now: now.aborted == count and now.running == now.waiting == 0, timeout=PROMPTLY)

    async def confirm(self, baseline: set[asyncio.Task[Any]]) -> None:
        """Every invariant of which a row need not speak itself."""
        await until(lambda: len(self._lines) >= len(self.calls) + self.others - self.lost)
        await until(lambda: self.gateway.server.in_flight == self.gateway.server.queued == 0)
        # Connections to backends are kept for a while; that none is left at last is checked after every test.
        await until(lambda: tasks() <= baseline)
        self.confirm_calls()
        if self.gateway.server.metrics is not None:
            page = await confirm_metrics(self.gateway, self.logs)
            assert CANARY not in page, "I7: something confidential is in the metrics"

    def confirm_calls(self) -> None:
        """Those of them that the calls and the log can tell."""
        for call in self.calls:
            call.confirm()
        began = len(self.calls) + self.others
        lines = self._lines
        assert len(self.logs.calls) == len(lines), "I1: a call has ended twice"
        assert began - self.lost <= len(lines) <= began, "I6: calls and outcomes differ in number"
        for call in self.calls:
            if call.request_id in lines:
                call.confirm_cost(lines[call.request_id])
        assert CANARY not in self.logs.text, "I7: something confidential is in the logs"

    def _strange_lines(self) -> list[dict[str, Any]]:
        own = {call.request_id for call in self.calls}
        return [line for request_id, line in self._lines.items() if request_id not in own]

    @property
    def _lines(self) -> dict[str, dict[str, Any]]:
        return {line["request_id"]: line for line in self.logs.calls}


# ---------------------------------------------------------------------------------------------------------- bystander


class Bystander:
    """I8: somebody who streams from another backend all the while, and sees no difference."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._ending = False

    async def run(self) -> None:
        """Stream, answer after answer, until told to end."""
        while not self._ending:
            outcome, gap = await self._stream()
            assert outcome.failure is None, "I8: a bystander's stream has failed"
            assert outcome.text() == SAID, "I8: a bystander's answer is not whole"
            assert gap < LARGEST_GAP, "I8: a bystander had to wait"

    def end(self) -> None:
        """Let the present answer be the last."""
        self._ending = True

    async def _stream(self) -> tuple[Outcome, float]:
        streaming = self._witness.begin(model=CALM)
        times = [time.monotonic()]
        async for event in streaming.call:
            times.append(time.monotonic())
            streaming.events.append(event)
        return await streaming.end(), max(after - before for before, after in itertools.pairwise(times))


async def tried(witness: Witness, attempt: tuple[str, str], expected: Expected) -> list[tuple[str, str]]:
    """Stream until an attempt has come about, for the balancer chooses by lot; every call ends as expected.

    Gives all attempts: those of the last call are the last ones.
    """
    asked: list[tuple[str, str]] = []
    async with asyncio.timeout(PATIENCE):
        while attempt not in asked:
            outcome = await witness.stream()
            assert ending_of(outcome) in expected
            asked += attempts_of(outcome)
    return asked


@contextmanager
def key_file() -> Iterator[Path]:
    """A file with a key for backends, which is a canary."""
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(KEY)
        file.flush()
        yield Path(file.name)


def models_at(*urls: str, calm: str, **entry: Any) -> list[dict[str, Any]]:
    """A CONFIG_FILE's models: one with its replicas at `urls`, called "a", "b" and so on; and a bystander's.

    `entry` is what each of the replicas has beside.
    """
    replicas = [entry | {"name": name, "url": url} for name, url in zip("abcdef", urls, strict=False)]
    return [
        {"name": MODEL, "backends": replicas},
        {"name": CALM, "backends": [entry | {"name": "calm", "url": calm}]},
    ]


@asynccontextmanager
async def witnessed(
    starting: AbstractAsyncContextManager[RunningGateway], *, bystander: bool = True
) -> AsyncIterator[Witness]:
    """A witness of a gateway that is about to start, with a bystander beside. At the end every invariant is checked."""
    with captured_logs() as logs:
        async with starting as gateway:
            await gateway.channel.channel_ready()
            baseline = tasks()
            witness = Witness(gateway, logs)
            beside = Bystander(witness)
            async with asyncio.TaskGroup() as group:
                if bystander:
                    group.create_task(beside.run())
                yield witness
                beside.end()
            await witness.confirm(baseline)


@asynccontextmanager
async def scene(
    *urls: str,
    entry: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    bystander: bool = True,
    **overrides: Any,
) -> AsyncIterator[Witness]:
    """A gateway whose one model has its replicas at `urls`, with a bystander on another one; gives the witness.

    The replicas are called "a", "b" and so on; `entry` is what each of them has beside its URL in the file, `model`
    what the model has beside them, and `overrides` are settings. At the end every invariant is checked. Without a
    `bystander` go the rows in which the gateway lets in nobody new.
    """
    with key_file() as key:
        async with Simulator(Options(models=(CALM,), pace=0.003)) as calm:
            own = {"dialect": "vllm", "api_key_file": str(key)} | (entry or {})
            models = models_at(*urls, calm=calm.url, **own)
            models[0] |= model or {}
            gateway = start_gateway_of(models, **({"metrics": BESIDE["metrics"]} | overrides))
            async with witnessed(gateway, bystander=bystander) as witness:
                yield witness
