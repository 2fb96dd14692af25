"""In which order a stored tensor has a layer's axes: (out, in, kernel), or as another library keeps them.

A layout is a reshape and a reordering of axes. Which ones fit follows from two shapes, never from a value.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import TypeAlias

from ticketguard.ticket import Array

Shape: TypeAlias = tuple[int, ...]
Order: TypeAlias = tuple[str, ...]

# O: output channels, I: input channels, K: the places of the kernel. As PyTorch has them; TensorFlow, Keras and Flax;
# TensorFlow Lite; PyTorch's transposed convolutions; TensorFlow's transposed and depthwise ones; Caffe2's CHWN. A
# depthwise layer has one input channel a filter, which not every library gives an axis.
_ORDERS: tuple[Order, ...] = tuple(map(tuple, ("OIK", "KIO", "OKI", "IOK", "KOI", "IKO", "OK", "KO")))
# Two axes, of which one holds input channels and the places of the kernel.
_FLAT_ORDERS: tuple[Order, ...] = (("O", "IK"), ("O", "KI"), ("KI", "O"), ("IK", "O"))
_WORDS = {"O": "out", "I": "in", "K": "kernel"}
# Nobody's layer has more axes, but a hostile file's have a thousand.
_MOST_AXES = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """One way to read a stored tensor as a layer.

    Attributes:
        order: What lies on the stored axes, first to last: ``O`` output channels, ``I`` input channels, ``K`` the
            kernel; two letters where they share an axis.
        split: Shape of the stored tensor (or of its part), shared axes taken apart.
        axes: The axes of *split* in the layer's order.
        shape: Shape of the layer: (out, in, *kernel).
        part: Stored axis, first position and number of positions of the layer, where a tensor holds several layers.
    """

    order: Order
    split: Shape
    axes: tuple[int, ...]
    shape: Shape
    part: tuple[int, int, int] | None = None

    @property
    def name(self) -> str:
        """As evidence names it."""
        order = ", ".join("·".join(_WORDS[letter] for letter in shared) for shared in self.order)
        if self.part is not None:
            return f"part of a tensor ({order})"
        return "as stored" if self.as_stored else order

    @property
    def as_stored(self) -> bool:
        """Whether the stored tensor is the layer, as it is."""
        apart = len(self.shape) > 2 and any(len(shared) > 1 for shared in self.order)
        return (
            self.part is None and not apart and self.split == self.shape and self.axes == tuple(range(len(self.axes)))
        )

    @property
    def in_first(self) -> bool | None:
        """Whether input channels come before output channels; None where they have no axis."""
        return self._first("I", "O")

    @property
    def kernel_first(self) -> bool | None:
        """Whether the kernel comes before input channels; None where either has no axis."""
        return self._first("K", "I")

    def _first(self, one: str, other: str) -> bool | None:
        letters = "".join(self.order)
        return letters.index(one) < letters.index(other) if one in letters and other in letters else None

    def apply(self, stored: Array) -> Array:
        """Return the layer, shape (out, in, *kernel); a view where one will do.

        Raises:
            ValueError: *stored* has another shape than the one this layout was found for.
        """
        if self.part is not None:
            axis, first, count = self.part
            stored = stored[(slice(None),) * axis + (slice(first, first + count),)]
        return stored.reshape(self.split).transpose(self.axes).reshape(self.shape)


@functools.lru_cache(maxsize=4096)
def layouts_of(stored: Shape, wanted: Shape, *, block: int = 1) -> tuple[Layout, ...]:
    """Return the layouts in which a stored tensor is a layer of some number of channels, likeliest first.

    The kernel has to be the wanted one. Where some layouts give exactly the wanted shape, only these are returned; else
    those first that give the wanted number of channels on one side, and then those nearest to it.

    Args:
        stored: Shape of the stored tensor.
        wanted: The layer's shape in the reference: (out, in, *kernel).
        block: Consecutive positions of a linear layer's input that make one channel: height·width behind a flattened
            feature map.
    """
    if len(wanted) < 2 or 0 in stored or 0 in wanted or not 2 <= len(stored) <= _MOST_AXES:
        whole = Layout(order=("O",), split=stored, axes=tuple(range(len(stored))), shape=wanted)
        return (whole,) if stored == wanted else ()
    found: dict[tuple[Shape, tuple[int, ...]], Layout] = {}
    for layout in (*_by_axes(stored, wanted, block), *_flattened(stored, wanted, block)):
        # Two orders may be one reshape, as where the kernel has one place.
        same = tuple(axis for axis in layout.axes if layout.split[axis] != 1)
        found.setdefault((layout.shape, same), layout)
    exact = tuple(layout for layout in found.values() if layout.shape == wanted)
    return exact or tuple(sorted(found.values(), key=lambda layout: _unlikeness(layout.shape, wanted)))


def _unlikeness(shape: Shape, wanted: Shape) -> tuple[int, float]:
    """Return how many axes of channels have another size, and how far off they are, in nats."""
    pairs = list(zip(shape[:2], wanted[:2], strict=True))
    return sum(a != b for a, b in pairs), sum(abs(math.log(a / b)) for a, b in pairs)


def _places(wanted: Shape, block: int) -> Shape:
    """Return the axes of the kernel that have more than one place."""
    return tuple(size for size in (wanted[2:] or (block,)) if size != 1)


def _by_axes(stored: Shape, wanted: Shape, block: int) -> Iterator[Layout]:
    """Yield the layouts that give the kernel's places axes of their own."""
    kernel, places = wanted[2:], _places(wanted, block)
    for order in _ORDERS:
        spare = len(stored) - (len(order) - 1)
        if spare < 0 or ("I" not in order and (wanted[1] != 1 or not kernel)):
            continue
        letters = "".join(letter * (spare if letter == "K" else 1) for letter in order)
        if not kernel and places and len(stored) == 2 and stored[letters == "OI"] % block == 0:
            continue  # blocks on the axis of the input: `_flattened` has both orders of them
        inner = tuple(size for size, letter in zip(stored, letters, strict=True) if letter == "K" and size != 1)
        layout = _layout(
            order if spare else tuple(letter for letter in order if letter != "K"), stored, letters, wanted
        )
        # A linear layer may be stored as the convolution that it is, or have its blocks on axes of their own.
        whole = not kernel and (not inner or layout.shape[1] == wanted[1] or math.prod(inner) == block)
        if inner == places or whole:
            yield layout


