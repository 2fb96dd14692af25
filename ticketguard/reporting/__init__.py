"""How results look: verdicts and documents as text, masks as pictures."""

from __future__ import annotations

from ticketguard.reporting.plots import draw_before_after, draw_mask
from ticketguard.reporting.text import document_lines, verdict_lines

__all__ = ["document_lines", "draw_before_after", "draw_mask", "verdict_lines"]
