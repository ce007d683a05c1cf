# SPDX-License-Identifier: Apache-2.0
"""A gRPC gateway in front of vLLM for workers that stream tokens."""

__version__ = "0.1.0"
