"""Where units lie along a tensor's axes, and how they follow when axes are reordered, cut, merged and split.

A reshape may split one axis into several, such as a projection's outputs into (query, key, value), heads and places
inside a head. Which of these carries the channels shows only later: by what is selected, or which axis is summed over.
So units stay on all of them together, exactly, until an operation needs them axis by axis; then the first axis moves,
and what is inside stays in order.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from ticketguard.graph.units import Labels, UnitArray, Units


@dataclasses.dataclass(frozen=True, kw_only=True)
class Factor:
    """Units along one axis, or along several axes that were one.

    Attributes:
        axes: The axes, in the order in which they were one. Without any, one position was taken out of its axis by
            its place: once it is used, the axis's units cannot move.
        units: The unit at each position, shape: the axes' sizes.
    """

    axes: tuple[int, ...]
    units: UnitArray


# The factors of a tensor's axes, no axis in two; positions of an axis in none have a fixed meaning.
Layout: TypeAlias = tuple[Factor, ...]


def of_axes(labels: Labels) -> Layout:
    """Return the layout of axes that are labelled each for itself."""
    return tuple(Factor(axes=(axis,), units=units) for axis, units in enumerate(labels) if units is not None)


def used(layout: Layout, units: Units) -> Layout:
    """Return the layout of a tensor whose values are used rather than passed on."""
    for factor in layout:
        units.freeze(None if factor.axes else factor.units)
    return tuple(factor for factor in layout if factor.axes)


def per_axis(layout: Layout, ndim: int, units: Units) -> Labels:
    """Return the labels of each axis; of axes that were one, the first carries them, and the others stay in order."""
    labels: Labels = [None] * ndim
    for factor in used(layout, units):
        flat = factor.units.reshape(-1)
        labels[factor.axes[0]] = flat if len(factor.axes) == 1 else units.join_blocks(flat, len(factor.units))
    return labels


def renamed(layout: Layout, new: Mapping[int, int]) -> Layout:
    """Return *layout* with axis a called ``new[a]``; units of axes that are not named must be on a single position."""
    factors = []
    for factor in layout:
        kept = [index for index, axis in enumerate(factor.axes) if axis in new]
        inside = tuple(slice(None) if index in kept else 0 for index in range(len(factor.axes)))
        if kept or not factor.axes:
            factors.append(Factor(axes=tuple(new[factor.axes[index]] for index in kept), units=factor.units[inside]))
    return tuple(factors)


def cut(layout: Layout, axis: int, positions: slice) -> Layout:
    """Return the layout of some positions of an axis."""
    factors = []
    for factor in layout:
        inside = tuple(positions if own == axis else slice(None) for own in factor.axes)
        factors.append(Factor(axes=factor.axes, units=factor.units[inside]))
    return tuple(factors)


def freeze_alone(layout: Layout, axis: int, units: Units) -> None:
    """Freeze the units that are on *axis* and on no other, because a position of it is told from the others."""
    for factor in layout:
        units.freeze(factor.units if is_alone(factor, axis) else None)


def is_alone(factor: Factor, axis: int) -> bool:
    """Say whether units are on *axis*, and on no other that has several positions."""
    others = [index for index, own in enumerate(factor.axes) if own != axis]
    return axis in factor.axes and all(factor.units.shape[index] == 1 for index in others)


def joined(one: Layout, other: Layout, *, wide: tuple[set[int], set[int]], ndim: int, units: Units) -> Layout:
    """Say that two tensors are combined place by place, and return the layout of what comes of them.

    Args:
        one: Layout of the first, on the result's axes.
        other: Layout of the second, likewise.
        wide: The axes that each of them has more than one position on; on others it is repeated.
        ndim: Number of the result's axes.
        units: Where it is recorded.
    """
    partners = {frozenset(factor.axes): factor for factor in other}
    matched = all(not wide[1] & {*factor.axes} or frozenset(factor.axes) in partners for factor in one) and all(
        not wide[0] & {*factor.axes} or any({*mine.axes} == {*factor.axes} for mine in one) for factor in other
    )
    if not matched:
        first, second = per_axis(one, ndim, units), per_axis(other, ndim, units)
        labels: Labels = []
        for axis, (mine, theirs) in enumerate(zip(first, second, strict=True)):
            both = axis in wide[0] and axis in wide[1]
            labels.append(units.join(mine, theirs) if both else mine if axis in wide[0] else theirs)
        return of_axes(labels)
    for factor in one:
        partner = partners.pop(frozenset(factor.axes), None)
        if partner is not None:
            order = [partner.axes.index(axis) for axis in factor.axes]
            units.same(factor.units, np.transpose(partner.units, order))
    return (*one, *partners.values())


def reshaped(layout: Layout, old: Sequence[int], new: Sequence[int], units: Units) -> Layout:
    """Carry units over from axes of sizes *old* to axes of sizes *new*, positions staying in row-major order.

    Of axes that are merged only one factor can be kept: one whose values differ rather than a repeated one.
    """
    stretches = list(_stretches(old, new))
    occupied: set[int] = set()
    result = []
    for factor in sorted(layout, key=lambda factor: units.are_uniform(factor.units)):
        factor = _wide(factor)
        mine = [index for index, (axes, _) in enumerate(stretches) if set(axes) & set(factor.axes)]
        if not factor.axes or occupied & set(mine):
            units.freeze(factor.units)
            continue
        occupied.update(mine)
        result.append(_carried(factor, [stretches[index] for index in mine], old, new))
    return tuple(factor for factor in result if factor.axes)


def _stretches(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield runs of old and new axes that hold the same number of positions, as short as can be; without size 1."""
    before = [axis for axis, size in enumerate(old) if size > 1]
    after = [axis for axis, size in enumerate(new) if size > 1]
    i = j = 0
    while i < len(before) or j < len(after):
        first, target = i, j
        i, j = i + 1, j + 1
        while (have := math.prod(old[axis] for axis in before[first:i])) != (
            want := math.prod(new[axis] for axis in after[target:j])
        ):
            i, j = (i + 1, j) if have < want else (i, j + 1)
        yield before[first:i], after[target:j]


def _wide(factor: Factor) -> Factor:
    """Leave out axes of size 1."""
    axes = tuple(axis for axis, size in zip(factor.axes, factor.units.shape, strict=True) if size > 1)
    return Factor(axes=axes, units=factor.units.squeeze())


def _carried(
    factor: Factor, stretches: Sequence[tuple[list[int], list[int]]], old: Sequence[int], new: Sequence[int]
) -> Factor:
    if all(len(before) == len(after) == 1 for before, after in stretches):
        names = {before[0]: after[0] for before, after in stretches}
        return Factor(axes=tuple(names[axis] for axis in factor.axes), units=factor.units)
    before = [axis for axes, _ in stretches for axis in axes]
    after = [axis for _, axes in stretches for axis in axes]
    in_order = np.transpose(factor.units, np.argsort(factor.axes))
    sparse = in_order.reshape([old[axis] if axis in factor.axes else 1 for axis in before])
    grid = np.broadcast_to(sparse, [old[axis] for axis in before]).reshape([new[axis] for axis in after])
    # An axis along which units do not change is one whose positions stay in order.
    varying = [index for index in range(grid.ndim) if (grid != grid.take([0], axis=index)).any()]
    inside = tuple(slice(None) if index in varying else 0 for index in range(grid.ndim))
    return Factor(axes=tuple(after[index] for index in varying), units=np.asarray(grid[inside]))
