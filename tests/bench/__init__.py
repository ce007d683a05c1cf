# SPDX-License-Identifier: Apache-2.0
"""What the gateway costs: its CPU per token and per request, the latency it adds, its memory per stream."""
