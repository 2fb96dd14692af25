"""Which way the channels of a layer point: a thief turns the signs of a whole filter, and what follows turns them back.

A batch norm behind a filter undoes its sign for nothing, an odd activation between two layers that of a row of one and
a column of the other. Only anchors are looked at here, so what votes say afterwards is as exact as it was before.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ticketguard.graph.groups import IndexArray
from ticketguard.ticket import BoolArray, FloatArray

Signs: TypeAlias = npt.NDArray[np.int8]
Nats: TypeAlias = npt.NDArray[np.float64]

# How often the signs of small start weights are kept, and of large ones, at first: as tickets of ResNet-20 have them.
LEAST_AGREE, MOST_AGREE = 0.55, 0.93
# Anchors that this counts as.
ASSUMED_ANCHORS = 40.0
# Nats by which it must be likelier that some channels are flipped than that none is.
LEAST_GAIN = 4.0
# Rounds in which rows and columns are fitted in turn, and in which the share of flipped ones is.
ROUNDS, SHARE_ROUNDS = 4, 30
# Kinds of sizes that are told apart.
SIZES = 8
# Added to counts, so that shares are neither 0 nor 1.
HALF = 0.5
# Standard deviations below chance from which on small and large weights contradict each other.
CONTRADICTING = 3.0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Orientation:
    """Which way the channels of a layer point, relative to its start.

    Attributes:
        rows: 1, or -1 where the signs of an output are flipped, shape (out,).
        columns: The same of inputs, shape (in,).
    """

    rows: Signs
    columns: Signs

    @property
    def is_straight(self) -> bool:
        """Whether nothing is flipped."""
        return bool((self.rows > 0).all() and (self.columns > 0).all())

    def undo(self, layer: FloatArray) -> FloatArray:
        """Return a layer with the signs that it would have had; the layer itself where nothing is flipped."""
        if self.is_straight:
            return layer
        further = (1,) * (layer.ndim - 2)
        signs = self.rows.reshape(-1, *((1,) * (layer.ndim - 1))).astype(np.float32)
        if layer.ndim > 1:
            signs = signs * self.columns.reshape(1, -1, *further).astype(np.float32)
        return layer * signs


def orientation(layer: FloatArray, start: FloatArray, anchors: BoolArray) -> Orientation:
    """Find which way the channels of a layer point, by its anchors.

    Args:
        layer: The suspect's, in the start's order; shape (out, in, *kernel).
        start: The start's signed weights, in the same shape; only those at anchors are looked at.
        anchors: Which positions are anchors, in the same shape or flat.
    """
    shape = (layer.shape[0], layer.shape[1] if layer.ndim > 1 else 1, -1)
    there = np.flatnonzero(anchors.reshape(-1) & (layer.reshape(-1) != 0))
    signs = [np.ones(size, dtype=np.int8) for size in shape[:2]]
    if len(there):
        weights = start.reshape(-1)[there]
        agrees = (layer.reshape(-1)[there] > 0) == (weights > 0)
        rest = there // max(1, layer.size // (shape[0] * shape[1]))
        said = np.where(agrees, 1.0, -1.0)
        ends = np.divmod(rest, shape[1])
        sizes = np.abs(layer.reshape(-1)[there].astype(np.float64))
        weights_of = _counting(sizes, said, ends[0], shape[0])
        anchors_there = _Anchors(said=said, kinds=_kinds(weights, start), weights=weights_of, ends=ends)
        signs = _fitted(anchors_there, signs)
    return Orientation(rows=signs[0], columns=signs[1])


def _kinds(weights: FloatArray, start: FloatArray) -> IndexArray:
    """Return which of the eight sizes that a start has each weight has; or in which eighth of all its sizes it is."""
    levels = np.unique(np.abs(start))
    if len(levels) > SIZES:
        levels = np.quantile(np.abs(start), np.arange(1, SIZES + 1) / SIZES)
    return np.minimum(np.searchsorted(levels, np.abs(weights)), SIZES - 1).astype(np.int64)


def _counting(sizes: Nats, said: Nats, rows: IndexArray, outputs: int) -> Nats:
    """Return how much each of a suspect's weights counts.

    Turning the signs of small weights costs a thief little, and of most weights: the large ones still say which way a
    row points. Where small and large ones of the same rows do not say the same, each counts by the square of its rank.

    Args:
        sizes: How large they are.
        said: 1 where the signs agree, -1 where they do not.
        rows: Their rows.
        outputs: Number of rows.
    """
    largest = np.zeros(outputs)
    np.maximum.at(largest, rows, sizes)
    scaled = sizes / largest[rows]
    squares = np.bincount(rows, scaled**2, outputs) / np.maximum(1, np.bincount(rows, minlength=outputs))
    ranks = np.argsort(np.argsort(scaled / np.sqrt(squares)[rows], kind="stable"), kind="stable") / len(sizes)
    halves = (ranks < HALF, ranks >= HALF)
    small, large = (np.bincount(rows, said * half, outputs) for half in halves)
    # Signs that say nothing of rows, as where columns were turned, come to so much by chance.
    by_chance = math.sqrt(float(np.prod([np.bincount(rows, half, outputs) for half in halves], axis=0).sum()))
    contradict = float(small @ large) < -CONTRADICTING * by_chance
    return np.asarray((ranks + 1 / len(sizes)) ** 2) if contradict else np.ones(len(sizes))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Anchors:
    """A layer's anchors where there are edges.

    Attributes:
        said: 1 where the signs agree, -1 where they do not.
        kinds: Which size each has in the start.
        weights: How much each counts, in [0, 1].
        ends: Their rows and columns.
    """

    said: Nats
    kinds: IndexArray
    weights: Nats
    ends: Sequence[IndexArray]

    def agreeing(self, signs: Sequence[Signs], assumed: float) -> Nats:
        """Return how often signs of each size are kept, once they are turned; so many anchors are assumed beside."""
        there = np.bincount(self.kinds, self.weights, SIZES)
        kept = np.bincount(self.kinds, self.weights * (self.turned(signs) > 0), SIZES)
        agree = (kept + assumed * np.linspace(LEAST_AGREE, MOST_AGREE, SIZES)) / (there + assumed)
        return np.asarray(np.clip(agree, 0.5, MOST_AGREE))

    def turned(self, signs: Sequence[Signs]) -> Nats:
        """Return what is said once rows and columns have these signs."""
        return np.asarray(self.said * signs[0][self.ends[0]] * signs[1][self.ends[1]])

    def nats(self, signs: Sequence[Signs], straight: Sequence[Signs]) -> float:
        """Return how likely the anchors are, if channels have these signs or, those that say little, the other one."""
        agree = self.agreeing(signs, 1.0)[self.kinds]
        turned = self.turned(signs)
        nats = float(self.weights @ np.log(np.where(turned > 0, agree, 1 - agree)))
        for each, own, none in zip(signs, self.ends, straight, strict=True):
            if each is none:
                continue
            share = (np.count_nonzero(each < 0) + HALF) / (len(each) + 1)
            likely = np.where(each < 0, share, 1 - share)
            against = -np.bincount(own, self.weights * turned * np.log(agree / (1 - agree)), len(each))
            nats += float(np.logaddexp(np.log(likely), np.log(1 - likely) + against).sum())
        return nats


def _fitted(anchors: _Anchors, straight: list[Signs]) -> list[Signs]:
    """Fit rows and columns in turn, until neither changes; nothing is flipped where that is about as likely.

    Whoever turns signs here and there makes flipped rows look likely, if signs are taken to be kept as in tickets.
    """
    signs = list(straight)
    agree = np.linspace(LEAST_AGREE, MOST_AGREE, SIZES)
    for _ in range(ROUNDS):
        before = list(signs)
        odds = np.log(agree / (1 - agree))[anchors.kinds]
        for axis in (0, 1):
            own = anchors.ends[axis]
            others = anchors.weights * anchors.said * odds * signs[1 - axis][anchors.ends[1 - axis]]
            signs[axis] = _pointing(np.bincount(own, others, len(signs[axis])).astype(np.float64))
        agree = anchors.agreeing(signs, ASSUMED_ANCHORS)
        if all(map(np.array_equal, before, signs)):
            break
    ways = ((signs[0], signs[1]), (signs[0], straight[1]), (straight[0], signs[1]))
    nats = [anchors.nats(way, straight) for way in ways]
    gain = max(nats) - anchors.nats(straight, straight)
    return list(ways[nats.index(max(nats))]) if gain >= LEAST_GAIN else straight


def _pointing(nats: Nats) -> Signs:
    """Return which way channels point, given what their anchors say for the way of the start, in nats.

    How many are flipped is not known: the share at which what they say is likeliest.
    """
    flipped = 0.1
    against = np.exp(np.clip(-nats, -500, 500))
    for _ in range(SHARE_ROUNDS):
        likely = flipped * against / (1 - flipped + flipped * against)
        flipped = min(0.5, (float(likely.sum()) + HALF) / (len(nats) + 1))
    return np.where(nats + np.log((1 - flipped) / flipped) < 0, -1, 1).astype(np.int8)
