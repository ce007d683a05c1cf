# SPDX-License-Identifier: Apache-2.0
"""What the chart lets a vLLM's container run is a command that a real vLLM starts with, and the gateway finds it."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from llm_gateway.v1 import llm_service_pb2
from tests.chart.rendering import container_of, environment_of, helm_path, render
from tests.kit.calls import read_stream
from tests.kit.gateway import start_gateway_of
from tests.vllm.asking import TOKENS, story, stream_of
from tests.vllm.server import OwnVllm, free_port, installed, started

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.chart.rendering import Manifests

pytestmark = pytest.mark.vllm

ANYWHERE = "0.0.0.0"  # noqa: S104 - where a container listens
ON_A_CPU = {"HF_HUB_OFFLINE": "1", "TORCH_COMPILE_DISABLE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def cache() -> Path:
    """A vLLM for the CPU and its tiny model; helm."""
    if helm_path() is None:
        pytest.skip("no helm to render the chart with")
    return installed()


@pytest.fixture(scope="module")
def chart(cache: Path) -> Manifests:
    """The chart with one entry: the tiny model, without a GPU."""
    vllm = {
        "model": str(cache / "tiny"),
        "gpu": {"count": 0},
        "dtype": "float32",
        "maxModelLen": 2048,
        "maxNumSeqs": 64,
        "maxNumQueuedReqs": 128,
        "toolCallParser": "hermes",
        "args": ["--kv-cache-memory-bytes", "256M", "--enforce-eager"],
        "env": [{"name": name, "value": value} for name, value in ON_A_CPU.items()],
    }
    return render({"models": {"tiny": {"vllm": vllm}}})


@pytest.fixture(scope="module")
def own(cache: Path, chart: Manifests, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnVllm]:
    """The rendered command, run here as it stands: only the image, the address and the volumes are others."""
    workload, port, volumes = chart.one("Deployment", "-engine-tiny"), free_port(), tmp_path_factory.mktemp("volumes")
    container = container_of(workload)
    assert container["command"] == ["vllm", "serve"]
    here = {ANYWHERE: "127.0.0.1", "8000": str(port)}
    command = [cache / "venv/bin/vllm", "serve", *(here.get(argument, argument) for argument in container["args"])]
    paths = {mount["mountPath"]: str(volumes) + mount["mountPath"] for mount in container["volumeMounts"]}
    environment = {name: moved(value, paths) for name, value in environment_of(workload).items()}
    environment = os.environ | environment
    with started(OwnVllm(command, port=port, environment=environment, log=cache / "chart.log")) as own:
        yield own


def moved(value: str, paths: dict[str, str]) -> str:
    """A path on a volume, where that volume is here."""
    return next((here + value.removeprefix(path) for path, here in paths.items() if value.startswith(path)), value)


@pytest.fixture
def models(chart: Manifests, own: OwnVllm) -> list[dict[str, Any]]:
    """The gateway's models as the chart derives them; that vLLM is well, and the Service's name leads to it."""
    own.revive()
    models = list(chart.models().values())
    for model in models:
        for backend in model["backends"]:
            assert backend["url"] == "dns+http://demo-llm-gateway-engine-tiny:8000"
            backend["url"] = own.vllm.url
    return models


async def test_the_derived_models_file_serves_what_the_rendered_command_started(models: list[dict[str, Any]]) -> None:
    async with start_gateway_of(models) as gateway:
        outcome = await stream_of(gateway, story(max_tokens=8, ignore_eos=True))
        listed = await gateway.stub.ListModels(llm_service_pb2.ListModelsRequest())

    assert (outcome.finish(), outcome.completed.usage.completion_tokens) == ("LENGTH", 8)
    assert [model.name for model in listed.models] == ["tiny"]


async def test_sigterm_lets_a_running_stream_end_as_the_shutdown_timeout_promises(
    own: OwnVllm, models: list[dict[str, Any]]
) -> None:
    async with start_gateway_of(models) as gateway:
        call = gateway.stub.ChatCompletionStream(story(max_tokens=TOKENS, ignore_eos=True), timeout=60)
        rest = aiter(call)
        first = await anext(rest)
        own.send(signal.SIGTERM, "api")
        outcome = await read_stream(call, [first], rest)

    assert outcome.completed.usage.completion_tokens == TOKENS
    assert own.exit_code() == 0
