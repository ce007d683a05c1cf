# SPDX-License-Identifier: Apache-2.0
"""A worker in a cluster: its calls are spread over all gateways, and it leaves one before that one goes."""

import asyncio
import json
import os
import sys

import grpc

from llm_gateway.v1.llm_service_pb2 import ChatCompletionRequest
from llm_gateway.v1.llm_service_pb2_grpc import LLMServiceStub
from llm_gateway.v1.message_pb2 import ROLE_USER, Message

GATEWAY = os.environ["LLM_GATEWAY_ADDR"]
MODEL = os.environ.get("LLM_DEFAULT_MODEL")
CHANNEL = [
    (
        "grpc.service_config",
        json.dumps(
            {
                # One connection to every address behind the name of a headless Service, in turns …
                "loadBalancingConfig": [{"round_robin": {}}],
                # … and none to a gateway that says that it is about to go.
                "healthCheckConfig": {"serviceName": "llm_gateway.v1.LLMService"},
            }
        ),
    ),
    ("grpc.dns_min_time_between_resolutions_ms", 5_000),  # pods come and go
    ("grpc.enable_http_proxy", 0),
]


async def main(question: str) -> None:
    request = ChatCompletionRequest(messages=[Message(role=ROLE_USER, content=question)], model=MODEL)
    async with grpc.aio.insecure_channel(f"dns:///{GATEWAY}", options=CHANNEL) as channel:
        call = LLMServiceStub(channel).ChatCompletionStream(request, timeout=60, wait_for_ready=True)
        try:
            async for event in call:
                sys.stdout.write(event.delta.text)
                if event.WhichOneof("event") == "completed":
                    sys.stdout.write(f"\n{event.completed.usage.total_tokens} tokens\n")
        finally:
            call.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))  # any bad ending is an exception, and a Job that has failed
