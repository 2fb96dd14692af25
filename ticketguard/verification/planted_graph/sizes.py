"""Planted graphs of many sizes: how large a share moves, how large the secret set has to be, and what that costs."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from ticketguard.embedding.planted_graph import DENSE, PARTS, PlantedGraph, PlantedParameters
from ticketguard.errors import ConfigurationError
from ticketguard.ticket import Ticket
from ticketguard.verification.planted_graph.counting import looks_at_one
from ticketguard.verification.planted_graph.foresight import Copy, Outline, PerLayer, after, untouched
from ticketguard.verification.sizing import ONE_IN_TWENTY, Foresight, auc_of_layers
from ticketguard.verification.thefts import Theft

SHARES = (
    *(0.0001, 0.00015, 0.0002, 0.0003, 0.0005, 0.0007, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.007),
    *(0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3),
)
SECRET_SHARES = (0.001, 0.0014, 0.002, 0.003, 0.005, 0.007, 0.01, 0.014, 0.02, 0.03, 0.05, 0.07, 0.1)
# A secret set that has too few positions in dense layers leaves planted edges to the sparse ones. It is as small as it
# can be while an edge's layer tells whether it is planted with no more than this AUC.
MOST_LAYERS_AUC = 0.52
# A mark of few edges misses small layers whatever the secret set is; a larger one is then no better hidden.
CLOSE_TO_THE_BEST = 0.005
# From benchmarks/results/fidelity.json, stealth.json and planted_signs.json; a test compares them.
MEASURED = (
    "share 0.05 with secret_share 0.03, trained for eight epochs in three ResNet-20 tickets of 5% density: 0.00 points "
    "of accuracy lost (0.35, -0.24, -0.10; beside a trigger set), and an AUC of 0.53 (0.58, 0.52, 0.48) for a random "
    "forest that sees magnitude, layer and channel degrees",
    "with signs, the same share in three perceptrons of 10% density: 0.19 points of accuracy lost beside the same mark "
    "without them (0.56, -0.56, 0.56: two images of 359), and 6% of them turned by training (8, 6, 6)",
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PlantedSize:
    """A planted graph of one size, as `ticketguard.verification.sizing.Size` has it.

    Attributes:
        mark: The mark.
        parameters: What a claim will say of it.
        outline: Of the ticket.
    """

    mark: PlantedGraph
    parameters: PlantedParameters
    outline: Outline

    @property
    def settings(self) -> Mapping[str, float]:
        """Share of the edges, and of the positions that are secret."""
        return {"share": self.mark.share, "secret_share": self.parameters.secret_ppm / PARTS}

    @functools.cached_property
    def copy(self) -> Copy:
        """An untouched copy."""
        return untouched(self.outline, self.parameters)

    @functools.cached_property
    def moved(self) -> PerLayer:
        """Per layer the edges that go: as many come, but in the full layers of a dense ticket."""
        full = self.outline.edges == self.outline.positions
        return np.where(full, self.outline.edges - self.copy.edges, self.copy.hits)

    @property
    def moved_edges(self) -> int:
        """All of them."""
        return round(float(self.moved.sum()))

    @property
    def layers_auc(self) -> float:
        """AUC of naming first the edges of the layers with the highest share of moved edges; ties count half."""
        return auc_of_layers(self.moved, self.outline.edges - self.moved)

    def foresee(self, theft: Theft) -> Foresight:
        """Say what a copy will show after a theft, once the verifier's looks are paid for."""
        left = after(self.copy, theft)
        paid = math.log10(looks_at_one(is_signed=self.parameters.is_signed))
        ordinary, unlucky = (min(0.0, copy.log10_p() + paid) for copy in (left, left.unlucky(ONE_IN_TWENTY)))
        return Foresight(theft=theft, log10_p=ordinary, unlucky_log10_p=unlucky)


def sizes_of(mark: PlantedGraph, ticket: Ticket) -> list[PlantedSize]:
    """Return planted graphs of every share that fits, each with the smallest secret set that hides it well enough.

    A secret share that *mark* fixes is left alone, and so is a dense ticket's: evidence of holes grows with it.
    """
    outline = Outline.of(ticket)
    dense = ticket.mask.density >= DENSE
    secret_shares = (mark.secret_share,) if dense or mark.secret_share is not None else SECRET_SHARES
    found = []
    for share in SHARES:
        sizes = []
        for secret_share in secret_shares:
            size = dataclasses.replace(mark, share=share, secret_share=secret_share)
            parameters = _parameters_in_holes(size, ticket) if dense else _parameters(size, ticket)
            if parameters is not None:
                sizes.append(PlantedSize(mark=size, parameters=parameters, outline=outline))
        hidden = _hidden(sizes)
        if hidden is not None and hidden.moved_edges:
            found.append(hidden)
    return found


def _parameters(mark: PlantedGraph, ticket: Ticket) -> PlantedParameters:
    """Return what a claim says of a mark in a sparse ticket, without counting the ticket's edges for every size."""
    assert mark.secret_share is not None
    return PlantedParameters(
        secret_ppm=round(mark.secret_share * PARTS),
        share_ppm=round(mark.share * PARTS),
        turned_ppm=mark.turned_ppm(ticket.mask),
    )


def _parameters_in_holes(mark: PlantedGraph, ticket: Ticket) -> PlantedParameters | None:
    """Return what a claim says of a mark in a dense ticket; None if that has no room for so many holes."""
    try:
        return PlantedParameters.from_json(mark.parameters(ticket))
    except ConfigurationError:
        return None


def _hidden(sizes: Sequence[PlantedSize]) -> PlantedSize | None:
    """Return the first of *sizes* that layers do not show, or not much more than the best of them."""
    best = min((size.layers_auc for size in sizes), default=0.5)
    enough = max(MOST_LAYERS_AUC, best + CLOSE_TO_THE_BEST)
    return next((size for size in sizes if size.layers_auc <= enough), None)
