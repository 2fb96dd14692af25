"""Keys that are nobody's, to run beside the owner's."""

from __future__ import annotations

import hashlib

from ticketguard.embedding.interface import Binding

MOST_DECOYS = 20
DECOY_DOMAIN = b"ticketguard/decoy/v1\0"


def decoy_bindings(commitment: bytes, count: int = MOST_DECOYS) -> list[Binding]:
    """Return keys that are nobody's, derived from the commitment alone, to run beside the owner's."""
    return [
        Binding(
            secret=hashlib.sha256(DECOY_DOMAIN + commitment + index.to_bytes(4, "little")).digest(),
            commitment=commitment,
        )
        for index in range(count)
    ]
