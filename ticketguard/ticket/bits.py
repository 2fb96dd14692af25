"""Mask layers as bits: eight positions a byte, first position in the lowest bit, flattened in C order."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ticketguard.errors import TensorError

BoolArray: TypeAlias = npt.NDArray[np.bool_]
Bytes: TypeAlias = npt.NDArray[np.uint8]


def pack_bits(layer: BoolArray) -> Bytes:
    """Pack a mask layer, flattened in C order, eight positions a byte, first position in the lowest bit."""
    return np.packbits(layer.reshape(-1), bitorder="little")


def unpack_bits(packed: Bytes, shape: tuple[int, ...], *, name: str) -> BoolArray:
    """Undo `pack_bits`.

    Raises:
        TensorError: The packed bytes do not fit *shape*, or the padding bits are not zero.
    """
    return PackedLayer.of(packed, shape, name=name).unpacked()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PackedLayer:
    """A mask layer in an eighth of a byte a position.

    Attributes:
        bits: As `pack_bits` returns them; padding bits are zero.
        shape: The layer's shape.
    """

    bits: Bytes
    shape: tuple[int, ...]

    @classmethod
    def of(cls, packed: Bytes, shape: tuple[int, ...], *, name: str) -> PackedLayer:
        """Take the bits of the layer called *name* as they are.

        Raises:
            TensorError: The packed bytes do not fit *shape*, or the padding bits are not zero.
        """
        size = math.prod(shape)
        if packed.dtype != np.uint8 or packed.shape != ((size + 7) // 8,):
            raise TensorError(
                name=name,
                reason=f"holds {packed.size} mask bytes of type {packed.dtype}, expected {(size + 7) // 8} of uint8",
                hint="the file is damaged; use another copy",
            )
        if size % 8 and packed[-1] >> size % 8:
            raise TensorError(
                name=name, reason="has padding bits that are set", hint="the file is damaged; use another copy"
            )
        return cls(bits=packed, shape=shape)

    @property
    def size(self) -> int:
        """Number of positions."""
        return math.prod(self.shape)

    def count(self) -> int:
        """Return how many positions are kept."""
        return int(np.bitwise_count(self.bits).sum(dtype=np.int64))

    def at(self, positions: npt.NDArray[np.int64]) -> BoolArray:
        """Return which of some flat positions are kept: of a hundredth of them, far cheaper than unpacking them all."""
        shifts = (positions & 7).astype(np.uint8)
        kept: Bytes = self.bits[positions >> 3] >> shifts & np.uint8(1)
        return kept.view(np.bool_)

    def unpacked(self) -> BoolArray:
        """Return the layer as a new array that is not to be written to."""
        layer = np.unpackbits(self.bits, count=self.size, bitorder="little").view(np.bool_).reshape(self.shape)
        layer.flags.writeable = False
        return layer


class PackedLayers(Mapping[str, BoolArray]):
    """Mask layers that are unpacked when they are looked up, each time anew, and nowhere kept.

    Args:
        layers: The layers by name.
    """

    def __init__(self, layers: Mapping[str, PackedLayer]) -> None:
        self.packed = {name: layers[name] for name in sorted(layers)}

    def __getitem__(self, name: str) -> BoolArray:
        return self.packed[name].unpacked()

    def __contains__(self, name: object) -> bool:
        return name in self.packed  # Mapping's own would unpack the layer

    def __iter__(self) -> Iterator[str]:
        return iter(self.packed)

    def __len__(self) -> int:
        return len(self.packed)
