# SPDX-License-Identifier: Apache-2.0
"""What happens around every call of ours, outermost first: see `server.INTERCEPTORS`."""
