# SPDX-License-Identifier: Apache-2.0
"""From a recorded request to one of our contract, and to the JSON that the gateway must send for it."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

from google.protobuf.struct_pb2 import Struct

from llm_gateway.v1 import generation_pb2, llm_service_pb2, message_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

Request = llm_service_pb2.ChatCompletionRequest | llm_service_pb2.GenerateRequest
Json = dict[str, Any]

RENAMED = {"max_completion_tokens": "max_tokens", "include_stop_str_in_output": "include_stop"}
# Fields of ChatCompletionRequest and GenerateRequest that are translated one by one, or are the gateway's own affair.
APART = {
    "model", "messages", "prompt", "tools", "tool_choice", "response_format", "structured_outputs", "stream",
    "stream_options", "request_id", "return_token_ids",
}  # fmt: skip
ROLES = frozenset(message_pb2.Role.keys())
# What our contract does not say, and vLLM takes: these go as backend_extensions, which the operator allows.
EXTENSIONS = {"frobnicate", "return_tokens_as_token_ids"}
# A GenerateRequest has no extensions: this is left out. The answer, which repeats the prompt, is replayed all the same.
LEFT_OUT = {"echo"}


class InexpressibleError(Exception):
    """The contract has no words for this request, and rightly so."""


def translate(recorded: Any) -> Request:
    """The same request in our words. Raises InexpressibleError."""
    if not isinstance(recorded, dict) or not isinstance(recorded.get("messages", []), list):
        raise InexpressibleError
    params = generation_pb2.GenerationParams()
    extensions = Struct()
    for name, value in recorded.items():
        if name in EXTENSIONS:
            extensions[name] = value
        elif name not in APART | LEFT_OUT:
            _set_param(params, RENAMED.get(name) or name, value)
    common: Json = {
        "model": recorded.get("model"),
        "structured_output": _structured_output(recorded),
        "stream_options": generation_pb2.StreamOptions(include_token_ids=recorded.get("return_token_ids")),
    }
    if "prompt" in recorded:
        return _generate(recorded["prompt"], params, common)
    return llm_service_pb2.ChatCompletionRequest(
        messages=[_message(message) for message in recorded.get("messages", [])],
        params=params,
        tools=[_tool(tool["function"]) for tool in recorded.get("tools", [])],
        tool_choice=_tool_choice(recorded.get("tool_choice")),
        backend_extensions=extensions if extensions.fields else None,
        **common,
    )


def _generate(prompt: str | list[str], params: generation_pb2.GenerationParams, common: Json) -> Request:
    """A raw prompt. A list of two has no words in the contract; its answer looks as that of one prompt with n = 2."""
    if isinstance(prompt, list):
        params.n = len(prompt)
        params.ClearField("temperature")
        prompt = prompt[0]
    if params.HasField("logprobs"):
        params.top_logprobs = 1  # a completion's `logprobs: 1`
    return llm_service_pb2.GenerateRequest(prompt=prompt, raw=True, params=params, **common)


def _set_param(params: generation_pb2.GenerationParams, name: str, value: Any) -> None:
    try:
        if isinstance(value, list):
            getattr(params, name).extend(value)
        elif isinstance(value, dict):
            getattr(params, name).update({int(key): number for key, number in value.items()})
        else:
            setattr(params, name, bool(value) if name == "logprobs" and value == 1 else value)
    except (TypeError, ValueError) as error:
        raise InexpressibleError from error


def _message(message: Json) -> message_pb2.Message:
    role = f"ROLE_{message['role'].upper()}"
    if role not in ROLES:
        raise InexpressibleError
    content = message["content"]
    return message_pb2.Message(
        role=role,
        content=content if isinstance(content, str) else None,
        content_parts=[_part(part) for part in content] if isinstance(content, list) else None,
        tool_calls=[message_pb2.ToolCall(id=call["id"], **call["function"]) for call in message.get("tool_calls", [])],
        tool_call_id=message.get("tool_call_id"),
    )


def _part(part: Json) -> message_pb2.ContentPart:
    if part["type"] == "text":
        return message_pb2.ContentPart(text=part["text"])
    return message_pb2.ContentPart(image_url=message_pb2.ImageUrl(**part["image_url"]))


def _tool(function: Mapping[str, Any]) -> message_pb2.Tool:
    return message_pb2.Tool(**{**function, "parameters": json.dumps(function["parameters"])})


def _tool_choice(choice: Any) -> message_pb2.ToolChoice | None:
    if choice is None:
        return None
    if isinstance(choice, dict):
        return message_pb2.ToolChoice(function_name=choice["function"]["name"])
    return message_pb2.ToolChoice(mode=f"MODE_{choice.upper()}")


def _structured_output(recorded: Json) -> generation_pb2.StructuredOutput | None:
    output = recorded.get("structured_outputs")
    if output is not None:
        choice = {"choice": generation_pb2.StringChoice(values=output["choice"])} if "choice" in output else output
        return generation_pb2.StructuredOutput(**choice)
    response_format = recorded.get("response_format")
    if response_format is None:
        return None
    if response_format["type"] == "json_object":
        return generation_pb2.StructuredOutput(json_object=True)
    if response_format["type"] != "json_schema":
        raise InexpressibleError
    schema = response_format["json_schema"]
    text = json.dumps(schema["schema"])
    return generation_pb2.StructuredOutput(
        json_schema=generation_pb2.JsonSchema(name=schema["name"], schema=text, strict=schema.get("strict"))
    )


def expected_body(recorded: Json) -> Json:
    """What the gateway must send: what was recorded, but for these differences, each of them on purpose."""
    body = copy.deepcopy({name: value for name, value in recorded.items() if name not in LEFT_OUT})
    body.setdefault("model", "tiny")  # the only model that is served
    body |= {
        "stream": True,
        "stream_options": {"include_usage": True},
    }  # always streamed, counted at the end
    body.pop("request_id", None)  # goes as a header
    if "messages" in body and "max_tokens" in body:
        body["max_completion_tokens"] = body.pop("max_tokens")  # the name that vLLM and OpenAI do not deprecate
    for message in body.get("messages", []):
        if message["content"] is None:
            del message["content"]  # left out and not null
    if isinstance(body.get("prompt"), list):
        body |= {"n": len(body["prompt"]), "prompt": body["prompt"][0]}
        del body["temperature"]
    return body