def _flattened(stored: Shape, wanted: Shape, block: int) -> Iterator[Layout]:
    """Yield the layouts that have input channels and places on one axis."""
    places = _places(wanted, block)
    count = math.prod(places)
    if len(stored) != 2 or count == 1:
        return
    for order in _FLAT_ORDERS:
        out, shared = stored if order[0] == "O" else stored[::-1]
        # A product says little of its factors: one side has to be the layer's.
        if shared % count or (wanted[2:] and out != wanted[0] and shared != wanted[1] * count):
            continue
        sizes = {"O": (out,), "I": (shared // count,), "K": places}
        apart = "".join(order)
        split = tuple(size for letter in apart for size in sizes[letter])
        if not wanted[2:] and order == ("O", "IK"):
            yield Layout(order=order, split=stored, axes=(0, 1), shape=stored)
        else:
            yield _layout(order, split, "".join(letter * len(sizes[letter]) for letter in apart), wanted)


def _layout(order: Order, split: Shape, letters: str, wanted: Shape) -> Layout:
    axes = tuple(sorted(range(len(split)), key=lambda axis: "OIK".index(letters[axis])))
    out, given, places = (
        math.prod(size for size, letter in zip(split, letters, strict=True) if letter == kind) for kind in "OIK"
    )
    shape = (out, given, *wanted[2:]) if wanted[2:] else (out, given * places)
    return Layout(order=order, split=split, axes=axes, shape=shape)
