"""A mask over named weight tensors, packed to bits, and the digests of masks and weights."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ticketguard.errors import TensorError
from ticketguard.tensor_file import Array

BoolArray: TypeAlias = npt.NDArray[np.bool_]
FloatArray: TypeAlias = npt.NDArray[np.float32]

MASK_DOMAIN = b"ticketguard/mask/v1\0"
WEIGHTS_DOMAIN = b"ticketguard/weights/v1\0"


def pack_bits(layer: BoolArray) -> npt.NDArray[np.uint8]:
    """Pack a mask layer, flattened in C order, eight positions a byte, first position in the lowest bit."""
    return np.packbits(layer.reshape(-1), bitorder="little")


def unpack_bits(packed: npt.NDArray[np.uint8], shape: tuple[int, ...], *, name: str) -> BoolArray:
    """Undo `pack_bits`.

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
    bits = np.unpackbits(packed, bitorder="little")
    if bits[size:].any():
        raise TensorError(
            name=name, reason="has padding bits that are set", hint="the file is damaged; use another copy"
        )
    return bits[:size].astype(np.bool_).reshape(shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mask:
    """Which weights are kept.

    Attributes:
        layers: One boolean array per pruned weight tensor, shape (out, in, *kernel); True = kept.
    """

    layers: Mapping[str, BoolArray]

    def __post_init__(self) -> None:
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
        return sum(int(layer.sum()) for layer in self.layers.values())

    @property
    def size(self) -> int:
        """Number of positions, kept or not."""
        return sum(layer.size for layer in self.layers.values())

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
        for name, layer in self.layers.items():
            hasher.update(_name_and_shape(name, layer.shape))
            hasher.update(pack_bits(layer).tobytes())
        return hasher.digest()


def weights_digest(weights: Mapping[str, Array]) -> bytes:
    """Return the SHA-256 digest of named arrays: name, shape, type and little-endian bytes, in sorted name order."""
    hasher = hashlib.sha256(WEIGHTS_DOMAIN)
    for name in sorted(weights):
        array = np.asarray(weights[name], order="C")
        hasher.update(_name_and_shape(name, weights[name].shape))
        hasher.update(array.dtype.newbyteorder("<").str.encode())
        hasher.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return hasher.digest()


def _name_and_shape(name: str, shape: tuple[int, ...]) -> bytes:
    encoded = name.encode()
    dimensions = b"".join(size.to_bytes(8, "little") for size in shape)
    return len(encoded).to_bytes(4, "little") + encoded + len(shape).to_bytes(4, "little") + dimensions
