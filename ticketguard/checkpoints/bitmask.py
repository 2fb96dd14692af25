"""Sparse weights that llm-compressor stores as a bitmask and the values that are left (compressed-tensors).

``MODULE.weight`` is stored as ``MODULE.compressed`` (the values in order), ``MODULE.bitmask`` (one bit a position, each
row of the last axis packed from its lowest bit and padded to bytes), ``MODULE.shape``, and, without a 2:4 pattern,
``MODULE.row_offsets`` (where each row's values start). Earlier releases wrote ``MODULE.weight.compressed`` and so on.
(github.com/neuralmagic/compressed-tensors, formats "sparse-bitmask" and "sparse-24-bitmask".)
"""

from __future__ import annotations

import math

import numpy as np

from ticketguard.checkpoints.sources import TensorSource
from ticketguard.checkpoints.stored_tensors import BITMASK
from ticketguard.errors import TensorError
from ticketguard.ticket import Array

_MOST_AXES = 8
_HINT = "the file is damaged; load it with llm-compressor and save the weights uncompressed"


class BitmaskSource:
    """Another source, with compressed weights under the names and in the shapes they have uncompressed.

    Args:
        source: Where the parts of them come from.

    Raises:
        TensorError: A part is missing, or the parts do not fit each other.
        FileError: The file is gone or has changed.
    """

    def __init__(self, source: TensorSource) -> None:
        self._source = source
        self._stored = frozenset(source.names())
        self._names: list[str] = []
        self._stems: dict[str, str] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        stems = compressed_stems(source)
        parts = {f"{stem}.{part}" for stem in stems for part in ("compressed", "shape", "row_offsets")}
        for name in source.names():
            stem = name.removesuffix(BITMASK)
            if name.endswith(BITMASK) and stem in stems:
                self._names.append(self._add(stem))
            elif name not in parts:
                self._names.append(name)

    def _add(self, stem: str) -> str:
        weight = stem if stem.rpartition(".")[2] == "weight" else f"{stem}.weight"
        if weight in self._stored or weight in self._stems:
            raise TensorError(name=weight, reason="is stored twice, compressed and not", hint=_HINT)
        self._stems[weight], self._shapes[weight] = stem, self._stored_shape(stem)
        return weight

    def names(self) -> tuple[str, ...]:
        """Return the names, in the order of the bitmasks."""
        return tuple(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's uncompressed shape."""
        return self._shapes[name] if name in self._stems else self._source.shape(name)

    def type_name(self, name: str) -> str:
        """Return the type of its values."""
        return self._source.type_name(f"{self._stems[name]}.compressed" if name in self._stems else name)

    def read(self, name: str) -> Array:
        """Return one tensor, uncompressed.

        Raises:
            FileError: The file is gone or has changed.
            TensorError: Its parts do not fit each other.
        """
        if name not in self._stems:
            return self._source.read(name)
        stem, shape = self._stems[name], self._shapes[name]
        packed = self._source.read(f"{stem}{BITMASK}").reshape(-1, _bytes_a_row(shape))
        bits = np.unpackbits(packed, axis=-1, bitorder="little")
        if bits[:, shape[-1] :].any():
            raise TensorError(name=f"{stem}{BITMASK}", reason="has padding bits that are set", hint=_HINT)
        kept = bits[:, : shape[-1]].view(np.bool_)
        values = self._source.read(f"{stem}.compressed").reshape(-1)
        counts = np.count_nonzero(kept, axis=-1)
        if len(values) != counts.sum():
            raise TensorError(
                name=f"{stem}.compressed",
                reason=f"has {len(values)} values, expected {counts.sum()}, one for each bit that is set",
                hint=_HINT,
            )
        if len(shape) == 2 and f"{stem}.row_offsets" in self._stored:
            offsets = self._source.read(f"{stem}.row_offsets").reshape(-1)
            if not np.array_equal(offsets, np.cumsum(counts) - counts):
                raise TensorError(
                    name=f"{stem}.row_offsets", reason="says that rows start elsewhere than their bits do", hint=_HINT
                )
        whole = np.zeros(kept.shape, dtype=values.dtype)
        whole[kept] = values
        return whole.reshape(shape)

    def _stored_shape(self, stem: str) -> tuple[int, ...]:
        """Return the shape of a compressed weight, which its bitmask must have in bytes.

        Raises:
            TensorError: It is missing, or the bitmask is not of that shape.
        """
        name, bitmask = f"{stem}.shape", f"{stem}{BITMASK}"
        if name not in self._stored or not 1 <= math.prod(self._source.shape(name)) <= _MOST_AXES:
            raise TensorError(name=name, reason="is missing or is not a shape", hint=_HINT)
        stored = self._source.read(name)
        shape = tuple(int(size) for size in stored.reshape(-1)) if stored.dtype.kind in "iu" else ()
        held, kind = self._source.shape(bitmask), self._source.type_name(bitmask)
        # What is unpacked has at most eight positions for each byte that is stored.
        fits = min(shape, default=0) >= 1 and math.prod(held) == math.prod(shape[:-1]) * _bytes_a_row(shape)
        if not fits or kind not in {"U8", "uint8"}:
            raise TensorError(
                name=bitmask, reason=f"has shape {held} and type {kind}, expected the bytes of {shape} bits", hint=_HINT
            )
        return shape


def _bytes_a_row(shape: tuple[int, ...]) -> int:
    return -(-shape[-1] // 8)


def compressed_stems(source: TensorSource) -> frozenset[str]:
    """Return what the names of compressed weights' parts start with; none if the file is not such a one."""
    names = frozenset(source.names())
    stems = (name.removesuffix(BITMASK) for name in names if name.endswith(BITMASK))
    return frozenset(stem for stem in stems if f"{stem}.compressed" in names)


def with_compressed(source: TensorSource) -> TensorSource:
    """Return *source*, with weights that are stored as bitmasks under their own names."""
    return BitmaskSource(source) if compressed_stems(source) else source
