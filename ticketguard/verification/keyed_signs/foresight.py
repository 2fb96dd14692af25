"""What the signs of a copy will show after a theft, for a ticket that was found with keyed signs.

Of a ticket's edges a share is at votes, and most of those keep the sign that they started with. Whatever removes edges
leaves those that agree at least as often as the others; whatever adds edges adds as many that agree as that do not.
Weights that are trained anew from other start weights agree by chance.
"""

from __future__ import annotations

import dataclasses
import math

from ticketguard.ticket import Ticket
from ticketguard.ticket.start_reference import SHARES
from ticketguard.verification.binomial import log10_at_least
from ticketguard.verification.keyed_signs.counting import AGREEING
from ticketguard.verification.passes import PASSES
from ticketguard.verification.readings import READINGS
from ticketguard.verification.sizing import ONE_IN_TWENTY, Foresight
from ticketguard.verification.thefts import CHANNELS, PRUNED, REGROWN, Theft

# Share of the edges that agree in an ordinary copy: the mean of two ResNet-20s that were rewound to half an epoch and
# trained at a rate of 0.1 (79 and 88%); perceptrons that were rewound to their start have 98 to 100%.
ORDINARY = 0.84
# Channel axes of a layer that lie between layers, in most layers.
INNER_AXES = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Left:
    """What a theft leaves of a copy's edges.

    Attributes:
        own: Edges that were trained from the start weights.
        others: Edges that were not.
    """

    own: float
    others: float


def foreseen(ticket: Ticket, theft: Theft, *, anchors: float) -> Foresight:
    """Say what a copy will show, once the verifier's looks at one network are paid for.

    Args:
        ticket: A ticket of as many edges as the one to be found.
        theft: What is done to it.
        anchors: Share of the positions that are anchors.
    """
    votes_of = 1 - round(anchors * SHARES) / SHARES
    left = _after(theft, edges=float(ticket.mask.kept))
    looks = math.log10(len(READINGS) * PASSES)
    ordinary, unlucky = (
        min(0.0, _shown(left, votes_of, agreeing, deviations) + looks)
        for agreeing, deviations in ((ORDINARY, 0.0), (AGREEING, ONE_IN_TWENTY))
    )
    return Foresight(theft=theft, log10_p=ordinary, unlucky_log10_p=unlucky)


def _after(theft: Theft, *, edges: float) -> Left:
    own, others = edges, 0.0
    for step in theft.steps:
        if step.kind == PRUNED:
            own, others = own * (1 - step.share), others * (1 - step.share)
        elif step.kind == REGROWN:
            others += (own + others) * step.share
        elif step.kind == CHANNELS:
            kept = (1 - step.share) ** INNER_AXES
            own, others = own * kept, others * kept
        elif step.is_from_new_weights:
            own, others = 0.0, own + others
        else:  # edges pass each other while all are trained on
            moved = own * step.share
            own, others = own - moved, others + moved
    return Left(own=own, others=others)


def _shown(left: Left, votes_of: float, agreeing: float, deviations: float) -> float:
    """Return log10 p of the votes, each drawn from own edges that agree so often, and others that agree by chance."""
    own, others = left.own * votes_of, left.others * votes_of
    mean = own * agreeing + others / 2
    spread = math.sqrt(own * agreeing * (1 - agreeing) + others / 4)
    votes = round(own + others)
    return log10_at_least(max(0, min(votes, math.floor(mean - deviations * spread))), votes)
