"""Regrowing edges at random among the stolen ticket's, to bury the mark."""

from __future__ import annotations

import dataclasses

import numpy as np

from ticketguard.attacks.interface import Victim
from ticketguard.errors import ConfigurationError
from ticketguard.ticket import BoolArray, Mask, Ticket


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomRegrowth:
    """Add random edges to every layer, their weights drawn from the layer's own.

    Attributes:
        share: New edges as a share of the layer's edges; 1 doubles the mask.
    """

    share: float = 1.0

    def __post_init__(self) -> None:
        if self.share <= 0.0:
            raise ConfigurationError(f"share of edges to regrow is {self.share}, expected above 0")

    @property
    def name(self) -> str:
        """The attack in a few words."""
        return f"random regrowth {self.share:+.0%}"

    def run(self, victim: Victim, *, generator: np.random.Generator) -> Ticket:
        """Return the regrown ticket; fine-tune it to make the new edges useful."""
        weights = dict(victim.ticket.weights)
        layers: dict[str, BoolArray] = {}
        for name in victim.ticket.mask:
            flat = victim.ticket.mask[name].reshape(-1).copy()
            edges, free = np.flatnonzero(flat), np.flatnonzero(~flat)
            grown = generator.choice(free, size=min(len(free), round(self.share * len(edges))), replace=False)
            values = weights[name].reshape(-1).copy()
            if len(edges):
                values[grown] = generator.choice(values[edges], size=len(grown))
            flat[grown] = True
            layers[name] = flat.reshape(weights[name].shape)
            weights[name] = values.reshape(weights[name].shape)
        return dataclasses.replace(victim.ticket, mask=Mask(layers=layers), weights=weights)
