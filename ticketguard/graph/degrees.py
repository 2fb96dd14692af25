"""How likely an edge is at a position, given how many edges its row, its column and its place of the kernel have.

Where all are sparse it is nearly the product of the three shares. Where some are nearly full it is not: the edges of
full rows are shared by any two networks that have them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ticketguard.graph.groups import IndexArray

Floats = npt.NDArray[np.float64]

# Above this the product is not near enough: odds, not probabilities, multiply.
SPARSE = 0.1
# Kinds of rows, columns and places that are told apart.
MOST_LEVELS = 32
# Fitting ends when sums are off by less than this share, or after so many rounds.
CLOSE, ROUNDS = 0.002, 12
# Keeps the odds of full and of empty rows finite.
HALF = 0.5


def expected_edges(counts: Sequence[IndexArray], ends: Sequence[IndexArray]) -> Floats:
    """Return the probability of an edge at each of some positions, in a network that has these counts.

    Args:
        counts: Edges of every row, every column and every place of the kernel.
        ends: Row, column and place of each position; arrays that broadcast.
    """
    total = max(1, int(counts[0].sum()))
    if np.prod([count.max(initial=0) for count in counts], dtype=np.float64) <= SPARSE * total**2:
        rows, columns, places = (count[end] for count, end in zip(counts, ends, strict=True))
        return np.asarray(rows / total * columns * (places / total))
    levels = [_Levels(count) for count in counts]
    fitted = _fitted(tuple((level.rows.tobytes(), level.edges.tobytes()) for level in levels), total)
    return np.asarray(fitted[tuple(level.of[end] for level, end in zip(levels, ends, strict=True))])


class _Levels:
    """Counts that are alike, taken together.

    Args:
        counts: How many edges each row has; or each column, or place.
    """

    def __init__(self, counts: IndexArray) -> None:
        values, self.of = np.unique(counts, return_inverse=True)
        if len(values) > MOST_LEVELS:
            order = np.argsort(counts, kind="stable")
            self.of[order] = np.arange(len(counts)) * MOST_LEVELS // len(counts)
        # How many rows each level has, and how many edges all of them have together.
        self.rows = np.bincount(self.of).astype(np.float64)
        self.edges = np.bincount(self.of, weights=counts)


# Other orders of the same channels have the same levels: of each layer there are few.
@functools.lru_cache(maxsize=256)
def _fitted(levels: tuple[tuple[bytes, bytes], ...], total: int) -> Floats:
    """Return probabilities by level whose odds are products, and which have the right sums over rows, columns, places.

    Of all networks with these sums that is the mean, but for what fluctuates (Park and Newman 2004, "Statistical
    mechanics of networks", section III).
    """
    sizes, sums = ([np.frombuffer(level[part]) for level in levels] for part in (0, 1))
    cells = np.einsum("i,j,k->ijk", *sizes)
    size = float(cells.sum())
    others = [tuple(other for other in range(3) if other != axis) for axis in range(3)]
    most = [rows * (size / rows.sum()) for rows in sizes]
    overall = _odds(total, size)
    odds = np.full(cells.shape, overall)
    for axis, edges in enumerate(sums):
        odds *= np.expand_dims(_odds(edges, most[axis]) / overall, others[axis])
    for _ in range(ROUNDS):
        is_close = True
        for axis, edges in enumerate(sums):
            found: Floats = (cells * (odds / (1 + odds))).sum(axis=others[axis])
            if (np.abs(found - edges) > CLOSE * (edges + 1)).any():
                is_close = False
                # Too short a step where the odds of a row differ, and never too long.
                odds *= np.expand_dims(_odds(edges, most[axis]) / _odds(found, most[axis]), others[axis])
        if is_close:
            break
    return np.asarray(odds / (1 + odds))


def _odds(edges: Floats | float, positions: Floats | float) -> Floats:
    return np.asarray((edges + HALF) / (positions - edges + HALF))
