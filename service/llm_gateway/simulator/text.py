# SPDX-License-Identifier: Apache-2.0
"""The bytes of `/v1/completions`: key for key what vLLM sends, whole or streamed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_gateway.simulator.replies import Kind, Reply
from llm_gateway.simulator.wire import Answer, Timing, encode, event, is_last, metrics, usage_counts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_gateway.simulator.asks import Prompt

Json = dict[str, Any]


def unary(answer: Answer, timing: Timing) -> bytes:
    """The whole answer."""
    ask = answer.ask
    whole = answer.head("text_completion")
    whole["choices"] = [_choice(answer, reply) for reply in answer.replies]
    whole["service_tier"] = None
    whole["system_fingerprint"] = answer.server.fingerprint
    usage = usage_counts(ask.prompt_tokens, answer.completion_tokens)
    details = {"cached_tokens": answer.cached_tokens, "created_cache_tokens": None, "multimodal_tokens": None}
    usage["prompt_tokens_details"] = details if answer.server.prompt_tokens_details else None
    whole["usage"] = usage | {"completion_tokens_details": None}
    whole |= {"kv_transfer_params": None, "ec_transfer_params": None, "metrics": metrics(answer, timing)}
    return encode(whole)


def _prompt(answer: Answer, reply: Reply) -> Prompt:
    return answer.ask.prompts[reply.index // answer.ask.n]


def _prompt_only(answer: Answer) -> bool:
    """Echo with max_tokens 0: one token is generated, and not shown."""
    return answer.ask.flag("echo") and answer.ask.body.get("max_tokens") == 0


def _choice(answer: Answer, reply: Reply) -> Json:
    prompt, ask = _prompt(answer, reply), answer.ask
    echo, shows_ids = ask.flag("echo"), ask.flag("return_token_ids")
    generated = [] if _prompt_only(answer) else reply.tokens()
    text = "" if _prompt_only(answer) else reply.joined(Kind.TEXT)
    logprobs = None
    if answer.logprobs:
        logprobs = answer.logprobs.text(prompt.tokens if echo else [], generated, 0)
    return {
        "index": reply.index,
        "text": prompt.text + text if echo and not shows_ids else text,
        "logprobs": logprobs,
        "finish_reason": reply.finish_reason,
        "stop_reason": reply.stop_reason,
        "token_ids": generated if shows_ids else None,
        "prompt_logprobs": answer.logprobs.prompt(prompt.tokens) if echo and answer.logprobs else None,
        "prompt_token_ids": prompt.tokens if shows_ids else None,
        "routed_experts": None,
    }


class TextEvents:
    """The events of a `/v1/completions` stream: no roles; a choice for each prompt and each of its n."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        ask = answer.ask
        self._head = b"data: " + encode(answer.head("text_completion"))[:-1]
        self._plain = answer.logprobs is None and not ask.flag("return_token_ids") and not ask.continuous_usage
        self._before = [self._head + b',"choices":[{"index":%d,"text":' % reply.index for reply in answer.replies]
        rest = b'"logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":null'
        self._after = b"," + rest + b"}]}\n\n"
        self._offsets = [0] * len(answer.replies)
        self._counts = [0] * len(answer.replies)

    def opening(self) -> Iterator[bytes]:
        """None: a text stream has no roles."""
        yield from ()

    def step(self, reply: Reply, number: int) -> bytes | None:
        """The event of one step; the first one carries an echoed prompt."""
        step = reply.steps[number]
        if self._plain and number and not is_last(reply, number):
            return self._before[reply.index] + encode(step.text) + self._after
        ask, prompt = self._answer.ask, _prompt(self._answer, reply)
        echoed = ask.flag("echo") and not number
        shows_ids = ask.flag("return_token_ids")
        text = "" if _prompt_only(self._answer) else step.text
        tokens = [] if _prompt_only(self._answer) else list(step.tokens)
        last = is_last(reply, number)
        self._counts[reply.index] += len(step.tokens)
        choice: Json = {
            "index": reply.index,
            "text": prompt.text + text if echoed and not shows_ids else text,
            "logprobs": self._logprobs(reply.index, prompt.tokens if echoed else [], tokens),
            "finish_reason": reply.finish_reason if last else None,
            "stop_reason": reply.stop_reason if last else None,
            "prompt_token_ids": prompt.tokens if not number and (shows_ids or echoed) else None,
            "token_ids": tokens if shows_ids else None,
        }
        chunk: Json = {"choices": [choice]}
        if ask.continuous_usage:
            chunk["usage"] = usage_counts(len(prompt.tokens), self._counts[reply.index])
        if last and not ask.include_usage:
            chunk["system_fingerprint"] = self._answer.server.fingerprint
        return self._head + b"," + encode(chunk)[1:] + b"\n\n"

    def _logprobs(self, index: int, echoed: list[int], tokens: list[int]) -> Json | None:
        if self._answer.logprobs is None:
            return None
        logprobs = self._answer.logprobs.text(echoed, tokens, self._offsets[index])
        if logprobs["tokens"]:
            self._offsets[index] = logprobs["text_offset"][-1] + len(logprobs["tokens"][-1])
        return logprobs

    def usage(self, timing: Timing) -> bytes | None:
        """After all finishes: no choices, and nulls left out."""
        answer = self._answer
        if not answer.ask.include_usage:
            return None
        usage = usage_counts(answer.ask.prompt_tokens, answer.completion_tokens)
        if answer.server.prompt_tokens_details:
            usage["prompt_tokens_details"] = {"cached_tokens": answer.cached_tokens}
        chunk = answer.head("text_completion") | {"choices": [], "usage": usage}
        chunk["system_fingerprint"] = answer.server.fingerprint
        if (measured := metrics(answer, timing)) is not None:
            chunk["metrics"] = {key: value for key, value in measured.items() if value is not None}
        return event(chunk)
