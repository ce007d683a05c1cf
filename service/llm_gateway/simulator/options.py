# SPDX-License-Identifier: Apache-2.0
"""The words a caller of the simulator uses: what a server is, what it does with a request, what it saw."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Options:
    """How the simulated server was started (vLLM's flags) and how fast its engine is. Times in seconds."""

    host: str = "127.0.0.1"
    port: int = 0
    """0: a free one, see `Simulator.port`."""
    models: tuple[str, ...] = ("sim",)
    """`--served-model-name`: the first is answered, the others are aliases."""
    max_model_len: int = 2048
    """`--max-model-len`, in tokens: prompt and answer together."""
    time_to_first_token: float = 0.0
    pace: float = 0.0
    """Between the tokens of a stream; 0: as fast as the socket takes them."""
    synchronised: bool = True
    """All streams of one pace step together, like the decode steps of an engine."""
    api_key: str | None = None
    """`--api-key`."""
    max_num_seqs: int = 1024
    """`--max-num-seqs`: sequences generated at a time; what is beyond waits."""
    max_num_queued_reqs: int | None = None
    """`--max-num-queued-reqs`: sequences waiting and running; beyond it there is a 503; None: no limit."""
    tool_parser: bool = False
    """`--enable-auto-tool-choice --tool-call-parser hermes`."""
    reasoning_parser: bool = False
    """`--reasoning-parser`."""
    dialect: str = "vllm"
    """Which server this is: "vllm", "openai", "sglang", "llamacpp" or "ollama"."""
    version: str = "0.33.0"
    """0.32.0 and 0.33.0 differ in a few keys of their answers."""
    request_id_headers: bool = False
    """`--enable-request-id-headers`."""
    prompt_tokens_details: bool = False
    """`--enable-prompt-tokens-details`."""
    per_request_metrics: bool = False
    """`--enable-per-request-metrics`."""
    load_tracking: bool = False
    """`--enable-server-load-tracking`."""
    force_include_usage: bool = False
    """`--enable-force-include-usage`: usage in every event, asked for or not."""
    sse_keep_alive: float | None = None
    """`--sse-keep-alive-interval`: a comment line after so long a silence."""
    shutdown_timeout: float = 0.0
    """`--shutdown-timeout`: how long a drain waits for the requests under way, in seconds; 0: not at all."""
    default_tokens: int = 60
    """Length of a reply that ends by itself, its end-of-sequence token included (as vLLM's usage does)."""


class Fault(StrEnum):
    """What goes wrong with one request. "At `after`" means: once so many token events were sent."""

    # Connections
    REFUSE = "refuse"  # connection reset before any byte of an answer
    RESET = "reset"  # RST at `after`
    CUT = "cut"  # FIN at `after`, without the terminal chunk
    STALL = "stall"  # silence at `after` for `seconds`, then it goes on
    SLOW_HEADER = "slow_header"  # not even a status line for `seconds`, then all is well
    KEEP_ALIVES = "keep_alives"  # comments only, at `after`, for `seconds`
    # Whole answers
    HTTP = "http"  # `status`, `headers` and `body` as given
    EMPTY = "empty"  # 200 text/event-stream without a byte
    HTML = "html"  # 200 text/html, as from a captive proxy
    NOT_STREAMED = "not_streamed"  # 200 application/json, one whole completion although a stream was asked for
    # What vLLM does in trouble
    ERROR_EVENT = "error_event"  # at `after` {"error": …, "code": 500}, then [DONE]; unary: a 500
    ABORT = "abort"  # at `after` finish_reason "abort", then [DONE]
    SILENT_DRAIN = "silent_drain"  # 0.32: role event, then [DONE], without any finish_reason
    # Streams that lack something
    EOF = "eof"  # proper end at `after`, without finish_reason and [DONE]
    NO_FINISH = "no_finish"  # [DONE] at `after`, without finish_reason
    NO_DONE = "no_done"  # everything but [DONE]
    NO_USAGE = "no_usage"  # everything but usage
    NO_ROLE = "no_role"  # everything but the role event
    # Streams that have something wrong or too much
    GARBAGE = "garbage"  # at `after` a data line that is no JSON (`body`, if given), then it goes on
    NULL_EVENT = "null_event"  # at `after` the event `null`, then it goes on
    HUGE_EVENT = "huge_event"  # at `after` a token of 4 MB
    REPEATED_ROLE = "repeated_role"  # the role in every delta, as Ollama sends it
    DUPLICATE_FINISH = "duplicate_finish"  # the finish event twice
    LATE_DATA = "late_data"  # another token after [DONE]
    # Unusual framing of good events
    DRIBBLE = "dribble"  # one byte a write
    BURST = "burst"  # every event in one write
    CRLF = "crlf"  # \r\n for \n
    NO_SPACE = "no_space"  # `data:{…}`
    MULTI_LINE = "multi_line"  # an event in two data lines


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What one generation request gets; None, or absent, is what `Options` say. Times in seconds."""

    text: str | None = None
    tokens: int | None = None
    """Length of the reply, its end-of-sequence token included; overrides `ignore_eos`, but not `max_tokens`."""
    time_to_first_token: float | None = None
    pace: float | None = None
    fault: Fault | None = None
    after: int = 0
    """Token events sent before the fault; 0: before any event, unless `role_first`."""
    role_first: bool = False
    """Send the role events of a chat stream before a fault at 0."""
    status: int | None = None
    """For `Fault.HTTP`; absent: 503."""
    body: bytes | None = None
    """Raw body for `Fault.HTTP`, or the garbage."""
    headers: Mapping[str, str] | None = None
    """Added to the answer's headers."""
    finish_reason: str | None = None
    """In place of the one the reply would end with."""
    reasoning: str | None = None
    """Sent before the text, where the server has a reasoning parser."""
    tool_calls: tuple[tuple[str, str], ...] = ()
    """(name, arguments as JSON) of the calls to make; sent even if the server has no tool parser."""
    seconds: float | None = None
    """Length of a stall; None: until the client leaves."""


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """One request as it came."""

    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: Any
    """Decoded JSON, or None where there was none."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Generation requests so far: every one seen is either waiting, running, finished or aborted."""

    requests_seen: int = 0
    running: int = 0
    waiting: int = 0
    """Accepted, but without a seat in the engine."""
    finished: int = 0
    """Ended by the server: with an answer, an error or a fault."""
    aborted: int = 0
    """The client left before the end."""
    connections: int = 0
    """Open now, of any kind."""
    faults: Mapping[Fault, int] = field(default_factory=lambda: MappingProxyType({}))
    """How often each fault struck."""
