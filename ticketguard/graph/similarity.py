"""The strong weights of a layer, whatever its channels were scaled by."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ticketguard.graph.groups import GroupMember, IndexArray
from ticketguard.ticket import BoolArray, FloatArray

Positions: TypeAlias = npt.NDArray[np.uint8 | np.int32 | np.int64]
# A layer with fewer weights than this share of its positions is taken as a list of them.
SPARSE = 0.25
# Alternate division by row and column norms converges geometrically; three rounds leave a few percent.
BALANCING_ROUNDS = 3
# Values beyond this many standard deviations say no more than one at it.
VALUE_LIMIT = 2.5
# Edges with less than this share of the size that the strongest ones have are free for a thief to lay anywhere; where
# more of the weights than this are there, they are no mask.
WEAK, MOST_FULL = 0.1, 0.8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edges:
    """A layer's strongest weights, as a sparse list.

    Attributes:
        shape: (out, in, places of the kernel).
        ends: Output and input position of every edge, two arrays of shape (edges,), as narrow integers as
            shapes allow.
        kernel: Its place in the kernel, shape (edges,), likewise.
        values: Its weight relative to its row and column, with unit mean square, shape (edges,).
    """

    shape: tuple[int, int, int]
    ends: tuple[Positions, Positions]
    kernel: Positions
    values: FloatArray

    def chosen(self, which: BoolArray) -> Edges:
        """Return some of the edges; *which* has shape (edges,)."""
        out, given = self.ends
        return dataclasses.replace(
            self, ends=(out[which], given[which]), kernel=self.kernel[which], values=self.values[which]
        )

    def placed(self) -> tuple[IndexArray, IndexArray, IndexArray]:
        """Return output, input and place of the kernel of every edge."""
        out, given = self.ends
        return out.astype(np.int64), given.astype(np.int64), self.kernel.astype(np.int64)

    def flat(self, ends: Sequence[IndexArray] | None = None) -> IndexArray:
        """Return flat positions, with other *ends* if given."""
        out, given = self.ends if ends is None else ends
        return (out.astype(np.int64) * self.shape[1] + given) * self.shape[2] + self.kernel


def strongest_edges(layer: FloatArray, count: int, kept: BoolArray | None = None, *, grown: float = 1) -> Edges:
    """Return a layer's *count* strongest weights, or all that are *kept*.

    Strength is relative to the weight's row and column, so that scaling channels by positive factors changes nothing.

    Args:
        layer: Weights, shape (out, in, *kernel).
        count: How many to take; fewer where the layer has fewer that are not zero.
        kept: Takes exactly these instead; shape of *layer*.
        grown: Takes all that are not weak, if they are up to so many times as many and leave the layer a mask.
    """
    shape = (layer.shape[0], layer.shape[1] if layer.ndim > 1 else 1, math.prod(layer.shape[2:]))
    chosen = np.flatnonzero(layer if kept is None else kept)
    if kept is None and len(chosen) < SPARSE * layer.size:
        values = _balanced_edges(layer.reshape(-1)[chosen], chosen, shape)
    else:
        values = balanced(layer).reshape(-1)[chosen]
    if kept is None and len(chosen) > count:
        sizes = np.abs(values)
        weakest = len(chosen) - count
        if grown > 1 and count and len(chosen) <= MOST_FULL * layer.size:
            strong = np.count_nonzero(sizes >= WEAK * np.median(np.partition(sizes, weakest)[weakest:]))
            if count < strong <= grown * count:
                weakest = len(chosen) - int(strong)
        strongest = np.sort(np.argpartition(sizes, min(weakest, len(chosen) - 1))[weakest:])
        chosen, values = chosen[strongest], values[strongest]
    return _edges(chosen, values, shape)


def kept_edges(kept: BoolArray, weights: FloatArray) -> Edges:
    """Return the edges of a layer of which only *weights* are there, flat, at the positions that are *kept*."""
    shape = (kept.shape[0], kept.shape[1] if kept.ndim > 1 else 1, math.prod(kept.shape[2:]))
    if len(weights) < SPARSE * kept.size:
        chosen = np.flatnonzero(kept)
        return _edges(chosen, _balanced_edges(weights, chosen, shape), shape)
    layer = np.zeros(kept.shape, dtype=np.float32)
    layer[kept] = weights
    return strongest_edges(layer, len(weights), kept)


def _edges(chosen: IndexArray, values: npt.NDArray[np.float64], shape: tuple[int, int, int]) -> Edges:
    scale = np.sqrt(np.square(values).mean()) if len(values) else 1.0
    values = np.clip(values / (scale + 1e-12), -VALUE_LIMIT, VALUE_LIMIT)
    out, given, kernel = _ends(chosen, shape)
    return Edges(shape=shape, ends=(out, given), kernel=kernel, values=values.astype(np.float32))


def _ends(flat: IndexArray, shape: tuple[int, int, int]) -> tuple[Positions, Positions, Positions]:
    """Return output, input and place of flat positions, as narrow as shapes allow."""
    rest, kernel = np.divmod(flat, shape[2]) if shape[2] > 1 else (flat, np.zeros_like(flat))
    out, given = np.divmod(rest, max(1, shape[1]))
    narrow = np.int32 if max(shape) < 2**31 else np.int64
    place = np.uint8 if shape[2] <= 2**8 else narrow
    return out.astype(narrow), given.astype(narrow), kernel.astype(place)


def _balanced_edges(weights: FloatArray, flat: IndexArray, shape: tuple[int, int, int]) -> npt.NDArray[np.float64]:
    """Do what `balanced` does, for a sparse layer: for its weights alone."""
    values = weights.astype(np.float64)
    out, given, _ = _ends(flat, shape)
    for _ in range(BALANCING_ROUNDS):
        for ends, size in ((out, shape[0]), (given, shape[1])):
            norms = np.sqrt(np.bincount(ends, weights=np.square(values), minlength=size))
            values /= np.where(norms > 0, norms, 1)[ends]
    return values


def balanced(layer: FloatArray) -> npt.NDArray[np.float64]:
    """Divide rows and columns by their norms in turn (Sinkhorn), each norm over the entries that are not zero.

    Args:
        layer: Weights, shape (out, in, *kernel).
    """
    # Doubles, because channels can be rescaled so far, for free, that their squares leave float32's range.
    result = np.array(layer, dtype=np.float64).reshape(layer.shape[0], layer.shape[1] if layer.ndim > 1 else 1, -1)
    square = np.empty_like(result)
    for _ in range(BALANCING_ROUNDS):
        for axes in ((1, 2), (0, 2)):
            np.square(result, out=square)
            norms = np.sqrt(square.sum(axis=axes, keepdims=True))
            result /= np.where(norms > 0, norms, 1)
    return result.reshape(layer.shape)


def channels_of(edges: Edges, member: GroupMember) -> tuple[IndexArray, IndexArray]:
    """Return, per edge, the channel at its end on the member's axis (-1 if it is none's) and the place inside it."""
    channel_at = np.full(edges.shape[member.axis], -1, dtype=np.int64)
    inside_at = np.zeros(edges.shape[member.axis], dtype=np.int64)
    positions = member.positions()
    channel_at[positions] = np.arange(member.channels)[:, None]
    inside_at[positions] = np.arange(member.block)
    own = edges.ends[member.axis]
    return channel_at[own], inside_at[own]
