"""Kernels turned and mirrored: the 2 symmetries of a segment, 8 of a square, 48 of a cube."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Collection, Sequence

import numpy as np

from ticketguard.graph.groups import ChannelGroup
from ticketguard.graph.transformation import Array, Description, State

# Axes in front of a weight's kernel: outputs and inputs.
KERNEL_STARTS = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """An axis of a tensor that runs over the places of a flattened feature map.

    Attributes:
        tensor: State-dict name.
        axis: The axis.
        shape: The feature map's size, such as (height, width); places are in C order.
        inner: Channels that lie behind each place; 1 where the map was flattened channels first.
        skip: Positions in front of the map, such as a class token's.
    """

    tensor: str
    axis: int
    shape: tuple[int, ...]
    inner: int = 1
    skip: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turn:
    """All kernels of a network turned or mirrored the same way, and the flattened maps behind them.

    Attributes:
        axes: Axis ``i`` of a turned kernel is axis ``axes[i]`` of the old one, as of `numpy.transpose`.
        flipped: Whether axis ``i`` then runs backwards.
        kernels: Names of the weights, of ``2 + len(axes)`` axes each.
        grids: Axes that run over places.
    """

    axes: tuple[int, ...]
    flipped: tuple[bool, ...]
    kernels: tuple[str, ...]
    grids: tuple[Grid, ...] = ()

    @classmethod
    def every(
        cls, state: State, *, grids: Sequence[Grid] = (), kernels: Collection[str] | None = None, count: int = 2
    ) -> tuple[Turn, ...]:
        """Return all turns of kernels of *count* axes, that which changes nothing first.

        Args:
            state: The network's tensors.
            grids: Axes that run over places.
            kernels: Names of the weights; all tensors of ``2 + count`` axes if not given.
            count: How many axes the kernels have.
        """
        if kernels is None:
            kernels = [name for name, array in state.items() if array.ndim == KERNEL_STARTS + count]
        return tuple(
            cls(axes=axes, flipped=flipped, kernels=tuple(kernels), grids=tuple(grids))
            for axes in itertools.permutations(range(count))
            for flipped in itertools.product((False, True), repeat=count)
        )

    @classmethod
    def drawn(
        cls,
        state: State,
        *,
        generator: np.random.Generator,
        grids: Sequence[Grid] = (),
        kernels: Collection[str] | None = None,
        count: int = 2,
    ) -> Turn:
        """Draw one of the turns that change something; the rest is as for `every`."""
        turns = cls.every(state, grids=grids, kernels=kernels, count=count)[1:]
        return turns[generator.integers(len(turns))]

    @property
    def description(self) -> Description:
        """Say what it is."""
        mirrored = [axis for axis, flip in enumerate(self.flipped) if flip]
        return Description(
            name=f"kernels turned: axes {list(self.axes)}, mirrored {mirrored}",
            does="every kernel is turned or mirrored the same way",
            exact=True,
            around="inputs are turned the same way; strides and paddings that are not alike on all sides turn as well",
        )

    def inverse(self) -> Turn:
        """Return the turn that takes this one back."""
        back = tuple(self.axes.index(axis) for axis in range(len(self.axes)))
        return dataclasses.replace(
            self,
            axes=back,
            flipped=tuple(self.flipped[axis] for axis in back),
            grids=tuple(map(self._grid_after, self.grids)),
        )

    def _grid_after(self, grid: Grid) -> Grid:
        return dataclasses.replace(grid, shape=tuple(grid.shape[axis] for axis in self.axes))

    def turned(self, array: Array, first: int) -> Array:
        """Turn the axes of *array* that start at *first*; for inputs, feature maps and kernels alike."""
        order = [*range(first), *(first + axis for axis in self.axes), *range(first + len(self.axes), array.ndim)]
        mirrored = tuple(first + axis for axis, flip in enumerate(self.flipped) if flip)
        return np.flip(array.transpose(order), mirrored).copy(order="C")

    def apply(self, state: State) -> dict[str, Array]:
        """Return *state* with its kernels turned.

        Raises:
            ValueError: A kernel has another number of axes, or a grid does not fit its tensor.
        """
        result = dict(state)
        for name in self.kernels:
            if name in result:
                if result[name].ndim != KERNEL_STARTS + len(self.axes):
                    raise ValueError(
                        f"{name!r} has {result[name].ndim} axes, expected {KERNEL_STARTS + len(self.axes)}"
                    )
                result[name] = self.turned(result[name], KERNEL_STARTS)
        for grid in self.grids:
            if grid.tensor in result:
                array = result[grid.tensor]
                result[grid.tensor] = np.take(array, self._order(grid, array.shape[grid.axis]), axis=grid.axis)
        return result

    def undo(self, state: State) -> dict[str, Array]:
        """Return *state* with its kernels turned back."""
        return self.inverse().apply(state)

    def _order(self, grid: Grid, size: int) -> Array:
        """Return the order that the turn makes of an axis of *size* positions."""
        period = math.prod(grid.shape) * grid.inner
        if (size - grid.skip) % period:
            raise ValueError(
                f"axis {grid.axis} of {grid.tensor!r} has {size} positions, which is not a grid of {grid.shape}"
            )
        places = np.arange(grid.skip, size).reshape(-1, *grid.shape, grid.inner)
        return np.concatenate([np.arange(grid.skip), self.turned(places, 1).reshape(-1)])


def square_grids(state: State, groups: Sequence[ChannelGroup]) -> tuple[Grid, ...]:
    """Return the axes on which each channel of a convolution is a square of places, behind a flattened map."""
    found: dict[Grid, None] = {}
    for group in groups:
        if any(member.tensor in state and state[member.tensor].ndim > KERNEL_STARTS for member in group):
            for member in group:
                side = math.isqrt(member.block)
                if member.axis == 1 and member.block == side * side > 1:
                    found[Grid(tensor=member.tensor, axis=1, shape=(side, side))] = None
    return tuple(found)
