# SPDX-License-Identifier: Apache-2.0
"""Between the wire and the gateway's own words: pure functions, and the only room that knows both."""
