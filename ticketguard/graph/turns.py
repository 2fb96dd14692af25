"""Turns of a kernel's places: a thief turns every kernel, and the images that go in."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ticketguard.graph.groups import IndexArray

Scalar = TypeVar("Scalar", bound=np.generic)
# Axes of a weight before the kernel's.
CHANNEL_AXES = 2
# Kernels of volumes have three axes, and 48 turns; of what has more, which nobody trains, turns are not looked for.
MOST_AXES = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelTurn:
    """One of the symmetries of a line (2), a square (8) or a cube (48): axes in another order, some of them mirrored.

    Attributes:
        axes: Axis *i* of the result is axis ``axes[i]`` of the kernel.
        mirrored: Which axes of the result run backwards.
    """

    axes: tuple[int, ...]
    mirrored: tuple[bool, ...]

    @property
    def is_none(self) -> bool:
        """Whether it leaves everything in place."""
        return not any(self.mirrored) and self.axes == tuple(range(len(self.axes)))

    @property
    def name(self) -> str:
        """As evidence names it: "as stored", or the axes in their new order, with a minus where they run backwards."""
        if self.is_none:
            return "as stored"
        signed = (f"{'-' if back else ''}{axis}" for axis, back in zip(self.axes, self.mirrored, strict=True))
        return f"kernel axes ({', '.join(signed)})"

    def fits(self, kernel: tuple[int, ...]) -> bool:
        """Say whether a kernel keeps its shape."""
        return len(kernel) == len(self.axes) and tuple(kernel[axis] for axis in self.axes) == kernel

    def kernel(self, layer: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """Return a layer of shape (out, in, *kernel) with its kernels turned."""
        turned = np.transpose(layer, (0, 1, *(CHANNEL_AXES + axis for axis in self.axes)))
        back = tuple(CHANNEL_AXES + axis for axis, mirrored in enumerate(self.mirrored) if mirrored)
        return np.flip(turned, back)

    def came_from(self, shape: tuple[int, ...]) -> IndexArray:
        """Return which flat place of a kernel of this *shape* comes to each place; all their own if it does not fit."""
        places = np.arange(math.prod(shape), dtype=np.int64)
        if not self.fits(shape):
            return places
        return self.kernel(places.reshape(1, 1, *shape)).reshape(-1)

    def block_came_from(self, block: int) -> IndexArray:
        """Return the same for the places of a flattened map, as many on every axis as on the others."""
        side = round(block ** (1 / max(1, len(self.axes))))
        return self.came_from((side,) * len(self.axes) if side ** len(self.axes) == block else (block,))


def orbits(turns: Sequence[KernelTurn], places: int) -> IndexArray:
    """Number the places of a kernel or flattened map so that those which turns bring to each other have one number."""
    lowest = np.arange(places, dtype=np.int64)
    for turn in turns:
        np.minimum(lowest, turn.block_came_from(places), out=lowest)
    return np.unique(lowest, return_inverse=True)[1].astype(np.int64)


UNTURNED = KernelTurn(axes=(), mirrored=())


def turns_of(kernels: Iterable[tuple[int, ...]]) -> tuple[KernelTurn, ...]:
    """Return the turns that all these kernels could have been given, the identity first.

    Kernels of a single place turn into themselves. A network whose others differ in their number of axes has none, nor
    has one whose kernels have more than `MOST_AXES`.
    """
    shapes = {kernel for kernel in kernels if math.prod(kernel) > 1}
    dimensions = {len(kernel) for kernel in shapes}
    if len(dimensions) != 1 or max(dimensions) > MOST_AXES:
        return (UNTURNED,)
    count = dimensions.pop()
    turns = (
        KernelTurn(axes=axes, mirrored=mirrored)
        for axes in itertools.permutations(range(count))
        for mirrored in itertools.product((False, True), repeat=count)
    )
    return tuple(turn for turn in turns if all(turn.fits(shape) for shape in shapes))
