"""What a copy of a planted graph will show after a theft, before anything is planted or trained.

Everything is an expectation over keys and over what the thief happens to hit. Rank matching leaves the planted edges'
magnitudes distributed like their layer's others, so whatever removes edges takes planted ones at the layer's rate;
whatever adds edges adds as many on secret positions as chance gives. Numbers of edges are carried through the theft's
steps, layer by layer; the tail of what is left is the verifier's own.

Signs of planted edges turn wherever weights are trained on. A thief's training is taken to turn as large a share as the
owner's, more than perceptrons on the digits showed (benchmarks/results/planted_signs.json); training from new weights
leaves half of them, which is chance. That pruning takes first what was turned is not counted on.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from ticketguard.embedding.planted_graph import PARTS, PlantedParameters
from ticketguard.ticket import Array, BoolArray, Ticket, TicketInfo
from ticketguard.verification.statistics import HitSigns, LayerCount, log10_upper_tail, log10_with_signs
from ticketguard.verification.thefts import CHANNELS, PRUNED, REGROWN, REWIRED, Step, Theft

# Magnitudes that stand for a layer's; of very many layers fewer do, so that all are at most so many.
QUANTILES, MOST_QUANTILES = 1000, 500_000

# Divides where there may be nothing.
LEAST = 1e-300

PerLayer = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Outline:
    """What of an unmarked ticket decides what its marks can show: one entry a layer in every array.

    Attributes:
        positions: Positions of the layer.
        edges: Those that the ticket keeps.
        inner: How many of its channel axes lie between layers, where channels can be removed: 0, 1 or 2.
        magnitudes: Its edges' magnitudes, as evenly spaced quantiles, ascending (layers × quantiles).
    """

    positions: PerLayer
    edges: PerLayer
    inner: PerLayer
    magnitudes: PerLayer

    @classmethod
    def of(cls, ticket: Ticket) -> Outline:
        """Look at a ticket once, for all sizes and thefts."""
        names = [name for name in ticket.mask if ticket.mask[name].size]
        quantiles = max(1, min(QUANTILES, MOST_QUANTILES // max(1, len(names))))
        return cls(
            positions=np.array([ticket.mask[name].size for name in names], dtype=np.float64),
            edges=np.array([np.count_nonzero(ticket.mask[name]) for name in names], dtype=np.float64),
            inner=np.array([_inner_axes(ticket.mask[name].shape, ticket.info) for name in names], dtype=np.float64),
            magnitudes=np.array([_magnitudes(ticket.weights[name], ticket.mask[name], quantiles) for name in names]),
        )

    @functools.cached_property
    def order(self) -> npt.NDArray[np.intp]:
        """Flat places of the magnitudes, the smallest first."""
        return np.argsort(self.magnitudes, axis=None, kind="stable")


def _inner_axes(shape: tuple[int, ...], info: TicketInfo) -> int:
    inputs = (1, *info.input_shape[:1], math.prod(info.input_shape))
    return int(len(shape) > 0 and shape[0] != info.classes) + int(len(shape) > 1 and shape[1] not in inputs)


def _magnitudes(weights: Array, layer: BoolArray, quantiles: int) -> PerLayer:
    kept = np.abs(weights[layer].astype(np.float64))
    return np.quantile(kept, (np.arange(quantiles) + 0.5) / quantiles) if len(kept) else np.zeros(quantiles)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Copy:
    """A copy in expected numbers, which need not be whole: one entry a layer in every array.

    Attributes:
        outline: Of the unmarked ticket.
        counted: Positions that a verifier counts: those empty in the reference, or all of a full layer.
        secret: Secret positions among the counted.
        hits: The copy's edges on secret counted positions.
        others: Its edges on the other counted positions.
        uncounted: Its edges on positions that are not counted.
        variance: Of *hits*.
        agreeing: Hits that have their coins' signs; none in full layers.
        turned: Share of signs that a training turns; None where edges were planted without.
        alive: Which of the outline's quantiles are still in the copy (layers × quantiles), from 0 to 1.
    """

    outline: Outline
    counted: PerLayer
    secret: PerLayer
    hits: PerLayer
    others: PerLayer
    uncounted: PerLayer
    variance: PerLayer
    agreeing: PerLayer
    turned: float | None
    alive: PerLayer

    @property
    def has_coins(self) -> BoolArray:
        """In which layers hits have coins: those that the reference does not keep in full."""
        return self.outline.edges < self.outline.positions

    @property
    def edges(self) -> PerLayer:
        """Its edges."""
        return self.hits + self.others + self.uncounted

    def thinned(self, left: PerLayer) -> Copy:
        """Return the copy with this fraction of its edges left, planted ones or not."""
        return dataclasses.replace(
            self,
            hits=self.hits * left,
            others=self.others * left,
            uncounted=self.uncounted * left,
            agreeing=self.agreeing * left,
            variance=self.variance * left**2 + self.hits * left * (1.0 - left),
        )

    def filled(self, edges: PerLayer) -> Copy:
        """Return the copy with so many more *edges*, drawn among its empty positions."""
        positions = self.outline.positions
        filled = np.clip(edges / np.maximum(positions - self.edges, 1.0), 0.0, 1.0)
        empty = self.secret - self.hits
        return dataclasses.replace(
            self,
            hits=self.hits + empty * filled,
            others=self.others + (self.counted - self.secret - self.others) * filled,
            uncounted=self.uncounted + (positions - self.counted - self.uncounted) * filled,
            variance=self.variance * (1.0 - filled) ** 2 + empty * filled * (1.0 - filled),
            agreeing=self.agreeing + np.where(self.has_coins, empty * filled / 2, 0.0),
        )

    def trained(self, *, from_new_weights: bool) -> Copy:
        """Return the copy after a training, which turns signs that agree and signs that do not."""
        turned = 0.5 if from_new_weights else self.turned or 0.0
        others = np.where(self.has_coins, self.hits - self.agreeing, 0.0)
        return dataclasses.replace(self, agreeing=self.agreeing * (1.0 - turned) + others * turned)

    def unlucky(self, deviations: float) -> Copy:
        """Return a copy of as many edges, whose hits are so many standard deviations below the mean.

        So are, of these hits, those whose signs agree.
        """
        total = float(self.variance.sum())
        fewer = np.minimum(deviations * self.variance / math.sqrt(total), self.hits) if total else self.variance
        rest = np.maximum(self.others + self.uncounted, LEAST)
        others = np.minimum(self.others * (1.0 + fewer / rest), self.counted - self.secret)
        hits = self.hits - fewer
        agreeing = self.agreeing * hits / np.maximum(self.hits, LEAST)
        spread = math.sqrt(float((agreeing * np.maximum(0.0, 1.0 - agreeing / np.maximum(hits, LEAST))).sum()))
        agreeing *= max(0.0, 1.0 - deviations * spread / max(float(agreeing.sum()), LEAST))
        return dataclasses.replace(self, hits=hits, others=others, agreeing=agreeing)

    def log10_p(self) -> float:
        """Return log10 of the p-value that it shows in one reading, of hits alone or with their signs."""
        amounts = (self.counted, self.secret, self.hits, self.hits + self.others)
        counts = []
        for size, secret, hits, kept in zip(*map(_whole, amounts), strict=True):
            layer = LayerCount(size=size, kept=min(size, max(kept, hits)), secret=min(size, secret), hits=0)
            counts.append(dataclasses.replace(layer, hits=max(layer.lowest, min(layer.highest, hits))))
        log10_p = log10_upper_tail(counts)
        if self.turned is None:
            return log10_p
        coins = sum(count.hits for count, has in zip(counts, self.has_coins, strict=True) if has)
        signs = HitSigns(coins=coins, agreeing=min(coins, math.floor(float(self.agreeing.sum()))))
        return min(log10_p, log10_with_signs(log10_p, signs, hits=sum(count.hits for count in counts)))


def _whole(amounts: PerLayer) -> list[int]:
    """Round amounts so that their sum is the rounded sum: layers that have too little of each have some in all."""
    rounded: list[int] = np.diff(np.rint(np.cumsum(amounts)), prepend=0.0).astype(np.int64).tolist()
    return rounded


def untouched(outline: Outline, parameters: PlantedParameters) -> Copy:
    """Return the copy that nothing was done to.

    In a layer that has fewer secret positions than the mark's share of its edges needs, all of them are planted.
    """
    positions, edges = outline.positions, outline.edges
    secret = np.floor((positions * parameters.secret_ppm + PARTS // 2) / PARTS)
    full, density = edges == positions, edges / positions
    outside = secret * (1.0 - density)
    wanted = np.rint(edges * parameters.share_ppm / PARTS)
    planted = np.minimum(wanted, np.minimum(edges - secret * density, outside))
    holes = np.floor(edges * parameters.holes_ppm / PARTS)
    return Copy(
        outline=outline,
        counted=np.where(full, positions, positions - edges),
        secret=np.where(full, secret, outside),
        hits=np.where(full, secret, planted),
        others=np.where(full, edges - holes - secret, 0.0),
        uncounted=np.where(full, 0.0, edges - planted),
        # How many secret positions are empty differs from key to key, and tells where all of them are planted.
        variance=np.where(~full & (planted < wanted), outside * density, 0.0),
        agreeing=np.where(full, 0.0, planted * (1.0 - parameters.turned_ppm / PARTS)),
        turned=parameters.turned_ppm / PARTS if parameters.is_signed else None,
        alive=np.ones_like(outline.magnitudes),
    )


def _pruned(copy: Copy, step: Step) -> Copy:
    """Remove the smallest edges of all layers together."""
    each = copy.alive * (copy.edges / np.maximum(copy.alive.sum(axis=1), LEAST))[:, np.newaxis]
    leaving = step.share * float(each.sum())
    magnitudes, order = copy.outline.magnitudes, copy.outline.order
    last = order[min(int(np.searchsorted(np.cumsum(each.reshape(-1)[order]), leaving)), len(order) - 1)]
    threshold = magnitudes.reshape(-1)[last]
    # Equal magnitudes go at one rate, whatever order they stand in: masks without weights have no other.
    below, equal = magnitudes < threshold, magnitudes == threshold
    gone = np.clip((leaving - each[below].sum()) / max(float(each[equal].sum()), LEAST), 0.0, 1.0)
    alive = copy.alive * np.where(below, 0.0, np.where(equal, 1.0 - gone, 1.0))
    return dataclasses.replace(copy.thinned(alive.sum(axis=1) / np.maximum(copy.alive.sum(axis=1), LEAST)), alive=alive)


def _regrown(copy: Copy, step: Step) -> Copy:
    """Add random edges to every layer, as a share of its edges, with weights like its own."""
    return copy.filled(copy.edges * step.share)


def _rewired(copy: Copy, step: Step) -> Copy:
    """Replace the weakest edges of every layer by random ones; after the training that follows sizes are new."""
    left = copy.thinned(np.full_like(copy.hits, 1.0 - step.share))
    replaced = left.trained(from_new_weights=step.is_from_new_weights).filled(copy.edges * step.share)
    return dataclasses.replace(replaced, alive=np.ones_like(copy.alive))


def _narrowed(copy: Copy, step: Step) -> Copy:
    """Remove channels: an edge is left if the channels at both its ends are."""
    return copy.thinned((1.0 - step.share) ** copy.outline.inner)


_AFTER: Mapping[str, Callable[[Copy, Step], Copy]] = {
    PRUNED: _pruned,
    REGROWN: _regrown,
    REWIRED: _rewired,
    CHANNELS: _narrowed,
}


def after(copy: Copy, theft: Theft) -> Copy:
    """Return what a theft leaves of a copy."""
    for step in theft.steps:
        copy = _AFTER[step.kind](copy, step)
    return copy
