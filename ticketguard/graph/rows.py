"""How alike two channels are, by the strong weights that reach them."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from ticketguard.graph.groups import GroupMember, IndexArray
from ticketguard.graph.similarity import Edges, channels_of
from ticketguard.ticket import BoolArray, FloatArray

# Training leaves a kept weight correlated with its rewind value; at correlation 0.5 two standard normal values x, y
# carry a log likelihood ratio of about x·y·0.5/(1 − 0.5²). How far weights agree is seen once channels are in place.
VALUE_WEIGHT = 0.5
# Weight of a degree that agrees to within its sampling noise, against one shared edge.
DEGREE_WEIGHT = 0.5
# Up to so many multiplications a full matrix product is as fast as a sparse one.
FULL_PRODUCT = 10**8
# Cells of a sparse product that are held as such, at 24 bytes each.
CELLS_AT_ONCE = 2**20
Profile: TypeAlias = npt.NDArray[np.float64]


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


class Rows:
    """A member's edges with one row per channel: what of them does not change while the other ends are looked for.

    Args:
        edges: The edges of the member's layer.
        member: One axis of it.
        size: Positions on the other axis, in the reference.
    """

    def __init__(self, edges: Edges, member: GroupMember, size: int) -> None:
        channel, inside = channels_of(edges, member)
        kernel = edges.shape[2]
        self.edges, self.channels, self.places, self.kernel = edges, member.channels, member.block * kernel, kernel
        self.columns = self.places * size
        narrow = np.int32 if self.columns + 2 * kernel < 2**31 else np.int64
        column = (inside * (size * kernel) + edges.kernel).astype(narrow)
        self._others, self.values, self._spot = (
            edges.ends[1 - member.axis],
            edges.values,
            inside * kernel + edges.kernel,
        )
        if len(channel) and (channel[0] < 0 or (channel[1:] < channel[:-1]).any()):
            order = np.argsort(channel, kind="stable")
            order = order[np.searchsorted(channel[order], 0) :]  # the first are in no channel
            channel, column = channel[order], column[order]
            self._others, self.values, self._spot = self._others[order], self.values[order], self._spot[order]
        self._column, self._spot = column, self._spot.astype(np.int32)
        self.first = np.searchsorted(channel, np.arange(1 + member.channels))
        # What a shared edge says, in nats.
        self.rarity = math.log(max(2.0, math.prod(edges.shape) / max(1, len(edges.values))))

    @property
    def _channel(self) -> IndexArray:
        return np.repeat(np.arange(self.channels), np.diff(self.first))

    def known(self, places: IndexArray, rarity: float) -> Known:
        """Return the edges whose other ends are known, in columns by the *places* of these and of the kernel."""
        place = places.astype(self._column.dtype)[self._others]
        column = self._column + place * self._column.dtype.type(self.kernel)
        if place.min(initial=0) >= 0:
            return Known(rows=self, first=self.first, column=column, values=self.values, rarity=rarity)
        there = place >= 0
        first = np.concatenate([[0], np.cumsum(there)])[self.first]
        return Known(rows=self, first=first, column=column[there], values=self.values[there], rarity=rarity)

    def profile(self, places: IndexArray) -> Profile:
        """Return how many edges with unknown other ends there are at each place, and their sum.

        Shape (2, channels, places).
        """
        unknown = places[self._others] == Places.UNKNOWN
        at = self._channel[unknown] * self.places + self._spot[unknown]
        counts = [
            np.bincount(at, weights=weights, minlength=self.channels * self.places).astype(np.float64)
            for weights in (None, self.values[unknown].astype(np.float64))
        ]
        return np.stack(counts).reshape(2, self.channels, self.places)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Known:
    """Edges whose other ends are known.

    Attributes:
        rows: Where they come from.
        first: Where each channel's begin; the last number is how many there are.
        column: Of each edge.
        values: What each weighs.
        rarity: What a shared edge says, in nats.
    """

    rows: Rows
    first: IndexArray
    column: IndexArray
    values: FloatArray
    rarity: float

    @property
    def other_ends(self) -> IndexArray:
        """Positions, in the reference, of what lies at the other ends of edges."""
        rows = self.rows
        ends: IndexArray = self.column // rows.kernel % (rows.columns // rows.places)
        return ends

    @functools.cached_property
    def full(self) -> FloatArray:
        """Both factors of a similarity side by side: that there is an edge, and what it weighs."""
        is_edge = np.full(len(self.column), math.sqrt(self.rarity), dtype=np.float32)
        return np.hstack([self.dense(is_edge), self.dense(math.sqrt(VALUE_WEIGHT) * self.values)])

    @functools.cached_property
    def sparse(self) -> Any:
        """The same as one complex number an edge, so that one product compares both."""
        return self.spread((math.sqrt(self.rarity) + 1j * math.sqrt(VALUE_WEIGHT) * self.values).astype(np.complex64))

    def dense(self, values: FloatArray) -> FloatArray:
        """Return a number an edge as a matrix, a row a channel."""
        channel = np.repeat(np.arange(self.rows.channels), np.diff(self.first))
        matrix = np.zeros((self.rows.channels, self.rows.columns), dtype=np.float32)
        matrix[channel, self.column] = values
        return matrix

    def spread(self, values: npt.NDArray[Any]) -> Any:
        """Return the same as a sparse matrix."""
        from scipy.sparse import csr_array

        index = np.int32 if max(self.rows.columns, len(self.column)) < 2**31 else np.int64
        parts = (values, self.column.astype(index), self.first.astype(index))
        return csr_array(parts, shape=(self.rows.channels, self.rows.columns))

    @functools.cached_property
    def turned(self) -> Any:
        """The complex conjugate with a row a column, for a product with another's rows."""
        return self.sparse.conj().T.tocsr()


