"""How alike two channels are, by the strong weights that reach them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ticketguard.graph.groups import GroupMember, IndexArray
from ticketguard.ticket import BoolArray, FloatArray

# Alternate division by row and column norms converges geometrically; three rounds leave a few percent.
BALANCING_ROUNDS = 3
# Training leaves a kept weight correlated with its rewind value; at correlation 0.5 two standard normal values x, y
# carry a log likelihood ratio of about x·y·0.5/(1 − 0.5²).
VALUE_WEIGHT = 0.5
# Values beyond this many standard deviations say no more than one at it.
VALUE_LIMIT = 2.5
# Weight of a degree that agrees to within its sampling noise, against one shared edge.
DEGREE_WEIGHT = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edges:
    """A layer's strongest weights, as a sparse list.

    Attributes:
        shape: (out, in, places of the kernel).
        ends: Output and input position of every edge, two arrays of shape (edges,).
        kernel: Its place in the kernel, shape (edges,).
        values: Its weight relative to its row and column, with unit mean square, shape (edges,).
    """

    shape: tuple[int, int, int]
    ends: tuple[IndexArray, IndexArray]
    kernel: IndexArray
    values: FloatArray

    def chosen(self, which: BoolArray) -> Edges:
        """Return some of the edges; *which* has shape (edges,)."""
        out, given = self.ends
        return dataclasses.replace(
            self, ends=(out[which], given[which]), kernel=self.kernel[which], values=self.values[which]
        )

    def flat(self, ends: Sequence[IndexArray] | None = None) -> IndexArray:
        """Return flat positions, with other *ends* if given."""
        out, given = self.ends if ends is None else ends
        return (out * self.shape[1] + given) * self.shape[2] + self.kernel


def strongest_edges(layer: FloatArray, count: int, kept: BoolArray | None = None) -> Edges:
    """Return a layer's *count* strongest weights, or all that are *kept*.

    Strength is relative to the weight's row and column, so that scaling channels by positive factors changes nothing.

    Args:
        layer: Weights, shape (out, in, *kernel).
        count: How many to take; fewer where the layer has fewer that are not zero.
        kept: Takes exactly these instead; shape of *layer*.
    """
    shape = (layer.shape[0], layer.shape[1] if layer.ndim > 1 else 1, math.prod(layer.shape[2:]))
    flat = balanced(layer).reshape(-1)
    if kept is not None:
        chosen = np.flatnonzero(kept.reshape(-1))
    else:
        chosen = np.flatnonzero(flat)
        if len(chosen) > count:
            weakest = len(chosen) - count
            strongest = np.argpartition(np.abs(flat[chosen]), min(weakest, len(chosen) - 1))[weakest:]
            chosen = np.sort(chosen[strongest])
    values = flat[chosen]
    scale = np.sqrt(np.square(values).mean()) if len(values) else 1.0
    values = np.clip(values / (scale + 1e-12), -VALUE_LIMIT, VALUE_LIMIT)
    out, given, kernel = np.unravel_index(chosen, shape)
    return Edges(shape=shape, ends=(out, given), kernel=kernel, values=values.astype(np.float32))


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Places:
    """Where a suspect's positions on an axis lie in the reference.

    Attributes:
        places: Per position of the suspect's the reference's, `UNKNOWN` if nobody knows yet, or `NOWHERE`.
        unknown_reference: Per position of the reference's whether nobody knows what lies there.
    """

    UNKNOWN: ClassVar[int] = -1
    NOWHERE: ClassVar[int] = -2

    places: IndexArray
    unknown_reference: BoolArray


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """A member's edges with one row per channel.

    Attributes:
        known: Those whose other end is known: a column for each other end and place, sparse, complex. The real part
            says that there is an edge, the imaginary part what it weighs, so that one product compares both.
        profile: How many of the others there are at each place, and their sum, shape (2, channels, places).
        rarity: What a shared edge says, in nats.
        size: Positions on the other axis.
    """

    known: Any
    profile: npt.NDArray[np.float64]
    rarity: float
    size: int

    @classmethod
    def of_reference(cls, edges: Edges, member: GroupMember, places: Places) -> Rows:
        """Lay out the reference's edges, as far as it is known what lies at their other ends."""
        size = len(places.unknown_reference)
        rarity = math.log(max(2.0, math.prod(edges.shape) / max(1, len(edges.values))))
        here = np.where(places.unknown_reference, Places.UNKNOWN, np.arange(size, dtype=np.int64))
        return cls._of(edges, member, here, rarity=rarity, size=size)

    def of_suspect(self, edges: Edges, member: GroupMember, places: Places) -> Rows:
        """Lay out a suspect's edges beside these."""
        return self._of(edges, member, places.places, rarity=self.rarity, size=self.size)

    @classmethod
    def _of(cls, edges: Edges, member: GroupMember, places: IndexArray, *, rarity: float, size: int) -> Rows:
        from scipy.sparse import csr_array

        kernel = edges.shape[2]
        channel, inside = channels_of(edges, member)
        place = places[edges.ends[1 - member.axis]]
        known = (channel >= 0) & (place >= 0)
        columns = ((inside * size + place) * kernel + edges.kernel)[known]
        values = (math.sqrt(rarity) + 1j * math.sqrt(VALUE_WEIGHT) * edges.values[known]).astype(np.complex64)
        shape = (member.channels, member.block * size * kernel)
        profile = np.zeros((2, member.channels, member.block * kernel))
        unknown = (channel >= 0) & (place == Places.UNKNOWN)
        if unknown.any():
            spots = (channel[unknown] * member.block + inside[unknown]) * kernel + edges.kernel[unknown]
            for row, weights in zip(profile, (None, edges.values[unknown].astype(np.float64)), strict=True):
                row += np.bincount(spots, weights=weights, minlength=row.size).reshape(row.shape)
        return cls(
            known=csr_array((values, (channel[known], columns)), shape=shape), profile=profile, rarity=rarity, size=size
        )


