# SPDX-License-Identifier: Apache-2.0
"""The events of a stream as servers other than vLLM write them: vLLM's are taken apart and put together anew.

Read in those servers' sources, or in what is written about them, and not off recordings: docs/dialects.md.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

from llm_gateway.simulator.wire import DONE, event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Json = dict[str, Any]

_OF_CHUNKS = ("kv_transfer_params", "prompt_token_ids", "prompt_text", "system_fingerprint", "metrics")
_OF_CHOICES = ("token_ids", "weight_versions", "routed_experts")
_END_TOKEN = 2


class Reshaper:
    """Rewrites one stream, event by event; b"" where there is nothing to send yet, or at all."""

    def __init__(self, body: Json) -> None:
        self._body = body

    def __call__(self, data: bytes) -> bytes:
        """What is sent in the place of vLLM's event."""
        if data == DONE:
            return b"".join([*map(event, self.last()), self.done()])
        if not data.startswith(b"data: {"):
            return data  # a comment, or a fault
        try:
            chunk = json.loads(data.removeprefix(b"data: "))
        except ValueError:
            return data
        if "error" in chunk:
            return self.error(chunk["error"])
        return b"".join(map(event, self._chunks(chunk)))

    def _chunks(self, chunk: Json) -> Iterator[Json]:
        for name in _OF_CHUNKS:
            chunk.pop(name, None)
        choices = chunk.get("choices")
        if not choices:
            yield from self.last()
            yield from self.usage(chunk)
            return
        for choice in choices:
            for name in _OF_CHOICES:
                choice.pop(name, None)
            yield from ({**chunk, "choices": [made]} for made in self.choice(choice))

    def choice(self, choice: Json) -> Iterator[Json]:
        """What becomes of a choice in an event."""
        yield choice

    def usage(self, chunk: Json) -> Iterator[Json]:
        """What becomes of the usage event."""
        yield chunk

    def last(self) -> Iterator[Json]:
        """What was held back until all choices have ended."""
        yield from ()

    def error(self, error: Json) -> bytes:
        """What becomes of an error in the stream."""
        return event({"error": error})

    def done(self) -> bytes:
        """How a stream ends."""
        return DONE


class OpenAIReshaper(Reshaper):
    """OpenAI: the end in an event of its own, `usage: null` everywhere, no reasoning, random padding."""

    def __init__(self, body: Json) -> None:
        super().__init__(body)
        options = body.get("stream_options") or {}
        self._with_usage = bool(options.get("include_usage"))
        self._obfuscated = options.get("include_obfuscation", True)

    def _chunks(self, chunk: Json) -> Iterator[Json]:
        for made in super()._chunks(chunk):
            made |= {"service_tier": "default", "system_fingerprint": "fp_sim"}
            if self._with_usage:
                made.setdefault("usage", None)
            if self._obfuscated:
                made["obfuscation"] = "x" * random.randrange(1, 16)  # noqa: S311 - padding
            yield made

    def choice(self, choice: Json) -> Iterator[Json]:
        choice.pop("stop_reason", None)
        delta = choice["delta"]
        thought = delta.pop("reasoning", None)
        if thought is not None and choice["finish_reason"] is None:
            return
        if "role" in delta:
            delta["refusal"] = None
        yield from _with_an_end_of_its_own(choice, {})

    def error(self, error: Json) -> bytes:
        return event({"error": {"message": error["message"], "type": "server_error", "param": None, "code": None}})


