# SPDX-License-Identifier: Apache-2.0
"""Random faults under steady traffic: what no list of faults foresees. `make chaos`; see docs/chaos.md."""
