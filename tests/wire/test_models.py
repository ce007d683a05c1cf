# SPDX-License-Identifier: Apache-2.0
"""Which models there are, and which one answers a request that names it or does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from aiohttp import web

from llm_gateway.v1 import llm_service_pb2 as pb
from tests.kit.calls import chat_request
from tests.kit.gateway import failure_of, start_gateway
from tests.kit.sockets import closed_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.kit.gateway import Failure, RunningGateway

BASE = {"id": "base", "owned_by": "vllm", "max_model_len": 4096, "parent": None}
ADAPTER = {"id": "adapter", "owned_by": "vllm", "max_model_len": None, "parent": "base"}
OTHER = {"id": "other"}


class Models:
    """A backend that lists models and answers for those, as vLLM does. `lists` counts how often it was asked."""

    def __init__(self) -> None:
        self.answer: Any = {"object": "list", "data": [BASE]}
        self.lists = 0
        self.url = ""

    async def list(self, _: web.Request) -> web.Response:
        self.lists += 1
        return web.json_response(self.answer)

    async def health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def chat(self, request: web.Request) -> web.Response:
        model = (await request.json())["model"]
        if model not in {listed["id"] for listed in self.answer["data"]}:
            error = {"message": "no", "type": "NotFoundError", "param": "model", "code": 404}
            return web.json_response({"error": error}, status=404)
        choice = {"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1}
        return web.json_response({"model": model, "choices": [choice], "usage": usage})


@pytest.fixture
async def models() -> AsyncIterator[Models]:
    served = Models()
    app = web.Application()
    app.add_routes([web.get("/v1/models", served.list), web.post("/v1/chat/completions", served.chat)])
    app.add_routes([web.get("/health", served.health)])  # else probes would ask for the models
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield served
    await runner.cleanup()


async def answering(gateway: RunningGateway, model: str | None) -> str:
    """The model that answers a chat for `model`."""
    request = chat_request()
    if model is not None:
        request.model = model
    response = await gateway.stub.ChatCompletion(request, timeout=30)
    return response.model


async def refusal(gateway: RunningGateway, model: str | None) -> Failure:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answering(gateway, model)
    return failure_of(caught.value)


async def test_models_are_listed_with_what_the_backend_says_of_them(models: Models) -> None:
    models.answer = {"data": [OTHER, BASE, ADAPTER]}
    async with start_gateway(models.url, default_model="base") as gateway:
        response = await gateway.stub.ListModels(pb.ListModelsRequest(), timeout=30)

    assert [model.name for model in response.models] == ["adapter", "base", "other"]
    adapter, base, other = response.models
    assert (base.context_length, base.owned_by, base.is_default, base.HasField("parent")) == (4096, "vllm", True, False)
    assert (adapter.parent, adapter.HasField("context_length"), adapter.is_default) == ("base", False, False)
    assert not other.HasField("owned_by")


@pytest.mark.parametrize(
    ("served", "default", "named", "answers"),
    [
        ([BASE], None, None, "base"),
        ([BASE, ADAPTER], None, None, "base"),
        ([BASE, ADAPTER], None, "adapter", "adapter"),
        ([BASE, OTHER], "other", None, "other"),
        ([BASE, OTHER], "other", "base", "base"),
    ],
)
async def test_a_request_reaches_the_model_that_it_names_or_else_the_default_or_the_only_one(
    served: list[Any], default: str | None, named: str | None, answers: str, models: Models
) -> None:
    models.answer = {"data": served}
    async with start_gateway(models.url, default_model=default) as gateway:
        assert await answering(gateway, named) == answers


async def test_of_several_models_one_must_be_named(models: Models) -> None:
    models.answer = {"data": [BASE, OTHER]}
    async with start_gateway(models.url) as gateway:
        failure = await refusal(gateway, None)

    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert failure.violations == ["model"]


async def test_an_unknown_model_is_not_found(models: Models) -> None:
    async with start_gateway(models.url) as gateway:
        failure = await refusal(gateway, "nobody")

    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    assert failure.info.metadata["model"] == "nobody"


async def test_the_list_is_believed_for_a_while(models: Models) -> None:
    async with start_gateway(models.url) as gateway:
        for _ in range(3):
            await answering(gateway, None)

    assert models.lists == 1


@pytest.mark.parametrize("answer", [{"data": [{"name": "x"}]}, {"models": []}, [], "text", {"data": None}], ids=str)
async def test_a_list_that_is_none_is_a_protocol_error(answer: Any, models: Models) -> None:
    models.answer = answer
    async with start_gateway(models.url) as gateway:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway.stub.ListModels(pb.ListModelsRequest(), timeout=30)

    failure = failure_of(caught.value)
    assert (failure.code, failure.reason) == (grpc.StatusCode.INTERNAL, "BACKEND_PROTOCOL_ERROR")


async def test_without_a_backend_no_models_can_be_listed() -> None:
    with closed_port() as port:
        async with start_gateway(f"http://127.0.0.1:{port}") as gateway:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await gateway.stub.ListModels(pb.ListModelsRequest(), timeout=30)

    failure = failure_of(caught.value)
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_HEALTHY_BACKEND")
    assert len(failure.report.attempts) == 3