class SglangReshaper(Reshaper):
    """SGLang: ends come after all content, `matched_stop`, `reasoning_content`."""

    def __init__(self, body: Json) -> None:
        super().__init__(body)
        self._ends: list[Json] = []
        self._head: Json = {}

    def _chunks(self, chunk: Json) -> Iterator[Json]:
        if chunk.get("choices"):
            self._head = {name: value for name, value in chunk.items() if name not in {"choices", "usage"}}
        for made in super()._chunks(chunk):
            yield made | {"usage": made.get("usage")}

    def choice(self, choice: Json) -> Iterator[Json]:
        matched = choice.pop("stop_reason", None)
        delta = choice["delta"]
        full = {"role": delta.get("role"), "content": delta.get("content"), "tool_calls": delta.get("tool_calls")}
        choice["delta"] = full | {"reasoning_content": delta.get("reasoning")}
        *pieces, end = _with_an_end_of_its_own(choice | {"matched_stop": None}, {"role": None, "content": None})
        if end["finish_reason"] is None:
            pieces.append(end)
        else:
            matched = _END_TOKEN if matched is None and end["finish_reason"] == "stop" else matched
            self._ends.append(end | {"matched_stop": matched})
        yield from pieces

    def last(self) -> Iterator[Json]:
        ends, self._ends = self._ends, []
        yield from ({**self._head, "choices": [end], "usage": None} for end in ends)

    def error(self, error: Json) -> bytes:
        return event({"error": {"object": "error", **error}})


class LlamacppReshaper(Reshaper):
    """llama.cpp: no content in the role's event, the end in an event of its own; after an error nothing, nor [DONE]."""

    def __init__(self, body: Json) -> None:
        super().__init__(body)
        self._failed = False

    def choice(self, choice: Json) -> Iterator[Json]:
        choice.pop("stop_reason", None)
        delta = choice["delta"]
        if "role" in delta:
            delta["content"] = None
        if "reasoning" in delta:
            delta["reasoning_content"] = delta.pop("reasoning")
        yield from _with_an_end_of_its_own(choice, {})

    def usage(self, chunk: Json) -> Iterator[Json]:
        yield chunk | {"timings": {"prompt_n": 1, "predicted_n": 1, "predicted_per_second": 100.0}}

    def error(self, error: Json) -> bytes:
        self._failed = True
        return event({"error": {"code": 500, "message": error["message"], "type": "server_error"}})

    def done(self) -> bytes:
        return b"" if self._failed else DONE


class OllamaReshaper(Reshaper):
    """Ollama: the role in every event, all calls whole in one, ids that come again; a failure just ends the stream."""

    def __init__(self, body: Json) -> None:
        super().__init__(body)
        self._id = f"chatcmpl-{random.randrange(999)}"  # noqa: S311 - as little as Ollama's
        self._calls: dict[int, Json] = {}
        self._failed = False

    def _chunks(self, chunk: Json) -> Iterator[Json]:
        for made in super()._chunks(chunk):
            yield made | {"id": self._id, "system_fingerprint": "fp_ollama"}

    def choice(self, choice: Json) -> Iterator[Json]:
        choice.pop("stop_reason", None)
        choice.pop("logprobs", None)
        delta = choice["delta"]
        for call in delta.pop("tool_calls", None) or ():
            whole = self._calls.setdefault(call["index"], {"name": "", "arguments": ""})
            for name, piece in call["function"].items():
                whole[name] += piece
        spoken = {"role": "assistant", "content": delta.get("content") or ""}
        if delta.get("reasoning"):
            spoken["reasoning"] = delta["reasoning"]
        ends = choice["finish_reason"] is not None
        if ends and self._calls:
            yield choice | {"delta": spoken | {"tool_calls": self._whole_calls()}, "finish_reason": None}
            spoken["content"] = ""
        if ends or spoken["content"] or "reasoning" in spoken:
            yield choice | {"delta": spoken}

    def _whole_calls(self) -> list[Json]:
        return [
            {"id": f"call_{index}", "index": index, "type": "function", "function": call}
            for index, call in self._calls.items()
        ]

    def error(self, _: Json) -> bytes:
        self._failed = True
        return b""

    def done(self) -> bytes:
        return b"" if self._failed else DONE


def _with_an_end_of_its_own(choice: Json, empty: Json) -> Iterator[Json]:
    """A choice that ends beside its last text, as two."""
    if choice["finish_reason"] is not None:
        if any(choice["delta"].values()):
            yield choice | {"finish_reason": None}
        choice = choice | {"delta": dict(empty), "logprobs": None}
    yield choice


RESHAPERS: dict[str, Callable[[Json], Reshaper]] = {
    "openai": OpenAIReshaper,
    "sglang": SglangReshaper,
    "llamacpp": LlamacppReshaper,
    "ollama": OllamaReshaper,
}
"""For chat streams; a raw prompt's are vLLM's in every dialect."""
