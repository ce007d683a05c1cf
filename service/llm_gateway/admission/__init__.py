# SPDX-License-Identifier: Apache-2.0
"""Who may come in, who waits for a seat, and who is sent away at once."""

from llm_gateway.admission.admission import Admission, AdmissionStatistics
from llm_gateway.admission.pressure import Pressure, PressureStatistics
from llm_gateway.admission.seats import SeatStatistics
from llm_gateway.admission.ticket import Limits, Ticket

__all__ = ["Admission", "AdmissionStatistics", "Limits", "Pressure", "PressureStatistics", "SeatStatistics", "Ticket"]
