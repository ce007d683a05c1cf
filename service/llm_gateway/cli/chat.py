# SPDX-License-Identifier: Apache-2.0
"""`llm-gateway chat`: one answer, or a conversation that remembers."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Any

import typer
from google.protobuf import json_format

from llm_gateway.cli.answer import Ending, JsonLines, Page, ask
from llm_gateway.cli.client import Client
from llm_gateway.cli.screen import aside
from llm_gateway.v1 import message_pb2
from llm_gateway.v1.llm_service_pb2 import ChatCompletionRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

PROMPT = "> "


def first_request(
    base: bytes, *, model: str | None, system: str | None, params: Mapping[str, Any], time_limit: float | None
) -> ChatCompletionRequest:
    """The request before anything was asked: a request as JSON, and on top of it what is not None."""
    request = ChatCompletionRequest()
    try:
        json_format.Parse(base, request)
        for name, value in params.items():
            if isinstance(value, list):
                getattr(request.params, name).extend(value)
            elif value is not None:
                setattr(request.params, name, value)
        if time_limit is not None:
            request.params.time_limit.FromNanoseconds(round(time_limit * 1e9))
    except (json_format.ParseError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    if model is not None:
        request.model = model
    if system is not None:
        request.messages.insert(0, message_pb2.Message(role=message_pb2.ROLE_SYSTEM, content=system))
    return request


def chat(address: str, request: ChatCompletionRequest, prompt: str | None, *, timeout: float, as_json: bool) -> int:
    """Ask a gateway. Gives the exit code."""
    if prompt is None and sys.stdin.isatty():
        if as_json:
            raise typer.BadParameter("needs a PROMPT, or one on standard input", param_hint="--json")
        return _converse(address, request, timeout=timeout)
    text = sys.stdin.read() if prompt is None or prompt == "-" else prompt
    request.messages.add(role=message_pb2.ROLE_USER, content=text)
    return asyncio.run(_ask_once(address, request, timeout=timeout, as_json=as_json))


async def _ask_once(address: str, request: ChatCompletionRequest, *, timeout: float, as_json: bool) -> int:  # noqa: ASYNC109 - the call's deadline
    async with Client(address) as client:
        view = JsonLines() if as_json else Page()
        return (await ask(client.stub, request, view, timeout=timeout, address=address)).ending


def _converse(address: str, request: ChatCompletionRequest, *, timeout: float) -> int:
    """Ask and answer in turns until Ctrl-D. Only whole answers are remembered, each with its question."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401, PLC0415 - imported, it edits lines and remembers them; absent on some platforms
    aside(f"{request.model or 'the default model'} at {address} · Ctrl-C cancels an answer, Ctrl-D leaves")
    # The loop runs only while an answer comes: at the prompt, Ctrl-C is Python's own.
    with asyncio.Runner() as runner:
        client = runner.run(Client(address).__aenter__())
        try:
            while True:
                turn = _next_turn(request)
                request.messages.extend(turn)
                answer = runner.run(ask(client.stub, request, Page(), timeout=timeout, address=address))
                if answer.ending is Ending.WHOLE:
                    request.messages.append(answer.message)
                else:
                    del request.messages[-len(turn) :]
                aside("")
        except (EOFError, KeyboardInterrupt):
            aside("")
        finally:
            runner.run(client.__aexit__())
    return 0


def _next_turn(request: ChatCompletionRequest) -> list[message_pb2.Message]:
    """What the person says next: the results of the functions that the model called, else a line that is not empty."""
    calls = request.messages[-1].tool_calls if request.messages else ()
    if calls:
        return [
            message_pb2.Message(role=message_pb2.ROLE_TOOL, tool_call_id=call.id, content=input(f"{call.name} = "))
            for call in calls
        ]
    text = ""
    while not text.strip():
        text = input(PROMPT)
    return [message_pb2.Message(role=message_pb2.ROLE_USER, content=text)]
