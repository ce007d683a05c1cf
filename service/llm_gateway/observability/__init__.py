# SPDX-License-Identifier: Apache-2.0
"""What an operator sees: the record of each call, the clock that times it, the log that tells it."""