def channels_of(edges: Edges, member: GroupMember) -> tuple[IndexArray, IndexArray]:
    """Return, per edge, the channel at its end on the member's axis (-1 if it is none's) and the place inside it."""
    channel_at = np.full(edges.shape[member.axis], -1, dtype=np.int64)
    inside_at = np.zeros(edges.shape[member.axis], dtype=np.int64)
    positions = member.positions()
    channel_at[positions] = np.arange(member.channels)[:, None]
    inside_at[positions] = np.arange(member.block)
    own = edges.ends[member.axis]
    return channel_at[own], inside_at[own]


def member_similarity(reference: Rows, suspect: Edges, member: GroupMember, places: Places) -> npt.NDArray[np.float64]:
    """Score every (reference channel, suspect channel) pair of a stream by one layer's edges.

    Edges whose other end is matched already are compared one by one; of those whose other end is unknown, only how many
    there are at each place of the kernel, and their sum.

    Args:
        reference: The reference's edges.
        suspect: The suspect's edges.
        member: The stream's part of the suspect's layer.
        places: Where the suspect's positions on the other axis lie in the reference.

    Returns:
        Similarities in nats, larger is more alike; shape (channels, suspect's channels).
    """
    other = reference.of_suspect(suspect, member, places)
    # (a + i·v)(a − i·w) has the real part a² + v·w.
    result = np.asarray((reference.known @ other.known.conj().T).todense().real, dtype=np.float64)
    if places.unknown_reference.any():
        _add_profile_similarity(result, reference.profile, other.profile)
    return result


def _add_profile_similarity(
    result: npt.NDArray[np.float64], one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]
) -> None:
    """Add the score of profiles of shape (2, channels, places): squared distance in deviations across channels."""
    for a, b in zip(one, other, strict=True):
        scale = np.sqrt(a.var(axis=0) + b.var(axis=0)) + 1e-9
        a, b = (a - a.mean(axis=0)) / scale, (b - b.mean(axis=0)) / scale
        closeness = a @ b.T
        closeness *= 2
        closeness -= (a**2).sum(axis=1)[:, None]
        closeness -= (b**2).sum(axis=1)[None]
        closeness *= DEGREE_WEIGHT
        result += closeness
