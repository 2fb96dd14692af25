"""Whether a ticket has room for a planted graph: what an untouched copy will prove, from masks alone."""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from ticketguard.embedding.interface import Binding, Positions
from ticketguard.embedding.planted_graph import PARTS, PlantedParameters
from ticketguard.errors import CapacityError
from ticketguard.ticket import Mask
from ticketguard.verification.planted_graph.drawing import secret_of_layer
from ticketguard.verification.statistics import HitSigns, LayerCount, log10_upper_tail, log10_with_signs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Intact:
    """An untouched copy of a marked ticket, counted in what is not zero.

    Attributes:
        layers: One count a layer.
        coins: Hits that have coins.
        turned: Share of them whose sign training is expected to turn.
    """

    layers: Sequence[LayerCount]
    coins: int
    turned: float

    @classmethod
    def of(
        cls,
        marked: Mask,
        reference: Mask,
        binding: Binding,
        parameters: PlantedParameters,
        decided: Mapping[str, Positions],
    ) -> Intact:
        """Count.

        Args:
            marked: The marked ticket's edges.
            reference: The unmarked ticket's.
            binding: The owner's key.
            parameters: Of the claim.
            decided: Per layer the flat positions that other marks of the claim decide.
        """
        layers, coins = [], 0
        for name in reference:
            secret = secret_of_layer(reference, name, binding, parameters).without(decided.get(name))
            counted = ~reference[name].reshape(-1)
            if not counted.any():
                counted[:] = True
            if name in decided:
                counted[decided[name]] = False
            size, kept = int(np.count_nonzero(counted)), int(np.count_nonzero(marked[name].reshape(-1) & counted))
            hits = int(np.count_nonzero(marked.at(name, secret.positions)))
            layers.append(LayerCount(size=size, kept=kept, secret=len(secret.positions), hits=hits))
            coins += hits if secret.is_negative is not None else 0
        return cls(layers=layers, coins=coins, turned=parameters.turned_ppm / PARTS)

    @property
    def hits(self) -> int:
        """Hits in all layers."""
        return sum(layer.hits for layer in self.layers)

    def log10_p(self) -> float:
        """Return log10 of its p-value, before correction."""
        alone = log10_upper_tail(self.layers)
        signs = HitSigns(coins=self.coins, agreeing=math.floor(self.coins * (1 - self.turned)))
        return min(alone, log10_with_signs(alone, signs, hits=self.hits)) if self.coins else alone

    def larger(self, times: float) -> Intact:
        """Return the copy of a mark with so many *times* the edges in every layer, as far as there are positions."""
        hits = [min(layer.secret, math.ceil(layer.hits * times)) for layer in self.layers]
        layers = [
            dataclasses.replace(layer, hits=found, kept=max(layer.kept, found))
            for layer, found in zip(self.layers, hits, strict=True)
        ]
        return dataclasses.replace(self, layers=layers, coins=min(sum(hits), math.ceil(self.coins * times)))

    def require(self, needed_log10_p: float) -> None:
        """Refuse a mark that proves less than is needed.

        Raises:
            CapacityError: It does; says how many edges of a larger mark would do.
        """
        if self.log10_p() <= needed_log10_p:
            return
        free = self.hits
        possible = range(free, sum(layer.secret for layer in self.layers))
        more = bisect.bisect_left(
            possible, -needed_log10_p, key=lambda needed: -self.larger(needed / max(1, free)).log10_p()
        )
        raise CapacityError(layer="the whole ticket", needed_edges=free + max(1, more), free_edges=free)
