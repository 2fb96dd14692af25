"""The start weights of a network that an owner commits to before any training, in half a byte a weight.

A salt, which only the vault has, makes most positions of every layer *anchors* and the others *votes*. Of an anchor the
sign is kept and how large the weight is, of a vote only how large: the votes' signs are drawn from the owner's key once
this is fixed. Written down for a second implementation in ``signatures/start-weights.md``.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ticketguard.errors import FileError, TensorError, shortened
from ticketguard.keyed import KeyedStream
from ticketguard.tensor_file import Array, is_shape, parse_tensors, write_tensors
from ticketguard.ticket.bits import BoolArray, PackedLayer, PackedLayers
from ticketguard.ticket.mask import FloatArray, Mask, name_and_shape
from ticketguard.ticket.reference import REFERENCE_VERSION, Reference, require_bounded_layers

START_VERSION = "ticketguard.start/1"
START_DOMAIN = b"ticketguard/start/v1\0"
# A salt that everybody knows, for starts that nobody keeps.
SALT_BYTES = 32
PUBLIC_SALT = bytes(SALT_BYTES)
CODES_PREFIX, SIZES_PREFIX = "ticketguard.codes/", "ticketguard.sizes/"
# Kinds of magnitudes that are told apart, three bits of a code; the fourth is the sign.
SIZES, SIGN = 8, 8
# Anchors are so many of `SHARES` positions, on average; all of them in a layer that has no votes.
SHARES = 256

Codes = npt.NDArray[np.uint8]


def anchors_of(name: str, size: int, share: int, salt: bytes = PUBLIC_SALT) -> BoolArray:
    """Return which flat positions of a layer are anchors.

    Whoever knows which ones are votes can turn the signs of half of these, and leaves most of the network alone.

    Args:
        name: The layer.
        size: Its number of positions.
        share: Anchors in `SHARES` positions, on average; `SHARES` for a layer without votes.
        salt: 32 bytes that they are drawn from.
    """
    if share == SHARES:
        return np.ones(size, dtype=np.bool_)
    stream = KeyedStream(secret=salt, commitment=bytes(32), label=f"anchors/{name}")
    return np.frombuffer(stream.bytes(size), dtype=np.uint8) < share


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class StartLayer:
    """One layer's start weights, quantised.

    Attributes:
        shape: The layer's shape (out, in, *kernel).
        share: Anchors in `SHARES` positions, on average.
        codes: Two positions a byte in C order, the first in the lower half: three bits of magnitude, then the sign, 1
            for negative; shape ((positions + 1) // 2,).
        sizes: The magnitude that each of the `SIZES` codes stands for, ascending, shape (SIZES,).
    """

    shape: tuple[int, ...]
    share: int
    codes: Codes
    sizes: FloatArray

    @classmethod
    def of(cls, name: str, weights: Array, *, share: int, salt: bytes = PUBLIC_SALT) -> StartLayer:
        """Quantise a layer: each eighth of its magnitudes by their mean.

        Args:
            name: The layer's name, which says where its anchors are.
            weights: The layer, finite.
            share: Anchors in `SHARES` positions, on average.
            salt: What they are drawn from.
        """
        flat = np.asarray(weights, dtype=np.float32).reshape(-1)
        magnitudes = np.abs(flat)
        ascending = np.sort(magnitudes)
        firsts = ascending[np.arange(1, SIZES) * len(flat) // SIZES]
        codes = np.searchsorted(firsts, magnitudes, side="right").astype(np.uint8)
        sums = np.bincount(codes, weights=magnitudes, minlength=SIZES)
        counts = np.bincount(codes, minlength=SIZES)
        # What no magnitude has is between its neighbours.
        means = np.where(counts > 0, sums / np.maximum(counts, 1), np.concatenate([[0.0], firsts]))
        codes |= np.where(anchors_of(name, len(flat), share, salt) & (flat < 0), np.uint8(SIGN), np.uint8(0))
        codes = np.append(codes, np.zeros(len(codes) % 2, dtype=np.uint8))
        return cls(
            shape=weights.shape,
            share=share,
            codes=codes[::2] | codes[1::2] << np.uint8(4),
            sizes=np.maximum.accumulate(means).astype(np.float32),
        )

    @property
    def size(self) -> int:
        """Number of positions."""
        return math.prod(self.shape)

    def unpacked(self) -> Codes:
        """Return a code a position, flat."""
        codes = np.empty(2 * len(self.codes), dtype=np.uint8)
        codes[::2], codes[1::2] = self.codes & 15, self.codes >> 4
        return codes[: self.size]

    def negative(self, count: int) -> BoolArray:
        """Return which of the first *count* flat positions have a negative sign that is kept."""
        codes = self.codes[: (count + 1) // 2]
        signs: BoolArray = np.stack([codes & SIGN, codes >> np.uint8(4) & SIGN], axis=1).reshape(-1)[:count] != 0
        return signs

    def magnitudes(self) -> FloatArray:
        """Return magnitudes, flat."""
        return self.sizes[self.unpacked() % SIZES]

    def weights(self) -> FloatArray:
        """Return magnitudes with the signs that are kept, flat."""
        return np.concatenate([self.sizes, -self.sizes])[self.unpacked()]


class _Weights(Mapping[str, FloatArray]):
    """Layers' weights, each made when it is looked up."""

    def __init__(self, layers: Mapping[str, StartLayer]) -> None:
        self._layers = layers

    def __getitem__(self, name: str) -> FloatArray:
        return self._layers[name].weights()

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartReference:
    """The start weights that an owner commits to.

    Attributes:
        layers: The layers by name.
        salt: 32 bytes that say which positions are anchors.

    Raises:
        TensorError: There are more layers, or longer names, than a verifier reads.
    """

    layers: Mapping[str, StartLayer]
    salt: bytes = dataclasses.field(default=PUBLIC_SALT, repr=False)

    def __post_init__(self) -> None:
        require_bounded_layers(list(self.layers))
        object.__setattr__(self, "layers", {name: self.layers[name] for name in sorted(self.layers)})

    @functools.cached_property
    def mask(self) -> Mask:
        """A mask that keeps every position: which ones a ticket keeps came later. It is made once, a bit a position."""
        full = {}
        for name, layer in self.layers.items():
            bits = np.full((layer.size + 7) // 8, 255, dtype=np.uint8)
            if layer.size % 8:
                bits[-1] = (1 << layer.size % 8) - 1
            full[name] = PackedLayer(bits=bits, shape=layer.shape)
        return Mask(layers=PackedLayers(full))

    @property
    def kept_weights(self) -> Mapping[str, FloatArray]:
        """Per layer, flat: the magnitudes, with the anchors' signs."""
        return _Weights(self.layers)

    def layer_weights(self, name: str) -> FloatArray:
        """Return the same of one layer, in its shape."""
        layer = self.layers[name]
        return layer.weights().reshape(layer.shape)

    def anchors(self, name: str) -> BoolArray:
        """Return which flat positions of a layer are anchors."""
        return self.first_anchors(name, self.layers[name].size)

    def first_anchors(self, name: str, count: int) -> BoolArray:
        """Return which of the first *count* flat positions of a layer are anchors."""
        return anchors_of(name, count, self.layers[name].share, self.salt)

    def digest(self) -> bytes:
        """Return the SHA-256 digest that enters every commitment."""
        hasher = hashlib.sha256(START_DOMAIN + self.salt)
        for name, layer in self.layers.items():
            hasher.update(name_and_shape(name, layer.shape))
            hasher.update(layer.share.to_bytes(4, "little"))
            hasher.update(layer.sizes.astype("<f4").tobytes())
            hasher.update(layer.codes.data)
        return hasher.digest()

    def only(self, names: Collection[str]) -> StartReference:
        """Return some of its layers.

        Raises:
            KeyError: One is not in it.
        """
        return StartReference(layers={name: self.layers[name] for name in names}, salt=self.salt)

    def to_bytes(self) -> bytes:
        """Serialise as safetensors."""
        tensors: dict[str, Array] = {}
        for name, layer in self.layers.items():
            tensors[CODES_PREFIX + name], tensors[SIZES_PREFIX + name] = layer.codes, layer.sizes
        layers = {name: [layer.share, *layer.shape] for name, layer in self.layers.items()}
        return write_tensors(tensors, {"version": START_VERSION, "layers": layers, "anchors_salt": self.salt.hex()})

    @classmethod
    def from_bytes(cls, content: bytes) -> StartReference:
        """Undo `to_bytes`. Nothing is copied.

        Raises:
            FileError: The bytes are not start weights.
            UnknownVersionError: The version is unknown.
            TensorError: A layer does not fit its shape, or has sizes that are not magnitudes.
        """
        tensors, metadata = parse_tensors(content, what="the start weights", versions=(START_VERSION,))
        said = metadata.get("layers")
        if not isinstance(said, dict) or not said or len(tensors) != 2 * len(said):
            raise _damaged("has other tensors than codes and sizes of its layers")
        require_bounded_layers(list(said))
        salt = metadata.get("anchors_salt")
        if not isinstance(salt, str) or not re.fullmatch("[0-9a-f]{64}", salt):
            raise _damaged(f"has the salt {shortened(salt)}, expected {2 * SALT_BYTES} hexadecimal digits")
        return cls(
            salt=bytes.fromhex(salt), layers={name: _layer(name, layer, tensors) for name, layer in said.items()}
        )


AnyReference: TypeAlias = Reference | StartReference


def read_reference(content: bytes) -> AnyReference:
    """Read what a vault keeps: an unmarked ticket, or start weights.

    Raises:
        FileError, UnknownVersionError, TensorError: The bytes are neither.
    """
    _, metadata = parse_tensors(content, what="the reference", versions=(REFERENCE_VERSION, START_VERSION))
    kind = StartReference if metadata["version"] == START_VERSION else Reference
    return kind.from_bytes(content)


def _layer(name: str, said: object, tensors: Mapping[str, Array]) -> StartLayer:
    if not is_shape(said) or not isinstance(said, list) or len(said) < 2 or not all(said) or said[0] > SHARES:
        raise _damaged(f"has a layer of share and shape {str(said)[:80]}")
    share, *shape = said
    codes, sizes, size = tensors.get(CODES_PREFIX + name), tensors.get(SIZES_PREFIX + name), math.prod(shape)
    if codes is None or codes.dtype != np.uint8 or codes.shape != ((size + 1) // 2,) or (size % 2 and codes[-1] >> 4):
        raise TensorError(name=name, reason="has no codes that fit its shape", hint="the vault is damaged")
    if sizes is None or sizes.dtype != np.float32 or sizes.shape != (SIZES,) or not _ascends(sizes):
        raise TensorError(name=name, reason="has no sizes that are ascending magnitudes", hint="the vault is damaged")
    return StartLayer(shape=tuple(shape), share=share, codes=codes, sizes=sizes)


def _ascends(sizes: FloatArray) -> bool:
    return bool(np.isfinite(sizes).all() and sizes[0] >= 0 and (np.diff(sizes) >= 0).all())


def _damaged(reason: str) -> FileError:
    return FileError(path="the start weights", reason=reason, hint="the vault is damaged")
