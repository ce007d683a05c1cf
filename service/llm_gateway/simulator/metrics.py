# SPDX-License-Identifier: Apache-2.0
"""`/metrics` under vLLM's names: those a gateway or a dashboard would read."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_gateway.simulator.engine import Engine
    from llm_gateway.simulator.wire import Answer

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"
_REASONS = ("stop", "length", "abort", "error", "repetition")
_TOKENS_OF_CACHE = 262_144
"""What the recorded server had room for."""


class Metrics:
    """Counts finished requests, and writes the page."""

    def __init__(self, model: str, engine: Engine) -> None:
        self._labels = f'engine="0",model_name="{model}"'
        self._model = model
        self._engine = engine
        self._finished: Counter[str] = Counter()
        self._prompt_tokens = 0
        self._generation_tokens = 0
        self._cached_tokens = 0
        self._rejected = 0

    def count(self, answer: Answer) -> None:
        """A request that came to its end; vLLM doesn't count those whose client left."""
        self._prompt_tokens += answer.ask.prompt_tokens
        self._cached_tokens += answer.cached_tokens
        self._generation_tokens += answer.completion_tokens
        for reply in answer.replies:
            self._finished[reply.finish_reason] += 1

    def reject(self) -> None:
        """A 503 of `--max-num-queued-reqs`."""
        self._rejected += 1

    def page(self) -> str:
        """The text of the answer."""
        engine = self._engine
        usage = min(1.0, engine.running * 64 / _TOKENS_OF_CACHE)
        lines = [
            *self._family(
                "num_requests_running", "gauge", "Number of requests in model execution batches.", engine.running
            ),
            *self._family(
                "num_requests_waiting", "gauge", "Number of requests waiting to be processed.", engine.waiting
            ),
            *self._by_reason(),
            *self._family("kv_cache_usage_perc", "gauge", "KV-cache usage. 1 means 100 percent usage.", usage),
            *self._counters(),
            *self._success(),
            *self._rejections(),
        ]
        return "\n".join(lines) + "\n"

    def _counters(self) -> list[str]:
        return [
            *self._family("prompt_tokens_total", "counter", "Number of prefill tokens processed.", self._prompt_tokens),
            *self._family(
                "generation_tokens_total", "counter", "Number of generation tokens processed.", self._generation_tokens
            ),
            *self._family(
                "prefix_cache_queries_total", "counter", "Prefix cache queries, in tokens.", self._prompt_tokens
            ),
            *self._family("prefix_cache_hits_total", "counter", "Prefix cache hits, in tokens.", self._cached_tokens),
            *self._family("num_preemptions_total", "counter", "Cumulative number of preemption from the engine.", 0),
        ]

    def _family(self, name: str, kind: str, description: str, value: float) -> list[str]:
        return [*_described(name, kind, description), f"vllm:{name}{{{self._labels}}} {float(value)}"]

    def _by_reason(self) -> list[str]:
        name = "num_requests_waiting_by_reason"
        lines = _described(name, "gauge", "Number of waiting requests by reason.")
        waiting = {"capacity": float(self._engine.waiting), "deferred": 0.0}
        return lines + [f'vllm:{name}{{{self._labels},reason="{reason}"}} {n}' for reason, n in waiting.items()]

    def _success(self) -> list[str]:
        lines = _described("request_success_total", "counter", "Count of successfully processed requests.")
        for reason in _REASONS:
            labels = f'engine="0",finished_reason="{reason}",model_name="{self._model}"'
            lines.append(f"vllm:request_success_total{{{labels}}} {float(self._finished[reason])}")
        return lines

    def _rejections(self) -> list[str]:
        name = "admission_rejections_total"
        counts = {"max_num_queued_reqs": self._rejected, "max_num_queued_tokens": 0}
        labels = f'model_name="{self._model}"'
        lines = [f'vllm:{name}{{{labels},reason="{reason}"}} {float(n)}' for reason, n in counts.items()]
        return _described(name, "counter", "Number of requests rejected at admission.") + lines


def _described(name: str, kind: str, description: str) -> list[str]:
    return [f"# HELP vllm:{name} {description}", f"# TYPE vllm:{name} {kind}"]
