"""How likely one channel is another, given how the rest of two networks agree.

A matching begins with what channels share. Once most of them lie where they belong, the two networks show what was
done to the suspect: how many of its edges are the reference's, how far its weights have moved, which channels had their
signs flipped. A channel of which two edges are left, or one that was added beside it, is placed by that: what two
channels do not share says as much as what they do.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ticketguard.graph.groups import ChannelGroup, IndexArray, group_channels
from ticketguard.graph.rows import CELLS_AT_ONCE, FULL_PRODUCT, Known
from ticketguard.graph.shared_edges import HALF, Counts, odds_ratio, shared_edges, shared_nats
from ticketguard.graph.similarity import Edges, channels_of
from ticketguard.ticket import BoolArray, FloatArray

# Above the odds of unrelated networks.
LEAST_ODDS = 2.0
# Beyond this, weights are taken to be no nearer: those that are left of a pruned layer are its strong ones.
MOST_CORRELATED = 0.7
# Rounds in which signs of rows and of columns are fitted in turn.
SIGN_ROUNDS = 5
# Standard deviation of how many edges channels keep, relative to what is expected, beside that of a Poisson variable.
SPREAD = 0.5
# A channel with a smaller share of edges that are the reference's may not be the one it is taken for.
SURE_SHARE = 0.75
Nats: TypeAlias = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerAgreement:
    """How a layer of the suspect agrees with the reference's.

    Attributes:
        odds: Odds ratio of an edge of one to be an edge of the other, above 1.
        kept: Share of the reference's edges that the suspect has.
        added: Share of the reference's holes in which the suspect has an edge.
        correlation: Of the weights of shared edges, once signs are as the reference's, in [0, 1).
        signs: By axis, the sign that the suspect's weights have there, relative to the reference's: 1 or -1 a position.
    """

    odds: float
    kept: float
    added: float
    correlation: float
    signs: tuple[FloatArray, FloatArray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agreement:
    """How an aligned suspect agrees with the reference.

    Attributes:
        reference: The reference's edges by layer.
        aligned: The suspect's, where they lie in the reference's layers.
        shared: Which of the suspect's edges are the reference's, and which one each of these is, by layer.
        doubtful: Numbers of the streams that have channels which may be others than they are taken for.
    """

    reference: Mapping[str, Edges]
    aligned: Mapping[str, Edges]
    shared: Mapping[str, tuple[BoolArray, IndexArray]]
    doubtful: Sequence[int]

    @classmethod
    def of(
        cls, reference: Mapping[str, Edges], aligned: Mapping[str, Edges], streams: Sequence[ChannelGroup]
    ) -> Agreement:
        """Compare.

        Args:
            reference: The reference's edges by layer.
            aligned: The suspect's, where they lie in the reference's layers.
            streams: Where the reference's channels lie.
        """
        shared = {name: shared_edges(reference[name], edges) for name, edges in aligned.items()}
        doubtful = [index for index, stream in enumerate(streams) if _is_doubtful(stream, aligned, shared)]
        return cls(reference=reference, aligned=aligned, shared=shared, doubtful=doubtful)

    @functools.cached_property
    def layers(self) -> Mapping[str, LayerAgreement]:
        """How each layer agrees: only where a stream is doubtful somebody asks."""
        weights = {
            name: _Weights.of(self.reference[name], edges, *self.shared[name]) for name, edges in self.aligned.items()
        }
        correlation = _correlation(weights.values())
        return {
            name: _agreement(self.reference[name], edges, len(self.shared[name][1]), weights[name].signs, correlation)
            for name, edges in self.aligned.items()
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Weights:
    """What the shared edges of a layer weigh.

    Attributes:
        product: Sum of products of both weights, the suspect's with the signs that fit the reference best.
        by_chance: Such a sum, were the suspect's weights in any other order.
        squares: Sums of squares of the reference's weights and of the suspect's.
        signs: These signs by axis.
    """

    product: float
    by_chance: float
    squares: tuple[float, float]
    signs: tuple[FloatArray, FloatArray]

    @classmethod
    def of(cls, reference: Edges, aligned: Edges, is_shared: BoolArray, at: IndexArray) -> _Weights:
        ours = reference.values[at].astype(np.float64)
        theirs = aligned.values[is_shared].astype(np.float64)
        ends = [end[is_shared].astype(np.int64) for end in aligned.ends]
        product, signs = _signed(ours * theirs, ends, reference.shape)
        by_chance, _ = _signed(ours * np.random.default_rng(0).permutation(theirs), ends, reference.shape)
        squares = (float(ours @ ours), float(theirs @ theirs))
        return cls(product=product, by_chance=by_chance, squares=squares, signs=signs)


def _signed(
    products: Nats, ends: Sequence[IndexArray], shape: Sequence[int]
) -> tuple[float, tuple[FloatArray, FloatArray]]:
    """Return the sum of products with the signs of rows and columns that make it large, and these signs."""
    signs = [np.ones(size) for size in shape[:2]]
    for _ in range(SIGN_ROUNDS):
        for axis in (0, 1):
            sums = np.bincount(ends[axis], products * signs[1 - axis][ends[1 - axis]], shape[axis])
            signs[axis] = np.where(sums < 0, -1.0, 1.0)
    signed = products * signs[0][ends[0]] * signs[1][ends[1]]
    return float(signed.sum()), (signs[0].astype(np.float32), signs[1].astype(np.float32))


def _correlation(layers: Collection[_Weights]) -> float:
    """Return how far shared weights agree, beyond what signs make of any weights."""
    squares = math.prod(sum(layer.squares[side] for layer in layers) for side in (0, 1))
    if squares <= 0:
        return 0.0
    found = sum(layer.product for layer in layers) / math.sqrt(squares)
    by_chance = sum(layer.by_chance for layer in layers) / math.sqrt(squares)
    return min(MOST_CORRELATED, max(0.0, (found - by_chance) / (1 - by_chance))) if by_chance < 1 else 0.0


def _agreement(
    reference: Edges, aligned: Edges, shared: int, signs: tuple[FloatArray, FloatArray], correlation: float
) -> LayerAgreement:
    ours, theirs = len(reference.values), len(aligned.values)
    holes = math.prod(reference.shape) - ours
    return LayerAgreement(
        odds=max(LEAST_ODDS, odds_ratio(shared, theirs, ours, ours + holes)),
        kept=(shared + HALF) / (ours + 2 * HALF),
        added=(theirs - shared + HALF) / (holes + 2 * HALF),
        correlation=correlation,
        signs=signs,
    )


def _is_doubtful(
    stream: ChannelGroup, aligned: Mapping[str, Edges], shared: Mapping[str, tuple[BoolArray, IndexArray]]
) -> bool:
    """Say whether of some channel too few edges are the reference's."""
    found, agreed = np.zeros((2, group_channels(stream)), dtype=np.int64)
    for member in stream:
        channel, _ = channels_of(aligned[member.tensor], member)
        there = channel >= 0
        found += np.bincount(channel[there], minlength=len(found))
        agreed += np.bincount(channel[there & shared[member.tensor][0]], minlength=len(found))
    return bool((agreed < SURE_SHARE * found).any())


