"""What tracing keeps: units, the positions that may turn out to be one channel."""

from __future__ import annotations

import bisect
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

UnitArray: TypeAlias = npt.NDArray[np.int64]
AxisLabels: TypeAlias = UnitArray | None
Labels: TypeAlias = list[AxisLabels]


class Units:
    """Positions that may turn out to be one channel, and those that must not move."""

    def __init__(self) -> None:
        self._count = 0
        self._same: list[UnitArray] = []
        self._frozen: list[UnitArray] = []
        # Where each stretch of units that were drawn together starts, and whether it is uniform.
        self._starts: list[int] = []
        self._are_uniform: list[bool] = []

    def fresh(self, size: int, *, uniform: bool = False) -> UnitArray:
        """Return *size* new units; *uniform* ones label equal values, for which any order is as good as another."""
        if self._are_uniform[-1:] != [uniform]:
            self._starts.append(self._count)
            self._are_uniform.append(uniform)
        self._count += size
        return np.arange(self._count - size, self._count, dtype=np.int64)

    def are_uniform(self, labels: UnitArray) -> bool:
        """Say whether all of these units were drawn for equal values."""
        stretches = {bisect.bisect_right(self._starts, unit) - 1 for unit in np.unique(labels).tolist()}
        return all(self._are_uniform[stretch] for stretch in stretches)

    def freeze(self, labels: AxisLabels) -> None:
        """Say that these units must stay where they are."""
        if labels is not None and labels.size:
            self._frozen.append(labels.reshape(-1))

    def same(self, one: UnitArray, other: UnitArray) -> None:
        """Say that units at the same place of two arrays are one channel."""
        if one is not other and not np.array_equal(one, other):
            self._same.append(np.stack([one.reshape(-1), other.reshape(-1)]))

    def join(self, one: AxisLabels, other: AxisLabels) -> AxisLabels:
        """Say that two axes run over the same channels; an axis of fixed meaning fixes the other. Return the axis."""
        if one is None or other is None:
            self.freeze(one)
            self.freeze(other)
            return None
        self.same(one, other)
        return one

    def join_blocks(self, labels: AxisLabels, blocks: int) -> AxisLabels:
        """Say that an axis moves only in *blocks* equal blocks; return one unit per block."""
        if labels is None:
            return None
        rows = labels.reshape(blocks, -1)
        self.same(rows.reshape(-1), np.repeat(rows[:, 0], rows.shape[1]))
        return rows[:, 0]

    def resolve(self) -> tuple[UnitArray, npt.NDArray[np.bool_]]:
        """Return the channel of every unit, and for every channel whether it is frozen."""
        pairs = np.concatenate([np.zeros((2, 0), dtype=np.int64), *self._same], axis=1)
        from scipy.sparse import coo_array  # slow to import, and a verifier traces no groups
        from scipy.sparse.csgraph import connected_components

        graph = coo_array((np.ones(pairs.shape[1], dtype=np.int8), (pairs[0], pairs[1])), shape=(self._count,) * 2)
        count, channel_of = connected_components(graph, directed=False)
        is_frozen = np.zeros(count, dtype=np.bool_)
        for labels in self._frozen:
            is_frozen[channel_of[labels]] = True
        return channel_of.astype(np.int64), is_frozen
