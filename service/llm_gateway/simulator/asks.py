# SPDX-License-Identifier: Apache-2.0
"""Reads a generation request: refuses what vLLM refuses, in its order, and says what is left to be done."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from llm_gateway.simulator.directives import find_directive
from llm_gateway.simulator.errors import ApiError
from llm_gateway.simulator.fields import check_chat_fields, check_text_fields
from llm_gateway.simulator.options import Behaviour, Options
from llm_gateway.simulator.prompts import message_text, render_chat
from llm_gateway.simulator.replies import Kind, Limits, Script
from llm_gateway.simulator.sampling import check_before_types, check_ranges
from llm_gateway.simulator.structured import constrained_text
from llm_gateway.simulator.tools import check_tool_fields, check_tool_parser, forced_call, spoken

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_gateway.simulator.tokenizer import Tokenizer

Json = dict[str, Any]

_DEFAULT_TEXT_TOKENS = 16
"""vLLM's max_tokens for `/v1/completions`."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt; a chat request has one, `/v1/completions` up to 1024."""

    text: str
    tokens: list[int]


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that was understood."""

    chat: bool
    body: Json
    request_id: str
    model: str
    created: int
    prompts: list[Prompt]
    max_tokens: int | None
    behaviour: Behaviour
    stream: bool
    include_usage: bool
    continuous_usage: bool
    logprobs: int | None
    """How many alternatives to show; None: no logprobs."""
    parsed: bool
    """A tool or reasoning parser looks at the text: empty deltas are {} or not sent."""

    @property
    def n(self) -> int:
        """Choices for each prompt."""
        return int(self.body.get("n") or 1)

    @property
    def prompt_tokens(self) -> int:
        """Of all prompts."""
        return sum(len(prompt.tokens) for prompt in self.prompts)

    @property
    def role(self) -> str:
        """Of the answer: that of the last message, if the answer is not to be a new one."""
        if self.body.get("add_generation_prompt", True):
            return "assistant"
        return str(self.body["messages"][-1]["role"])

    def flag(self, name: str) -> bool:
        """A boolean field, False where absent."""
        return bool(self.body.get(name))

    def limits(self, prompt: Prompt, max_model_len: int) -> Limits:
        """What ends a reply to `prompt`; vLLM silently clamps max_tokens to the context."""
        body = self.body
        stop = body.get("stop") or []
        room = max_model_len - len(prompt.tokens)
        return Limits(
            max_tokens=room if self.max_tokens is None else min(room, self.max_tokens),
            min_tokens=int(body.get("min_tokens") or 0),
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            stop_token_ids=frozenset(body.get("stop_token_ids") or ()),
            include_stop=self.flag("include_stop_str_in_output"),
            ignore_eos=self.flag("ignore_eos"),
            seed=int(body.get("seed") or 0),
        )

    def script(self, reasoning_parser: bool) -> Script:
        """What the model wants to say; refuses bad schemas and regexes (lazily: in a stream, under HTTP 200)."""
        before = self._reasoning() if reasoning_parser and self.chat else []
        calls = self.behaviour.tool_calls or (forced_call(self.body) if self.chat else ())
        if self.behaviour.text is not None or calls:
            text = [(Kind.TEXT, self.behaviour.text, 0)] if self.behaviour.text else []
            return Script([*before, *text, *spoken(calls)])
        constrained = constrained_text(self.body)
        if constrained is not None:
            return Script([*before, (Kind.TEXT, constrained, 0)])
        return Script(before=before)

    def _reasoning(self) -> list[tuple[Kind, str, int]]:
        text = self.behaviour.reasoning
        if text is None:
            text = "" if self.body.get("reasoning_effort") == "none" else " a story: light, a city, and a star."
        shown = Kind.REASONING if self.body.get("include_reasoning", True) else Kind.SILENT
        return [(shown, text, 0), (Kind.SILENT, "</think>", 0)] if text else []


class Reader:
    """Reads requests for one server."""

    def __init__(self, options: Options, tokenizer: Tokenizer) -> None:
        self._options = options
        self._tokenizer = tokenizer

    def read(self, chat: bool, body: Json, headers: Mapping[str, str], scripted: Behaviour | None) -> Ask:
        """The request of `/v1/chat/completions` or `/v1/completions`; ApiError where vLLM answers one at once."""
        self._check(chat, body)
        prompts = [self._chat_prompt(body)] if chat else self._text_prompts(body["prompt"])
        max_tokens = self._max_tokens(chat, body)
        check_ranges(body, min(max_tokens, self._room(prompts)) if max_tokens is not None else self._room(prompts))
        if not chat and body.get("suffix"):
            raise ApiError(400, "suffix is only supported for models with FIM completion rendering", "suffix")
        include, continuous = self._usage(body)
        return Ask(
            chat=chat,
            body=body,
            request_id=self._request_id(chat, body, headers),
            model=self._options.models[0],
            created=int(time.time()),
            prompts=prompts,
            max_tokens=max_tokens,
            behaviour=_both(scripted, find_directive(_last_words(chat, body))),
            stream=bool(body.get("stream")),
            include_usage=include,
            continuous_usage=continuous,
            logprobs=self._logprobs(chat, body),
            parsed=self._parsed(chat),
        )

    def _check(self, chat: bool, body: Json) -> None:
        version = self._options.version
        check_before_types(body, "top_logprobs" if chat else "logprobs")
        if chat:
            check_tool_fields(body)
            if body.get("continue_final_message") and body.get("add_generation_prompt"):
                message = "Cannot set both `continue_final_message` and `add_generation_prompt` to True."
                raise ApiError.bad_request(message)
            check_chat_fields(body, version)
        else:
            if body.get("prompt") in (None, ""):
                message = "Either prompt or prompt_embeds must be provided and non-empty."
                raise ApiError.parameter(message, "prompt")
            check_text_fields(body, version)
        self._check_model(body.get("model"))
        if chat:
            check_tool_parser(body, self._options.tool_parser)

    def _check_model(self, model: str | None) -> None:
        if model and model not in self._options.models:
            aliases = ", ".join(self._options.models)
            raise ApiError(404, f"The model `{model}` does not exist. Valid aliases: {aliases}.", "model")

    def _chat_prompt(self, body: Json) -> Prompt:
        return self.prompt(render_chat(body, self._options.models[0]))

    def prompt(self, given: str | list[int]) -> Prompt:
        """A text or token ids, if the context has room for it."""
        limit = self._options.max_model_len
        if isinstance(given, str):
            text, tokens = given, self._tokenizer.encode(given, limit)[: limit + 1]
        else:
            self._check_vocabulary(given)
            text, tokens = self._tokenizer.decode(given), given
        if len(tokens) > limit:
            least = "at least " if len(tokens) == limit + 1 else ""
            message = (
                f"This model's maximum context length is {limit} tokens. However, your prompt contains {least}"
                f"{len(tokens)} input tokens, which exceeds this limit even without any output tokens. "
                "Please reduce the length of the input prompt."
            )
            raise ApiError.parameter(message, "input_tokens", len(tokens))
        if not tokens:
            raise ApiError.bad_request("The decoder prompt cannot be empty")
        return Prompt(text, tokens)

    def _check_vocabulary(self, tokens: list[int]) -> None:
        for token in tokens:
            if not 0 <= token < len(self._tokenizer):
                raise ApiError.bad_request(f"Token id {token} is out of vocabulary")

    def _text_prompts(self, given: Any) -> list[Prompt]:  # noqa: ANN401 (text, texts, ids, or lists of ids)
        if given == []:
            raise ApiError.bad_request("You must pass at least one prompt")
        several = isinstance(given, list) and not isinstance(given[0], int)
        return [self.prompt(prompt) for prompt in (given if several else [given])]

    def _max_tokens(self, chat: bool, body: Json) -> int | None:
        name, value = "max_tokens", body.get("max_tokens")
        if value is None and not chat:
            return _DEFAULT_TEXT_TOKENS
        if chat and body.get("max_completion_tokens") is not None:
            name, value = "max_completion_tokens", body["max_completion_tokens"]
        if value is None:
            return None
        if (value := int(value)) > (limit := self._options.max_model_len):
            message = (
                f"{name}={value} cannot be greater than max_model_len={limit}. Please request fewer output tokens."
            )
            raise ApiError.parameter(message, name, value)
        if value == 0 and not chat and body.get("echo"):
            return 1  # vLLM generates one token, and doesn't show it
        return value

    def _room(self, prompts: list[Prompt]) -> int:
        return self._options.max_model_len - max(len(prompt.tokens) for prompt in prompts)

    def _request_id(self, chat: bool, body: Json, headers: Mapping[str, str]) -> str:
        given = headers.get("X-Request-Id") or body.get("request_id") or uuid4().hex[:16]
        return f"chatcmpl-{given}" if chat else f"cmpl-{given}"

    def _usage(self, body: Json) -> tuple[bool, bool]:
        if self._options.force_include_usage:
            return True, True
        wanted = body.get("stream_options") or {}
        include = bool(wanted.get("include_usage"))
        return include, include and bool(wanted.get("continuous_usage_stats"))

    @staticmethod
    def _logprobs(chat: bool, body: Json) -> int | None:
        if chat:
            return int(body.get("top_logprobs") or 0) if body.get("logprobs") else None
        value = body.get("logprobs")
        return None if value is None else int(value)

    def _parsed(self, chat: bool) -> bool:
        return chat and (self._options.tool_parser or self._options.reasoning_parser)


def _both(scripted: Behaviour | None, asked: Behaviour | None) -> Behaviour:
    """A script beats the prompt's directive in what it says; of the rest, the directive still holds."""
    if scripted is None or asked is None:
        return scripted or asked or Behaviour()
    said = {
        field.name: value for field in fields(Behaviour) if (value := getattr(scripted, field.name)) != field.default
    }
    return replace(asked, **said)


def _last_words(chat: bool, body: Json) -> str:
    """Where a directive may stand: in the last user message, or in the raw prompt."""
    if not chat:
        prompt = body["prompt"]
        return prompt if isinstance(prompt, str) else " ".join(part for part in prompt if isinstance(part, str))
    users = [message for message in body["messages"] if message.get("role") == "user"]
    return message_text(users[-1]) if users else ""