def member_similarity(reference: Rows, known: Known | None, suspect: Rows, places: Places) -> FloatArray:
    """Score every (reference channel, suspect channel) pair of a stream by one layer's edges.

    Edges whose other end is matched already are compared one by one; of those whose other end is unknown, only how many
    there are at each place of the kernel, and their sum.

    Args:
        reference: The stream's part of the reference's layer.
        known: Its edges, if it is known what lies at the other ends of all.
        suspect: The stream's part of the suspect's layer.
        places: Where the suspect's positions on the other axis lie in the reference.

    Returns:
        Similarities in nats, larger is more alike; shape (channels, suspect's channels).
    """
    size = len(places.unknown_reference)
    here = np.where(places.unknown_reference, Places.UNKNOWN, np.arange(size, dtype=np.int64))
    one = reference.known(here, reference.rarity) if known is None else known
    other = suspect.known(places.places, reference.rarity)
    if not len(one.column) or not len(other.column):
        result = np.zeros((reference.channels, suspect.channels), dtype=np.float32)
    elif reference.channels * suspect.channels * reference.columns <= FULL_PRODUCT:
        result = one.full @ other.full.T
    else:
        result = _sparse_product(one, other)
    if places.unknown_reference.any():
        result += _profile_similarity(reference.profile(here), suspect.profile(places.places))
    return result


def _sparse_product(one: Known, other: Known) -> FloatArray:
    """Return the product of two members' edges, a few rows at a time: it is hardly sparse itself."""
    rows, columns = one.sparse, other.turned
    result = np.empty((one.rows.channels, other.rows.channels), dtype=np.float32)
    at_once = max(1, CELLS_AT_ONCE // max(1, other.rows.channels))
    for start in range(0, len(result), at_once):
        # (a + i·v)(a − i·w) has the real part a² + v·w.
        result[start : start + at_once] = (rows[start : start + at_once] @ columns).toarray().real
    return result


def _profile_similarity(one: Profile, other: Profile) -> FloatArray:
    """Return the score of profiles of shape (2, channels, places): squared distance in deviations across channels."""
    sides: tuple[list[Profile], list[Profile]] = ([], [])
    for a, b in zip(one, other, strict=True):
        scale = np.sqrt(a.var(axis=0) + b.var(axis=0)) + 1e-9
        sides[0].append((a - a.mean(axis=0)) / scale)
        sides[1].append((b - b.mean(axis=0)) / scale)
    left, right = (np.hstack(side) * math.sqrt(DEGREE_WEIGHT) for side in sides)
    # −(a − b)² = 2ab − a² − b², in one product.
    ones = [np.ones((len(side), 1)) for side in (left, right)]
    left = np.hstack([2 * left, -(left**2).sum(axis=1, keepdims=True), -ones[0]])
    right = np.hstack([right, ones[1], (right**2).sum(axis=1, keepdims=True)])
    return np.asarray(left.astype(np.float32) @ right.astype(np.float32).T)
