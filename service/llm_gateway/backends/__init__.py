# SPDX-License-Identifier: Apache-2.0
"""The drivers: each speaks one protocol to one backend, and maps its failures to the gateway's errors."""
