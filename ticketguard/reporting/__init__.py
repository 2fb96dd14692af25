"""How results look: verdicts and documents as text, masks and checks as pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ticketguard.lazily import loader

if TYPE_CHECKING:
    from ticketguard.reporting.plots import draw_before_after, draw_mask
    from ticketguard.reporting.text import document_lines, verdict_lines
    from ticketguard.reporting.ticket_check import check_lines, draw_check

__all__ = ["check_lines", "document_lines", "draw_before_after", "draw_check", "draw_mask", "verdict_lines"]
__getattr__ = loader(
    __name__,
    {
        "check_lines": "ticketguard.reporting.ticket_check",
        "document_lines": "ticketguard.reporting.text",
        "draw_before_after": "ticketguard.reporting.plots",
        "draw_check": "ticketguard.reporting.ticket_check",
        "draw_mask": "ticketguard.reporting.plots",
        "verdict_lines": "ticketguard.reporting.text",
    },
)
