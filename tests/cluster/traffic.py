# SPDX-License-Identifier: Apache-2.0
"""Steady traffic from inside a cluster, as workers make it. Nothing is tried again.

traffic.py HEADLESS SERVICE STREAMS: half of the streams go round robin over all pods behind a headless Service, the
others over connections to the Service's one address. After SIGTERM it lets running streams end and prints one line of
JSON: how often each ending was seen.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import Counter
from typing import TYPE_CHECKING

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from llm_gateway.v1.llm_service_pb2 import ChatCompletionRequest
from llm_gateway.v1.llm_service_pb2_grpc import LLMServiceStub
from llm_gateway.v1.message_pb2 import ROLE_USER, Message

if TYPE_CHECKING:
    from llm_gateway.v1.llm_service_pb2_grpc import LLMServiceAsyncStub

TOKENS = 400
PACE = 0.1
"""Seconds between tokens: a stream takes 40."""
CONNECTIONS = 10
ROUND_ROBIN = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": "llm_gateway.v1.LLMService"},
    }
)
OPTIONS = [
    ("grpc.dns_min_time_between_resolutions_ms", 5_000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),  # not even those that gRPC makes by itself
]
REQUEST = ChatCompletionRequest(
    messages=[Message(role=ROLE_USER, content=f"[[sim tokens={TOKENS} pace_ms={PACE * 1000:.0f}]]")]
)
REQUEST.params.max_tokens = TOKENS


async def ending(stub: LLMServiceAsyncStub) -> str:
    """How one stream ends, in a word or two."""
    call = stub.ChatCompletionStream(REQUEST, timeout=120, wait_for_ready=True)
    tokens = None
    try:
        async for event in call:
            if event.WhichOneof("event") == "completed":
                tokens = event.completed.usage.completion_tokens
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name} {reason_of(error)}"
    return "OK" if tokens == TOKENS else f"{tokens} tokens"


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The gateway's own word, or what gRPC says where no gateway did."""
    status, info = Status(), ErrorInfo()
    packed = dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
    assert isinstance(packed, bytes)
    status.ParseFromString(packed)
    for detail in status.details:
        detail.Unpack(info)
    return info.reason or error.details() or ""


async def main(headless: str, service: str, streams: int) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    endings: Counter[str] = Counter()
    balanced = grpc.aio.insecure_channel(f"dns:///{headless}", options=[*OPTIONS, ("grpc.service_config", ROUND_ROBIN)])
    pinned = [grpc.aio.insecure_channel(service, options=OPTIONS) for _ in range(CONNECTIONS)]
    channels = [balanced] * CONNECTIONS + pinned

    async def stream_after_stream(number: int) -> None:
        stub: LLMServiceAsyncStub = LLMServiceStub(channels[number % len(channels)])
        await asyncio.sleep(number * TOKENS * PACE / streams)  # so that they do not all end at once
        while not ended.is_set():
            endings[await ending(stub)] += 1

    await asyncio.gather(*map(stream_after_stream, range(streams)))
    sys.stdout.write(json.dumps(endings) + "\n")
    for channel in (balanced, *pinned):
        await channel.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
