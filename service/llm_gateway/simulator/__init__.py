# SPDX-License-Identifier: Apache-2.0
"""A simulator of vLLM's HTTP API, so that demos, tests and benchmarks need no model and can have any fault."""

from llm_gateway.simulator.options import Behaviour, Fault, Options, ReceivedRequest, Statistics
from llm_gateway.simulator.server import NOT_SIMULATED, Simulator, run

__all__ = [
    "NOT_SIMULATED",
    "Behaviour",
    "Fault",
    "Options",
    "ReceivedRequest",
    "Simulator",
    "Statistics",
    "run",
]
