"""What a suspect shows at pairs of positions: an edge at one of them is a vote, and other edges say what it is worth.

A pair votes only where the reading keeps one of its positions and not the other. Given the pairs and the suspect, the
key's coins are fair and independent, whatever the suspect is; so a vote is right with probability one half, and its
weight may follow from everything but the coins. Of a copy that keeps the share s of a layer's edges, and has edges at
the share ρ of the positions that the reference leaves empty, a vote that is right is (s + (1 − s)ρ) / ((1 − s)ρ) times
as likely as one that is wrong: w = ln(1 + s / ((1 − s)ρ)).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ticketguard.embedding.pairs import Bits, Pairs
from ticketguard.ticket import AnyReference, FloatArray, Mask
from ticketguard.verification.readings import READINGS, Reading, per_reading, read_layer
from ticketguard.verification.weighted_coins import log10_at_least_weighted

# Weights are whole numbers, the heaviest layer's this one: a tail is computed over all sums that there can be.
HEAVIEST = 8

Signed = npt.NDArray[np.int8]
Evidences = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ReadLayers:
    """Every reading of a suspect, before any key.

    Attributes:
        reference: The layers that were read, with the reference's edges.
        kept: Per layer how many positions each reading keeps.
        own: Per layer how many of the reference's edges are among them.
        readings: Per layer and flat position a byte whose bit *r* says that reading *r* keeps it.
    """

    reference: Mask
    kept: Mapping[str, Sequence[int]]
    own: Mapping[str, Sequence[int]]
    readings: Mapping[str, npt.NDArray[np.uint8]]

    @classmethod
    def of(cls, suspect: Mapping[str, FloatArray], reference: AnyReference) -> ReadLayers:
        """Read a suspect, a layer at a time.

        Args:
            suspect: Weights in the reference's shapes.
            reference: The layers to read, as the claim's commitment binds them.
        """
        kept: dict[str, Sequence[int]] = {}
        own: dict[str, Sequence[int]] = {}
        readings: dict[str, npt.NDArray[np.uint8]] = {}
        for name in reference.mask:
            kept[name], readings[name] = read_layer(suspect[name], edges=reference.mask.count(name))
            own[name] = per_reading(readings[name][reference.mask[name].reshape(-1)])
        return cls(reference=reference.mask, kept=kept, own=own, readings=readings)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LayerVotes:
    """One layer's pairs in one reading.

    Attributes:
        pairs: The pairs.
        sides: For each pair 1 if there is an edge at its first position alone, −1 if at its second alone, else 0.
        weight: What one vote is worth, in natural logarithms.
        votes_of_copy: What an untouched copy with as many weights left would show: votes, and how many of them right.
    """

    pairs: Pairs
    sides: Signed
    weight: float
    votes_of_copy: tuple[float, float]

    @property
    def for_zero(self) -> Signed:
        """For each pair 1 if it says that its bit is 0, −1 if that it is 1, and 0 if it says nothing."""
        return np.asarray(self.sides * (1 - 2 * self.pairs.coins.astype(np.int8)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agreement:
    """How many votes agree with the bits that a code has.

    Attributes:
        votes: Pairs that vote.
        right: Votes that agree.
        observed: Weight of those.
        coins: Votes of each weight.
    """

    votes: int
    right: int
    observed: int
    coins: Mapping[int, int]

    @functools.cached_property
    def log10_p(self) -> float:
        """log10 of the probability that as much weight is right by chance."""
        return log10_at_least_weighted(self.observed, self.coins)

    @property
    def surprise(self) -> float:
        """How many standard deviations the weight is above its mean."""
        mean = sum(weight * count for weight, count in self.coins.items()) / 2
        variance = sum(weight**2 * count for weight, count in self.coins.items()) / 4
        return (self.observed - mean) / math.sqrt(max(variance, 0.25))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairReading:
    """All pairs of a code in one reading of a suspect.

    Attributes:
        reading: Which.
        layers: One entry a layer.
    """

    reading: Reading
    layers: tuple[LayerVotes, ...]

    def evidence(self, bits: int) -> Evidences:
        """Return for each of so many *bits* the weight of votes for 0 less that of votes for 1."""
        total = np.zeros(bits)
        for layer in self.layers:
            total += np.bincount(layer.pairs.bits_carried(bits), layer.weight * layer.for_zero, minlength=bits)
        return total

    def agreement(self, bits: Bits) -> Agreement:
        """Compare the votes with the *bits* that the code has."""
        weights = self._whole_weights()
        observed, votes, right = 0, 0, 0
        coins: Counter[int] = Counter()
        for layer, weight in zip(self.layers, weights, strict=True):
            expected = 1 - 2 * bits[layer.pairs.bits_carried(len(bits))].astype(np.int8)
            own, agreeing = int(np.count_nonzero(layer.sides)), int(np.count_nonzero(layer.for_zero * expected > 0))
            votes, right = votes + own, right + agreeing
            if weight:
                coins[weight] += own
                observed += weight * agreeing
        return Agreement(votes=votes, right=right, observed=observed, coins=coins)

    def _whole_weights(self) -> list[int]:
        heaviest = max((layer.weight for layer in self.layers if layer.sides.any()), default=0.0)
        return [min(HEAVIEST, round(HEAVIEST * layer.weight / heaviest)) if heaviest else 0 for layer in self.layers]

    @property
    def of_copy(self) -> tuple[int, int]:
        """Votes of an untouched copy with as many weights left, and how many of them would be right."""
        votes, right = (math.fsum(layer.votes_of_copy[index] for layer in self.layers) for index in (0, 1))
        return round(votes), min(round(votes), math.floor(right))


def votes_of(read: ReadLayers, drawn: Mapping[str, Pairs]) -> tuple[PairReading, ...]:
    """Return what a suspect's pairs of a key say, the owner's or a decoy's; one entry a reading.

    Args:
        read: The suspect.
        drawn: The key's pairs; those of layers that were not read say nothing.
    """
    layers: list[list[LayerVotes]] = [[] for _ in READINGS]
    for name, pairs in drawn.items():
        if name not in read.readings:
            continue
        there = read.readings[name][pairs.positions]
        for bit, found in enumerate(layers):
            kept = (there >> bit & 1).astype(np.int8)
            found.append(_layer_votes(read, name, bit, pairs, kept))
    return tuple(
        PairReading(reading=reading, layers=tuple(found)) for reading, found in zip(READINGS, layers, strict=True)
    )


def _layer_votes(read: ReadLayers, name: str, bit: int, pairs: Pairs, kept: Signed) -> LayerVotes:
    edges, size = read.reference.count(name), read.readings[name].size
    own, inside = read.own[name][bit], int(kept.sum())
    survival = (own + 0.5) / (edges + 1)
    noise = (read.kept[name][bit] - own - inside + 0.5) / (size - edges - kept.size + 1)
    # Of a copy with as many weights: what it has more than edges lies anywhere.
    left = min(1.0, read.kept[name][bit] / edges)
    grown = max(0, read.kept[name][bit] - edges) / (size - edges)
    right, wrong = (left + (1 - left) * grown) * (1 - grown), (1 - left) * (1 - grown) * grown
    return LayerVotes(
        pairs=pairs,
        sides=kept[:, 0] - kept[:, 1],
        weight=math.log1p(survival / ((1 - survival) * noise)),
        votes_of_copy=(len(pairs) * (right + wrong), len(pairs) * right),
    )
