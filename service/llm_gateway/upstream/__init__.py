# SPDX-License-Identifier: Apache-2.0
"""From the name of a model to a backend that serves it, and how often one is tried."""
