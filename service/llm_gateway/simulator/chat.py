# SPDX-License-Identifier: Apache-2.0
"""The bytes of `/v1/chat/completions`: key for key what vLLM sends, whole or streamed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from llm_gateway.simulator.replies import Kind, Reply, Step
from llm_gateway.simulator.wire import Answer, Timing, encode, event, is_last, metrics, usage_counts

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]


def _usage(answer: Answer) -> Json:
    server = answer.server
    usage = usage_counts(answer.ask.prompt_tokens, answer.completion_tokens)
    usage["prompt_tokens_details"] = None
    if server.prompt_tokens_details:
        usage["prompt_tokens_details"] = {
            "cached_tokens": answer.cached_tokens,
            "created_cache_tokens": answer.created_cache_tokens,
            "multimodal_tokens": None,
        }
    reasoning = _reasoning_tokens(answer) if server.reasoning_parser else None
    usage["completion_tokens_details"] = reasoning
    return usage


def _reasoning_tokens(answer: Answer) -> Json:
    steps = (step for reply in answer.replies for step in reply.steps)
    return {"reasoning_tokens": sum(len(step.tokens) for step in steps if step.kind is Kind.REASONING)}


def unary(answer: Answer, timing: Timing) -> bytes:
    """The whole answer."""
    whole = answer.head("chat.completion")
    whole["choices"] = [_choice(answer, reply) for reply in answer.replies]
    whole["service_tier"] = None
    whole["system_fingerprint"] = answer.server.fingerprint
    whole["usage"] = _usage(answer)
    whole["prompt_logprobs"] = None
    whole["prompt_token_ids"] = answer.ask.prompts[0].tokens if answer.ask.flag("return_token_ids") else None
    whole["prompt_text"] = answer.ask.prompts[0].text if answer.ask.flag("return_prompt_text") else None
    whole |= {"kv_transfer_params": None, "ec_transfer_params": None, "metrics": metrics(answer, timing)}
    return encode(whole)


def _choice(answer: Answer, reply: Reply) -> Json:
    tokens = reply.tokens()
    choice: Json = {
        "index": reply.index,
        "message": _message(answer.ask.role, reply),
        "logprobs": answer.logprobs.chat(tokens) if answer.logprobs else None,
        "finish_reason": _finish_reason(answer, reply),
        "stop_reason": reply.stop_reason,
        "token_ids": tokens if answer.ask.flag("return_token_ids") else None,
        "routed_experts": None,
    }
    if not answer.server.is_032:
        choice["weight_versions"] = None
    return choice


def _message(role: str, reply: Reply) -> Json:
    message: Json = {
        "role": role,
        "content": reply.joined(Kind.TEXT),
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
    }
    if reply.has_calls:
        message["tool_calls"] = [
            {"id": _call_id(), "type": "function", "function": {"name": name, "arguments": arguments}}
            for name, arguments in reply.calls()
        ]
    message["reasoning"] = reply.joined(Kind.REASONING) or None
    return message


def _finish_reason(answer: Answer, reply: Reply) -> str:
    """A call makes "tool_calls" of "stop", but for a named choice."""
    named = isinstance(answer.ask.body.get("tool_choice"), dict)
    return "tool_calls" if reply.finish_reason == "stop" and reply.has_calls and not named else reply.finish_reason


def _call_id() -> str:
    return f"chatcmpl-tool-{uuid4().hex[:16]}"


class ChatEvents:
    """The events of a chat stream. Where only the text varies, all but the text is written once."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        ask = answer.ask
        self._head = b"data: " + encode(answer.head("chat.completion.chunk"))[:-1]
        self._tail = b"}" if answer.server.is_032 else b',"kv_transfer_params":null}'
        self._plain = answer.logprobs is None and not ask.flag("return_token_ids") and not ask.continuous_usage
        self._before = [
            self._head + b',"choices":[{"index":%d,"delta":{"content":' % reply.index for reply in answer.replies
        ]
        self._after = b'},"logprobs":null,"finish_reason":null,"token_ids":null}]' + self._tail + b"\n\n"
        self._counts = [0] * len(answer.replies)

    def opening(self) -> Iterator[bytes]:
        """A role event for each choice."""
        ask = self._answer.ask
        for reply in self._answer.replies:
            delta = {"role": ask.role, "content": ""}
            chunk = self._answer.head("chat.completion.chunk")
            chunk["choices"] = [{"index": reply.index, "delta": delta, "logprobs": None, "finish_reason": None}]
            if ask.continuous_usage:
                chunk["usage"] = self._running_usage(0)
            chunk["prompt_token_ids"] = ask.prompts[0].tokens if ask.flag("return_token_ids") else None
            chunk["prompt_text"] = ask.prompts[0].text if ask.flag("return_prompt_text") else None
            yield event(chunk)

    def step(self, reply: Reply, number: int) -> bytes | None:
        """The event of one step; None where a parser swallowed it."""
        step = reply.steps[number]
        last = is_last(reply, number)
        if self._plain and step.kind is Kind.TEXT and step.text and not last:
            return self._before[reply.index] + encode(step.text) + self._after
        self._counts[reply.index] += len(step.tokens)
        delta = self._delta(step)
        if delta is None:
            if not last and self._answer.logprobs is None and not self._answer.ask.flag("return_token_ids"):
                return None
            delta = {}
        return self._event(reply, step, delta, last)

    def _delta(self, step: Step) -> Json | None:
        if step.kind is Kind.TEXT:
            return {"content": step.text} if step.text or not self._answer.ask.parsed else None
        if step.kind is Kind.REASONING:
            return {"reasoning": step.text} if step.text else None
        if step.kind is Kind.SILENT or not step.text:
            return None
        call: Json = {"index": step.call, "function": {step.kind.value: step.text}}
        if step.kind is Kind.CALL_NAME:
            call = {"id": _call_id(), "type": "function"} | call
        return {"content": None, "tool_calls": [call]}

    def _event(self, reply: Reply, step: Step, delta: Json, last: bool) -> bytes:
        answer = self._answer
        tokens = list(step.tokens)
        choice: Json = {
            "index": reply.index,
            "delta": delta,
            "logprobs": answer.logprobs.chat(tokens) if answer.logprobs else None,
            "finish_reason": _finish_reason(answer, reply) if last else None,
        }
        if last:
            choice["stop_reason"] = reply.stop_reason
        choice["token_ids"] = tokens if answer.ask.flag("return_token_ids") else None
        if last and not answer.server.is_032:
            choice["weight_versions"] = None
        chunk: Json = {"choices": [choice]}
        if answer.ask.continuous_usage:
            chunk["usage"] = self._running_usage(self._counts[reply.index])
        if last and not answer.ask.include_usage:
            chunk["system_fingerprint"] = answer.server.fingerprint
        return self._head + b"," + encode(chunk)[1:-1] + self._tail + b"\n\n"

    def _running_usage(self, completion: int) -> Json:
        usage = usage_counts(self._answer.ask.prompt_tokens, completion)
        details = {"reasoning_tokens": 0} if self._answer.server.reasoning_parser else None
        return usage | {"completion_tokens_details": details}

    def usage(self, timing: Timing) -> bytes | None:
        """After all finishes: no choices, and nulls left out."""
        if not self._answer.ask.include_usage:
            return None
        chunk = self._answer.head("chat.completion.chunk") | {"choices": []}
        chunk["usage"] = _without_nulls(_usage(self._answer))
        chunk["system_fingerprint"] = self._answer.server.fingerprint
        if (measured := metrics(self._answer, timing)) is not None:
            chunk["metrics"] = _without_nulls(measured)
        return event(chunk)


def _without_nulls(content: Json) -> Json:
    return {
        key: _without_nulls(value) if isinstance(value, dict) else value
        for key, value in content.items()
        if value is not None
    }
