"""Keys that are nobody's, to run beside the owner's."""

from __future__ import annotations

import hashlib

from ticketguard.embedding.interface import Binding

LEAST_DECOYS, MOST_DECOYS = 2, 20
DECOY_DOMAIN = b"ticketguard/decoy/v1\0"


def decoy_bindings(commitment: bytes, *, positions: int, most_positions: int) -> list[Binding]:
    """Return keys that are nobody's, derived from the commitment alone, to run beside the owner's.

    Args:
        commitment: Of the mark.
        positions: That are drawn for one of them.
        most_positions: For all of them: decoys are for the eye, and where one costs much, a few are enough.
    """
    count = min(MOST_DECOYS, max(LEAST_DECOYS, most_positions // max(1, positions)))
    return [
        Binding(
            secret=hashlib.sha256(DECOY_DOMAIN + commitment + index.to_bytes(4, "little")).digest(),
            commitment=commitment,
        )
        for index in range(count)
    ]
