"""Bits in a mask: an edge goes to one of two positions that are both empty in the reference.

Written down for a second implementation under ``signatures/``. Which positions are paired follows from the
owner's key and the reference, and a fair coin of the key's own is added to every bit. A suspect that does not derive
from the marked ticket therefore has an edge at the right position of a pair, and none at the other, as often as the
opposite, whatever the bits and whatever the suspect.

Both positions are drawn where edges are: the row of one edge, the column of another, the place in the kernel of a
third, kept with the odds that an edge is there rather than not. All of it is done with whole numbers, so that every
machine draws the same.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ticketguard.embedding.interface import Binding, Positions
from ticketguard.ticket import BoolArray, Mask

# Candidates for each pair, before what is missing is drawn from all empty positions: where edges fill whole blocks,
# rows and columns of edges hardly meet in an empty position.
MOST_CANDIDATES, CANDIDATES_AT_ONCE = 200, 16
# The highest probability of an edge that its channels' degrees may say, 19 in 20: odds have to end somewhere.
MOST_LIKELY = (19, 20)
TOO_LARGE = 2**62
# A code takes at most one in so many of a layer's edges, and leaves most of its empty positions.
ROOM = 4
# Edges of a layer that are listed once for all keys; a longer list is made anew for each, and takes its memory for as
# long as one layer is drawn.
MOST_HELD = 2**20

Bits = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """The pairs of one layer.

    Attributes:
        positions: Flat positions, shape (pairs, 2), all distinct.
        coins: For each pair 0 or 1: bit XOR coin says at which of the two positions the edge is.
        first: The number of the layer's first pair among those of all layers.
    """

    positions: Positions
    coins: Bits
    first: int

    def __len__(self) -> int:
        return len(self.coins)

    def bits_carried(self, bits: int) -> Positions:
        """Return which of so many *bits* each pair carries: pairs of all layers take turns."""
        return (self.first + np.arange(len(self))) % bits


class PairedLayers:
    """What pairs are drawn on: a reference's edges, the same for every key.

    Args:
        reference: The mask of the unmarked ticket.
    """

    def __init__(self, reference: Mask) -> None:
        self._reference = reference
        self._edges: dict[str, Positions] = {}
        self._weight = {name: _weight(reference, name) for name in reference}

    @property
    def room(self) -> int:
        """Pairs there is room for."""
        return sum(self._weight.values()) // ROOM

    def shares(self, count: int) -> dict[str, tuple[int, int]]:
        """Return each layer's first pair, and the one after its last, of *count* pairs."""
        total = sum(self._weight.values())
        found, before = {}, 0
        for name, weight in self._weight.items():
            after = before + weight
            found[name] = (count * before // max(1, total), count * after // max(1, total))
            before = after
        return found

    def draw(self, binding: Binding, count: int) -> dict[str, Pairs]:
        """Draw *count* pairs, layer by layer; layers without any are left out.

        Raises:
            ValueError: There is not room for so many.
        """
        if not 0 <= count <= self.room:
            raise ValueError(f"count is {count}, expected 0 to {self.room}")
        return {
            name: self._of_layer(binding, name, first, end - first)
            for name, (first, end) in self.shares(count).items()
            if end > first
        }

    def _of_layer(self, binding: Binding, name: str, first: int, count: int) -> Pairs:
        drawn: dict[int, None] = {}  # a set that keeps its order
        for candidates in self._candidates(binding, name, count):
            drawn.update(dict.fromkeys(candidates))
            if len(drawn) >= 2 * count:
                break
        positions = np.fromiter(drawn, dtype=np.int64, count=len(drawn))[: 2 * count].reshape(count, 2)
        coins = binding.stream(f"coins/{name}").integers(2, count).astype(np.uint8)
        return Pairs(positions=positions, coins=coins, first=first)

    def _candidates(self, binding: Binding, name: str, count: int) -> Iterator[Sequence[int]]:
        """Yield empty positions, with repetitions: those of a row and a column with edges, and then any.

        With p = row · column degree / (edges · places in a kernel), at most `MOST_LIKELY`, a candidate comes with a
        probability in proportion to p. It is kept with one in proportion to 1 / (1 − p): together these are the odds.
        """
        edges, shape = self._kept(name), self._reference.shape(name)
        odds = _Odds.of(edges, shape)
        luck, left = binding.stream(f"pairs/{name}"), MOST_CANDIDATES * count
        while left:
            some = min(left, CANDIDATES_AT_ONCE * count)
            chosen = luck.integers(len(edges), 4 * some).reshape(some, 4)
            rows, columns, kernels = (edges[chosen[:, axis]] for axis in range(3))
            rows, columns = odds.row(rows), odds.column(columns)
            at = (rows * odds.width + columns) * odds.cells + kernels % odds.cells
            yield at[odds.keeps(rows, columns, chosen[:, 3]) & ~self._reference.at(name, at)].tolist()
            left -= some
        empty, rest = np.flatnonzero(~self._reference[name].reshape(-1)), binding.stream(f"rest/{name}")
        while True:
            yield empty[rest.integers(len(empty), 2 * count)].tolist()

    def _kept(self, name: str) -> Positions:
        if name in self._edges:
            return self._edges[name]
        edges = np.flatnonzero(self._reference[name].reshape(-1))
        if len(edges) <= MOST_HELD:
            self._edges[name] = edges
        return edges


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Odds:
    """The odds of an edge in a layer, given the degrees of its row and column."""

    width: int
    cells: int
    edges: int
    rows: Positions
    columns: Positions

    @classmethod
    def of(cls, edges: Positions, shape: tuple[int, ...]) -> _Odds:
        """Count degrees; a tensor of one axis has one column."""
        width, cells = math.prod(shape[1:2]), math.prod(shape[2:])
        odds = cls(width=width, cells=cells, edges=len(edges), rows=edges, columns=edges)
        return dataclasses.replace(
            odds,
            rows=np.bincount(odds.row(edges), minlength=shape[0]),
            columns=np.bincount(odds.column(edges), minlength=width),
        )

    def row(self, positions: Positions) -> Positions:
        return np.asarray(positions // (self.width * self.cells))

    def column(self, positions: Positions) -> Positions:
        return np.asarray(positions // self.cells % self.width)

    def keeps(self, rows: Positions, columns: Positions, luck: Positions) -> BoolArray:
        """Say which candidates are kept; *luck* is uniform below the number of edges."""
        all_of_it = self.edges * self.cells
        most = min(int(self.rows.max()) * int(self.columns.max()), all_of_it * MOST_LIKELY[0] // MOST_LIKELY[1])
        likely = np.minimum(self.rows[rows] * self.columns[columns], most)
        return np.asarray(luck * (all_of_it - likely) < self.edges * (all_of_it - most))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class MovedLayer:
    """A layer that has a code's edges.

    Attributes:
        layer: The mask.
        planted: Flat positions that the code has an edge at and another mark did not, ascending.
        fixed: Flat positions that the code decides, ascending: the pairs' own, and those that edges left. Another mark
            that brought one of these back would have it where the reference has an edge, and could not count it.
    """

    layer: BoolArray
    planted: Positions
    fixed: Positions


def move_to_pairs(
    layer: BoolArray, pairs: Pairs, bits: Bits, *, kept_strength: npt.NDArray[np.floating], fixed: Positions
) -> MovedLayer:
    """Move edges to one position of each pair: as many of the weakest go as come.

    Another mark may have decided some of the positions, and its edges stay; a pair of which it holds one then reads as
    nothing.

    Args:
        layer: The mask.
        pairs: Of this layer.
        bits: All bits of the code.
        kept_strength: Flat magnitudes of the trained weights.
        fixed: Flat positions that other marks decided.
    """
    flat = layer.reshape(-1).copy()
    is_free = np.ones(flat.size, dtype=np.bool_)
    is_free[fixed] = False
    sides = bits[pairs.bits_carried(len(bits))] ^ pairs.coins
    coming = pairs.positions[np.arange(len(pairs)), sides]
    coming = np.sort(coming[is_free[coming] & ~flat[coming]])
    leaving = np.flatnonzero(flat & is_free)
    leaving = leaving[np.argsort(kept_strength[leaving], kind="stable")[: len(coming)]]
    flat[leaving] = False
    flat[coming] = True
    decided = np.concatenate([pairs.positions.reshape(-1), leaving])
    return MovedLayer(layer=flat.reshape(layer.shape), planted=coming, fixed=np.sort(decided))


def pairs_in(mask: Mask, drawn: Mapping[str, Pairs]) -> int:
    """Return how many of the drawn pairs have an edge at just one position."""
    return sum(
        int(np.count_nonzero(mask.at(name, pairs.positions[:, 0]) != mask.at(name, pairs.positions[:, 1])))
        for name, pairs in drawn.items()
    )


def _weight(reference: Mask, name: str) -> int:
    """Return what a layer's share of the pairs is in proportion to: its edges, or half its empty positions if fewer.

    Layers so large that products of degrees are beyond 63 bits have no pairs.
    """
    edges, shape = reference.count(name), reference.shape(name)
    if edges * edges * math.prod(shape[2:]) >= TOO_LARGE:
        return 0
    return min(edges, (math.prod(shape) - edges) // 2)
