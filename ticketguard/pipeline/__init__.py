"""The verbs find, embed, verify: where the parts meet.

``find → Ticket → embed → (marked Ticket, Credential) → … → Suspect + Credential → Evidence → Verdict``
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ticketguard.lazily import loader

if TYPE_CHECKING:
    from ticketguard.pipeline.embedding import embed
    from ticketguard.pipeline.finding import find, find_marked
    from ticketguard.pipeline.judging import Judge
    from ticketguard.pipeline.verifying import verify

__all__ = ["Judge", "embed", "find", "find_marked", "verify"]
__getattr__ = loader(
    __name__,
    {
        "Judge": "ticketguard.pipeline.judging",
        "embed": "ticketguard.pipeline.embedding",
        "find": "ticketguard.pipeline.finding",
        "find_marked": "ticketguard.pipeline.finding",
        "verify": "ticketguard.pipeline.verifying",
    },
)
