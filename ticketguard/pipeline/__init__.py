"""The verbs find, embed, verify: where the parts meet.

``find → Ticket → embed → (marked Ticket, Credential) → … → Suspect + Credential → Evidence → Verdict``
"""

from __future__ import annotations

from ticketguard.pipeline.embedding import embed
from ticketguard.pipeline.finding import find, find_marked
from ticketguard.pipeline.verifying import verify

__all__ = ["embed", "find", "find_marked", "verify"]
