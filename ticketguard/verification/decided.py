"""Positions of a mask that one mark of a claim decides, and that another leaves out of what it counts.

Draws of two marks are independent, so leaving the positions of one out of the count of the other changes no p-value's
validity: given them, the other's secret positions are as random among the rest as they were among all.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ticketguard.credentials.claim import MarkClaim
from ticketguard.embedding.interface import Binding, Positions
from ticketguard.errors import UnknownVersionError
from ticketguard.ticket import Mask
from ticketguard.verification.interface import DecidingScheme
from ticketguard.verification.registry import scheme_of


def decided_by_others(marks: Iterable[MarkClaim], own: MarkClaim, *, secret: bytes, mask: Mask) -> dict[str, Positions]:
    """Return, per layer that has any, the flat positions that the other marks of a claim decide, ascending.

    Marks that this release does not know decide nothing.

    Args:
        marks: All marks of the claim.
        own: The one that is counted.
        secret: The owner's.
        mask: Of the reference.

    Raises:
        CredentialError: The parameters of another mark cannot be used.
    """
    found: dict[str, Positions] = {}
    for mark in marks:
        if mark.scheme == own.scheme or (scheme := _deciding(mark)) is None:
            continue
        binding = Binding(secret=secret, commitment=mark.commitment)
        for name, positions in scheme.decided_positions(mark, binding, mask).items():
            found[name] = np.union1d(found.get(name, positions), positions)
    return {name: positions for name, positions in found.items() if len(positions)}


def _deciding(mark: MarkClaim) -> DecidingScheme | None:
    try:
        known = scheme_of(mark)
    except UnknownVersionError:
        return None
    return known if isinstance(known, DecidingScheme) else None
