"""QR codes of every size that a ticket has room for: what they cost, and what thieves leave of them."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from ticketguard.embedding.pairs import PairedLayers
from ticketguard.embedding.qr_code import QrCode
from ticketguard.embedding.qr_planning import Code, one_pair
from ticketguard.ticket import Mask, Ticket
from ticketguard.verification.binomial import log10_at_least
from ticketguard.verification.passes import PASSES
from ticketguard.verification.readings import READINGS
from ticketguard.verification.sizing import ONE_IN_TWENTY, Foresight, auc_of_layers
from ticketguard.verification.thefts import CHANNELS, PRUNED, REGROWN, Theft

LOOKS = len(READINGS) * PASSES
# Channel axes of a layer that lie between layers, in most layers.
INNER_AXES = 2


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CodeSize:
    """A QR code of one size, as `ticketguard.verification.sizing.Size` has it.

    Attributes:
        mark: The mark.
        code: The code that it has.
        ticket_mask: Of the ticket.
    """

    mark: QrCode
    code: Code
    ticket_mask: Mask

    @property
    def settings(self) -> Mapping[str, float]:
        """Version, level and pairs a module."""
        symbol = self.code.symbol
        return {"qr_version": symbol.version, "correction": symbol.correction, "pairs": self.code.pairs}

    @property
    def moved_edges(self) -> int:
        """One a pair."""
        return self.code.edges

    @functools.cached_property
    def layers_auc(self) -> float:
        """AUC of naming first the edges of the layers with the highest share of moved edges."""
        shares = PairedLayers(self.ticket_mask).shares(self.code.edges)
        moved = np.array([end - first for first, end in shares.values()], dtype=np.float64)
        return auc_of_layers(moved, np.array([self.ticket_mask.count(name) for name in shares]) - moved)

    def foresee(self, theft: Theft) -> Foresight:
        """Say what a copy will show after a theft, and how likely its picture is decoded."""
        left, noise = self._after(theft)
        right, wrong = one_pair(left, noise)
        pairs = self.code.edges
        unlucky = ONE_IN_TWENTY * math.sqrt(pairs * right * (1 - right))
        ordinary, rare = (self._log10_p(pairs * right - less, pairs * wrong) for less in (0.0, unlucky))
        read = self.code.soft_probability(left, noise)
        return Foresight(theft=theft, log10_p=ordinary, unlucky_log10_p=rare, decoded=read)

    def _log10_p(self, right: float, wrong: float) -> float:
        agreeing = max(0, math.floor(right))
        return min(0.0, log10_at_least(agreeing, agreeing + math.ceil(wrong)) + math.log10(LOOKS))

    def _after(self, theft: Theft) -> tuple[float, float]:
        """Return the share of the edges that is left, and the density of others where the reference has none."""
        own, others = 1.0, 0.0
        for step in theft.steps:
            if step.kind == PRUNED:
                own, others = own * (1 - step.share), others * (1 - step.share)
            elif step.kind == REGROWN:
                others += (own + others) * step.share
            elif step.kind == CHANNELS:
                kept = (1 - step.share) ** INNER_AXES
                own, others = own * kept, others * kept
            else:  # edges give way to others
                moved = own * step.share
                own, others = own - moved, others + moved
        return own, min(1.0, others * self._odds)

    @functools.cached_property
    def _odds(self) -> float:
        """Edges for each empty position, in the mean over edges: where codes are."""
        mask = self.ticket_mask
        edges = [(mask.count(name), math.prod(mask.shape(name)) - mask.count(name)) for name in mask]
        return sum(kept * kept / max(1, empty) for kept, empty in edges) / max(1, mask.kept)


def sizes_of(mark: QrCode, ticket: Ticket) -> Sequence[CodeSize]:
    """Return codes with the *mark*'s text that fit a ticket, the smallest first, each lasting longer than those before.

    A version, level or number of pairs that *mark* names is left alone.
    """
    room = PairedLayers(ticket.mask).room
    found: list[CodeSize] = []
    for code in sorted(mark.fitting(), key=lambda code: (code.edges, code.least_left)):
        if code.edges <= room and (not found or code.least_left < found[-1].code.least_left):
            symbol = code.symbol
            settings = {"qr_version": symbol.version, "correction": symbol.correction, "pairs": code.pairs}
            sized = dataclasses.replace(mark, **settings)  # type: ignore[arg-type]
            found.append(CodeSize(mark=sized, code=code, ticket_mask=ticket.mask))
    return found
