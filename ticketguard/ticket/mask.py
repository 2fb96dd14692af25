"""A mask over named weight tensors, and the digests of masks and weights."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ticketguard.tensor_file import Array
from ticketguard.ticket.bits import BoolArray, PackedLayer, PackedLayers, pack_bits

FloatArray: TypeAlias = npt.NDArray[np.float32]

MASK_DOMAIN = b"ticketguard/mask/v1\0"
WEIGHTS_DOMAIN = b"ticketguard/weights/v1\0"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mask:
    """Which weights are kept.

    Attributes:
        layers: One boolean array per pruned weight tensor, shape (out, in, *kernel); True = kept. Of `PackedLayers`
            each lookup makes a new array: a byte a position while it is used, an eighth of one otherwise.
    """

    layers: Mapping[str, BoolArray]

    def __post_init__(self) -> None:
        if isinstance(self.layers, PackedLayers):
            return
        ordered: dict[str, BoolArray] = {}
        for name in sorted(self.layers):
            layer = np.array(self.layers[name], dtype=np.bool_)
            layer.flags.writeable = False
            ordered[name] = layer
        object.__setattr__(self, "layers", ordered)

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __getitem__(self, name: str) -> BoolArray:
        return self.layers[name]

    def __len__(self) -> int:
        return len(self.layers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and self.digest() == other.digest()

    def __hash__(self) -> int:
        return hash(self.digest())

    @property
    def kept(self) -> int:
        """Number of kept weights (edges)."""
        return sum(map(self.count, self))

    @property
    def size(self) -> int:
        """Number of positions, kept or not."""
        return sum(math.prod(self.shape(name)) for name in self)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a layer's shape, which does not unpack it."""
        return self.layers.packed[name].shape if isinstance(self.layers, PackedLayers) else self.layers[name].shape

    def count(self, name: str) -> int:
        """Return how many weights a layer keeps, which does not unpack it."""
        if isinstance(self.layers, PackedLayers):
            return self.layers.packed[name].count()
        return int(np.count_nonzero(self.layers[name]))

    def at(self, name: str, positions: npt.NDArray[np.int64]) -> BoolArray:
        """Return which of some flat positions of a layer are kept, which does not unpack it."""
        if isinstance(self.layers, PackedLayers):
            return self.layers.packed[name].at(positions)
        return self.layers[name].reshape(-1)[positions]

    def packed(self, name: str) -> PackedLayer:
        """Return a layer as bits."""
        if isinstance(self.layers, PackedLayers):
            return self.layers.packed[name]
        layer = self.layers[name]
        return PackedLayer(bits=pack_bits(layer), shape=layer.shape)

    def only(self, names: Iterable[str]) -> Mask:
        """Return the mask of some of the layers; those that are packed stay so.

        Raises:
            KeyError: One is not in the mask.
        """
        if isinstance(self.layers, PackedLayers):
            return Mask(layers=PackedLayers({name: self.layers.packed[name] for name in names}))
        return Mask(layers={name: self.layers[name] for name in names})

    @property
    def density(self) -> float:
        """Kept fraction of all positions."""
        return self.kept / self.size if self.size else 0.0

    def applied(self, state: Mapping[str, Array]) -> dict[str, Array]:
        """Return a state dict with zeros where the mask prunes; arrays without a mask as they are."""
        return {
            name: np.where(self[name], array, 0).astype(array.dtype) if name in self.layers else array
            for name, array in state.items()
        }

    def digest(self) -> bytes:
        """Return the SHA-256 digest of names, shapes and bits, in sorted name order."""
        hasher = hashlib.sha256(MASK_DOMAIN)
        for name in self:
            layer = self.packed(name)
            hasher.update(name_and_shape(name, layer.shape))
            hasher.update(layer.bits.tobytes())
        return hasher.digest()


def weights_digest(weights: Mapping[str, Array]) -> bytes:
    """Return the SHA-256 digest of named arrays: name, shape, type and little-endian bytes, in sorted name order."""
    hasher = hashlib.sha256(WEIGHTS_DOMAIN)
    for name in sorted(weights):
        array = np.asarray(weights[name], order="C")
        hasher.update(name_and_shape(name, weights[name].shape))
        hasher.update(array.dtype.newbyteorder("<").str.encode())
        hasher.update(array.astype(array.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8).data)
    return hasher.digest()


def name_and_shape(name: str, shape: tuple[int, ...]) -> bytes:
    """Return a layer's name and shape as they enter digests."""
    encoded = name.encode()
    dimensions = b"".join(size.to_bytes(8, "little") for size in shape)
    return len(encoded).to_bytes(4, "little") + encoded + len(shape).to_bytes(4, "little") + dimensions