def channel_nats(reference: Known, suspect: Known, agreement: LayerAgreement, axis: int) -> FloatArray:
    """Return how much likelier it is that channels are each other's counterparts than that they are not, in nats.

    By where edges are, by how many there are, and by what shared ones weigh.

    Args:
        reference: The reference's channels, edges in columns by what lies at their other ends.
        suspect: The suspect's, in the same columns.
        agreement: Of the layer.
        axis: Which end of the edges the channels are.

    Returns:
        Shape (channels, suspect's channels).
    """
    signed = suspect.values * agreement.signs[1 - axis][suspect.other_ends]
    is_full = reference.rows.channels * suspect.rows.channels * reference.rows.columns <= FULL_PRODUCT
    ours: list[Any]
    theirs: list[Any]
    ours, theirs = (
        [(known.dense if is_full else known.spread)(each) for each in (np.ones_like(values), values)]
        for known, values in ((reference, reference.values), (suspect, signed))
    )
    turned = [matrix.T if is_full else matrix.T.tocsr() for matrix in theirs]
    counts, found = (np.diff(known.first).astype(np.float64) for known in (reference, suspect))
    nats = np.empty((len(counts), len(found)), dtype=np.float32)
    at_once = max(1, CELLS_AT_ONCE // max(1, len(found)))
    for start in range(0, len(nats), at_once):
        rows = slice(start, start + at_once)
        products = [one[rows] @ other for one, other in zip(ours, turned, strict=True)]
        shared, weights = (product if is_full else product.toarray() for product in products)
        of_edges = _edge_nats(shared, counts[rows, None], found, max(1, reference.rows.columns), agreement)
        nats[rows] = of_edges + _weight_nats(shared, weights, agreement.correlation)
    return nats


def _edge_nats(shared: Counts, reference: Counts, suspect: Counts, positions: int, agreement: LayerAgreement) -> Nats:
    """Return what says where two channels' edges are, and how many.

    How many edges the suspect's channel has is a normal variable of a Poisson's variance or more: training and pruning
    take more from some channels than from others.
    """
    expected = agreement.kept * reference + agreement.added * (positions - reference)
    variance = 1 + expected + (SPREAD * expected) ** 2
    nats = shared_nats(shared, suspect, reference, positions, agreement.odds)
    nats -= 0.5 * ((suspect - expected) ** 2 / variance + np.log(variance))
    return nats


def _weight_nats(shared: Counts, products: Counts, correlation: float) -> Nats:
    """Return what says what shared edges weigh.

    Standard normal variables x, y of correlation ρ carry the log likelihood ratio −log(1−ρ²)/2 + (ρxy − ρ²(x²+y²)/2) /
    (1−ρ²), where squares are taken to be 1, as they are on average. All of a channel have the sign that its
    counterpart's have, or all the other one: log cosh.
    """
    precision = 1 / (1 - correlation**2)
    gain = np.abs(correlation * precision * products)
    of_sign = gain + np.log1p(np.exp(-2 * gain)) - math.log(2)
    nats: Nats = of_sign - (correlation**2 * precision - 0.5 * math.log(precision)) * shared
    return nats
