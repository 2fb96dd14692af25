"""What tracing keeps: units, which may turn out to be one channel, and the operation that ran."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

AxisLabels: TypeAlias = npt.NDArray[np.int64] | None
Labels: TypeAlias = list[AxisLabels]


class Units:
    """Positions that may turn out to be one channel, and those that must not move."""

    def __init__(self) -> None:
        self._count = 0
        self._same: list[npt.NDArray[np.int64]] = []
        self._frozen: list[npt.NDArray[np.int64]] = []

    def fresh(self, size: int) -> npt.NDArray[np.int64]:
        """Return *size* new units."""
        self._count += size
        return np.arange(self._count - size, self._count, dtype=np.int64)

    def freeze(self, labels: AxisLabels) -> None:
        """Say that these units must stay where they are."""
        if labels is not None:
            self._frozen.append(labels)

    def join(self, one: AxisLabels, other: AxisLabels) -> AxisLabels:
        """Say that two axes run over the same channels; an axis of fixed meaning fixes the other. Return the axis."""
        if one is None or other is None:
            self.freeze(one)
            self.freeze(other)
            return None
        self._same.append(np.stack([one, other]))
        return one

    def join_blocks(self, labels: AxisLabels, blocks: int) -> AxisLabels:
        """Say that an axis moves only in *blocks* equal blocks; return one unit per block."""
        if labels is None:
            return None
        rows = labels.reshape(blocks, -1)
        self._same.append(np.stack([rows.reshape(-1), np.repeat(rows[:, 0], rows.shape[1])]))
        return rows[:, 0]

    def resolve(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """One operation that ran.

    Attributes:
        units: Where rules record what they learn.
        name: ATen's name of the operator.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        outputs: The tensors it returned, in order.
        labels_of: Gives the labels of any tensor seen so far.
    """

    units: Units
    name: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    outputs: Sequence[torch.Tensor]
    labels_of: Callable[[torch.Tensor], Labels]

    def argument(self, index: int, name: str, default: Any) -> Any:
        """Return an argument that may be given by position or by name."""
        return self.args[index] if len(self.args) > index else self.kwargs.get(name, default)

    def first(self) -> Labels:
        """Return the labels of the first argument."""
        return list(self.labels_of(self.args[0]))

    def with_blanks(self, labels: Labels) -> list[Labels]:
        """Return *labels* for the first output and labels without meaning for the others (statistics)."""
        blanks: list[Labels] = [[None] * output.ndim for output in self.outputs[1:]]
        return [labels, *blanks]
