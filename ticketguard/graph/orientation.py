"""Which way the channels of a layer point: a thief turns the signs of a whole filter, and what follows turns them back.

A batch norm behind a filter undoes its sign for nothing, an odd activation between two layers that of a row of one and
a column of the other. Only anchors are looked at here, so what votes say afterwards is as exact as it was before.
"""

from __future__ import annotations

import dataclasses
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
# Nats by which it must be likelier that some channels of an axis are flipped than that none is.
LEAST_GAIN = 4.0
# Rounds in which rows and columns are fitted in turn, and in which the share of flipped ones is.
ROUNDS, SHARE_ROUNDS = 4, 30
# Kinds of sizes that are told apart.
SIZES = 8
# Added to counts, so that shares are neither 0 nor 1.
HALF = 0.5


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
        signs = _fitted(agrees, _kinds(weights, start), list(np.divmod(rest, shape[1])), signs)
    return Orientation(rows=signs[0], columns=signs[1])


def _kinds(weights: FloatArray, start: FloatArray) -> IndexArray:
    """Return which of the eight sizes that a start has each weight has; or in which eighth of all its sizes it is."""
    levels = np.unique(np.abs(start))
    if len(levels) > SIZES:
        levels = np.quantile(np.abs(start), np.arange(1, SIZES + 1) / SIZES)
    return np.minimum(np.searchsorted(levels, np.abs(weights)), SIZES - 1).astype(np.int64)


def _fitted(agrees: BoolArray, kinds: IndexArray, ends: list[IndexArray], signs: list[Signs]) -> list[Signs]:
    """Fit rows and columns in turn, until neither changes."""
    assumed = np.linspace(LEAST_AGREE, MOST_AGREE, SIZES)
    said = np.where(agrees, 1.0, -1.0)
    agree = assumed
    for _ in range(ROUNDS):
        before = [each.copy() for each in signs]
        nats = said * np.log(agree / (1 - agree))[kinds]
        for axis in (0, 1):
            other = signs[1 - axis][ends[1 - axis]]
            said_of = np.bincount(ends[axis], nats * other, len(signs[axis]))
            signs[axis] = _pointing(said_of.astype(np.float64))
        kept = said * signs[0][ends[0]] * signs[1][ends[1]] > 0
        there = np.bincount(kinds, minlength=SIZES)
        agree = (np.bincount(kinds, kept, SIZES) + ASSUMED_ANCHORS * assumed) / (there + ASSUMED_ANCHORS)
        agree = np.clip(agree, 0.5, MOST_AGREE)
        if all(map(np.array_equal, before, signs)):
            break
    return signs


def _pointing(nats: Nats) -> Signs:
    """Return which way channels point, given what their anchors say for the way of the start, in nats.

    How many are flipped is not known: the share at which what they say is likeliest. Nothing is, where that is hardly
    likelier than without any: a row with two anchors that contradict is flipped only where many are.
    """
    flipped = 0.1
    against = np.exp(np.clip(-nats, -500, 500))
    for _ in range(SHARE_ROUNDS):
        likely = flipped * against / (1 - flipped + flipped * against)
        flipped = min(0.5, (float(likely.sum()) + HALF) / (len(nats) + 1))
    gain = np.log(1 - flipped + flipped * against).sum()
    is_flipped = (nats + np.log((1 - flipped) / flipped) < 0) & (gain >= LEAST_GAIN)
    return np.where(is_flipped, -1, 1).astype(np.int8)
