"""Keyed signs, as the registry knows them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from ticketguard.credentials.claim import MarkClaim
from ticketguard.embedding import keyed_signs
from ticketguard.embedding.interface import Binding, Mark, Positions
from ticketguard.embedding.keyed_signs import KeyedSigns, SignParameters
from ticketguard.errors import CapacityError, CredentialError
from ticketguard.ticket import AnyReference, Mask, StartReference, Ticket, TicketInfo
from ticketguard.verification.binomial import log10_at_least
from ticketguard.verification.interface import Glance, Inquiry, Source, Test, own_parameters
from ticketguard.verification.keyed_signs.counting import AGREEING
from ticketguard.verification.keyed_signs.examination import examine_signs
from ticketguard.verification.keyed_signs.foresight import foreseen
from ticketguard.verification.keyed_signs.glancing import glance
from ticketguard.verification.memory import Memory
from ticketguard.verification.sizing import Foresight
from ticketguard.verification.thefts import Theft
from ticketguard.verification.verdict import Evidence, level_log10

# An untouched copy has to prove the square of the level: thieves leave less.
ROOM_FACTOR = 2.0
MORE_VOTES = "raise the density, have fewer anchors (--mark-option keyed-signs.anchors=0.5), or leave keyed-signs out"


def _start_of(reference: AnyReference) -> StartReference:
    """Return the start weights that a mark rests on.

    Raises:
        CredentialError: The vault keeps something else.
    """
    if not isinstance(reference, StartReference):
        raise CredentialError(
            f"the vault keeps an unmarked ticket, expected the start weights that {keyed_signs.SCHEME} rest on: it was "
            "not made by ticketguard"
        )
    return reference


class _KeyedSignsScheme:
    """Keyed signs, as `ticketguard.verification.interface.Scheme` has it."""

    name = keyed_signs.SCHEME
    version = keyed_signs.VERSION
    reads: Source = "weights"
    settings: type[Mark] = KeyedSigns
    options: ClassVar[Mapping[str, str]] = {}

    def fits(self, info: TicketInfo) -> bool:
        return True

    def require_room(
        self,
        claim: MarkClaim,
        binding: Binding,
        *,
        marked: Mask,
        reference: AnyReference,
        decided: Mapping[str, Positions],
    ) -> None:
        """Refuse a mask that keeps too few votes to prove anything.

        Raises:
            CapacityError: An untouched copy's p would not reach the square of the level.
        """
        start = _start_of(reference)
        votes = sum(
            int(np.count_nonzero(marked[name].reshape(-1) & ~start.anchors(name)))
            for name in marked
            if name in start.layers
        )
        needed_log10_p = ROOM_FACTOR * level_log10(claim.level_bits)
        if log10_at_least(round(AGREEING * votes), votes) <= needed_log10_p:
            return
        # Each vote is worth as much: what is needed grows with the level.
        bits_a_vote = 1 + AGREEING * math.log2(AGREEING) + (1 - AGREEING) * math.log2(1 - AGREEING)
        needed = math.ceil(ROOM_FACTOR * claim.level_bits / bits_a_vote)
        raise CapacityError(
            layer="the whole ticket", needed_edges=max(needed, votes + 1), free_edges=votes, advice=MORE_VOTES
        )

    def secret_positions(self, claim: MarkClaim, binding: Binding, mask: Mask) -> Mapping[str, Positions]:
        SignParameters.from_json(own_parameters(claim))
        return {}

    def foresee(self, mark: Mark, ticket: Ticket, theft: Theft) -> Foresight:
        """Say what the signs of a copy will show after a theft."""
        assert isinstance(mark, KeyedSigns)
        return foreseen(ticket, theft, anchors=mark.anchors)

    def examine(self, inquiry: Inquiry) -> Test:
        assert inquiry.weights is not None
        parameters = SignParameters.from_json(own_parameters(inquiry.mark))
        _start_of(inquiry.credential.reference)

        def test(threshold_log10_p: float) -> Evidence:
            return examine_signs(
                inquiry.way_to_read(),
                inquiry.binding,
                parameters,
                threshold_log10_p=threshold_log10_p,
                memory=inquiry.memory,
            )

        return test

    def glance(self, inquiry: Inquiry, seen: Memory) -> Glance:
        assert inquiry.weights is not None
        SignParameters.from_json(own_parameters(inquiry.mark))
        reference = _start_of(inquiry.credential.reference)
        return glance(
            inquiry.weights,
            reference,
            inquiry.binding,
            groups=inquiry.bound_groups(reference.mask),
            memory=inquiry.memory,
        )


SCHEME = _KeyedSignsScheme()
