"""The QR code, as the registry knows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from ticketguard.credentials.claim import MarkClaim
from ticketguard.embedding import qr_code
from ticketguard.embedding.interface import Binding, Mark, Positions
from ticketguard.embedding.pairs import pairs_in
from ticketguard.embedding.qr_code import CodeParameters, QrCode
from ticketguard.errors import CapacityError
from ticketguard.ticket import AnyReference, Mask, Ticket, TicketInfo
from ticketguard.verification.binomial import log10_at_least
from ticketguard.verification.interface import Inquiry, Source, Test, own_parameters
from ticketguard.verification.memory import Memory
from ticketguard.verification.qr_code.examination import OwnCode, examine_code
from ticketguard.verification.qr_code.sizes import LOOKS, sizes_of
from ticketguard.verification.sizing import Size
from ticketguard.verification.verdict import Evidence, level_log10

# What trained codes cost (decision 0086).
MEASURED = (
    "624 edges beside a planted graph in a ResNet-20 of 13 402 edges, trained for four epochs: 0.1 points of accuracy "
    "gained, one seed",
    "832 edges in two perceptrons of 5020 edges, twice each: 1.1 points of accuracy lost (1.4, 1.4, 0.8, 0.8), and an "
    "AUC of 0.62 for a random forest that sees magnitude, layer and channel degrees",
)


class _QrCodeScheme:
    """The QR code, as `ticketguard.verification.interface.Scheme` has it."""

    name = qr_code.SCHEME
    version = qr_code.VERSION
    reads: Source = "weights"
    settings = QrCode
    options: ClassVar[Mapping[str, str]] = {"qr_text": "text"}
    # An untouched copy has to prove the square of the level: thieves leave less.
    room_factor = 2.0
    measured = MEASURED

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
        """Refuse a code of too few pairs: an untouched copy would not reach the square of the level.

        Raises:
            CapacityError: It would not.
        """
        own = _own(claim, binding, reference.mask)
        there = pairs_in(marked, own.drawn)
        needed_log10_p = self.room_factor * level_log10(claim.level_bits)
        if log10_at_least(there, there) > needed_log10_p:
            raise CapacityError(
                layer="the whole ticket",
                needed_edges=int(self.room_factor * claim.level_bits),
                free_edges=there,
                advice="have more pairs a module (--mark-option qr-code.pairs=3), or lower the level",
            )

    def secret_positions(self, claim: MarkClaim, binding: Binding, mask: Mask) -> Mapping[str, Positions]:
        return {name: np.sort(pairs.positions.reshape(-1)) for name, pairs in _own(claim, binding, mask).drawn.items()}

    def decided_positions(self, claim: MarkClaim, binding: Binding, mask: Mask) -> Mapping[str, Positions]:
        """Return both positions of every pair."""
        return self.secret_positions(claim, binding, mask)

    def looks(self, mark: Mark, ticket: Ticket) -> int:
        return LOOKS

    def sizes(self, mark: Mark, ticket: Ticket) -> Sequence[Size]:
        assert isinstance(mark, QrCode)
        return sizes_of(mark, ticket)

    def examine(self, inquiry: Inquiry) -> Test:
        assert inquiry.weights is not None
        parameters = CodeParameters.from_json(own_parameters(inquiry.mark))

        def test(threshold_log10_p: float) -> Evidence:
            return examine_code(inquiry.way_to_read(), inquiry.binding, parameters, threshold_log10_p=threshold_log10_p)

        return test

    def glance(self, inquiry: Inquiry, seen: Memory) -> None:
        """Return nothing: a code is read as a whole or not at all."""
        return


def _own(claim: MarkClaim, binding: Binding, reference: Mask) -> OwnCode:
    return OwnCode.of(CodeParameters.from_json(own_parameters(claim)), reference, binding)


SCHEME = _QrCodeScheme()
