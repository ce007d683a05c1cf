# SPDX-License-Identifier: Apache-2.0
"""The use case: admit a call, try backends, relay one answer, end honestly."""

from llm_gateway.gateway.gateway import Gateway

__all__ = ["Gateway"]
