"""signatures/start-weights.md and signatures/keyed-signs.md, once more: by their words, slowly and exactly."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import struct
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction

import numpy as np

from tests.verification.by_the_page import largest, log10, relative, standing_out
from ticketguard.keyed import KeyedStream


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartLayer:
    """One layer of a file of start weights."""

    name: str
    shape: tuple[int, ...]
    share: int
    codes: bytes
    sizes: tuple[float, ...]
    salt: bytes

    @property
    def positions(self) -> int:
        return math.prod(self.shape)

    def nibble(self, position: int) -> int:
        return self.codes[position // 2] >> 4 * (position % 2) & 15

    def weight(self, position: int) -> float:
        size = self.sizes[self.nibble(position) & 7]
        return -size if self.nibble(position) & 8 else size

    def anchors(self) -> set[int]:
        stream = KeyedStream(secret=self.salt, commitment=bytes(32), label="anchors/" + self.name)
        drawn = stream.bytes(self.positions)
        return {position for position in range(self.positions) if self.share == 256 or drawn[position] < self.share}

    def votes(self) -> list[int]:
        return sorted(set(range(self.positions)) - self.anchors())


def read_start(content: bytes) -> list[StartLayer]:
    """Read a file of start weights that is known to be one."""
    (size,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    metadata = json.loads(header["__metadata__"]["ticketguard"])
    assert metadata["version"] == "ticketguard.start/1"

    def values(name: str) -> bytes:
        first, end = header[name]["data_offsets"]
        return data[first:end]

    return [
        StartLayer(
            name=name,
            shape=tuple(shape),
            share=share,
            codes=values("ticketguard.codes/" + name),
            sizes=struct.unpack("<8f", values("ticketguard.sizes/" + name)),
            salt=bytes.fromhex(metadata["anchors_salt"]),
        )
        for name, (share, *shape) in sorted(metadata["layers"].items())
    ]


def digest(layers: list[StartLayer]) -> bytes:
    hashed = b"ticketguard/start/v1\0" + layers[0].salt
    for layer in layers:
        name = layer.name.encode()
        hashed += struct.pack("<I", len(name)) + name + struct.pack("<I", len(layer.shape))
        hashed += struct.pack(f"<{len(layer.shape)}Q", *layer.shape)
        hashed += struct.pack("<I8f", layer.share, *layer.sizes) + layer.codes
    return hashlib.sha256(hashed).digest()


def quantised(weights: np.ndarray, anchors: set[int]) -> tuple[list[int], list[float | None]]:
    """Return codes and sizes as this program's writer makes them; None for the size of a code that nothing has."""
    flat = [float(value) for value in weights.reshape(-1)]
    ascending = sorted(map(abs, flat))
    firsts = [ascending[j * len(flat) // 8] for j in range(1, 8)]
    kinds = [sum(first <= abs(value) for first in firsts) for value in flat]
    of_kind = [[abs(value) for value, other in zip(flat, kinds, strict=True) if other == kind] for kind in range(8)]
    sizes = [math.fsum(values) / len(values) if values else None for values in of_kind]
    signs = [8 * (position in anchors and value < 0) for position, value in enumerate(flat)]
    return [kind + sign for kind, sign in zip(kinds, signs, strict=True)], sizes


def negative_votes(layer: StartLayer, secret: bytes, commitment: bytes) -> set[int]:
    stream = KeyedStream(secret=secret, commitment=commitment, label="votes/" + layer.name)
    drawn = stream.bytes((layer.positions + 7) // 8)
    return {position for position in layer.votes() if drawn[position // 8] >> position % 8 & 1}


def tail(agreements: int, votes: int) -> Fraction:
    """P(X ≥ agreements) of so many fair coins."""
    return Fraction(sum(math.comb(votes, k) for k in range(agreements, votes + 1)), 2**votes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counted:
    """One reading."""

    votes: int
    agreements: int

    @property
    def log10_p(self) -> Decimal:
        return log10(tail(self.agreements, self.votes))

    @property
    def attainable_log10_p(self) -> Decimal:
        return log10(tail(round(0.75 * self.votes), self.votes))


def readings(
    suspect: Mapping[str, np.ndarray], layers: list[StartLayer], density_ppm: int, secret: bytes, commitment: bytes
) -> list[Counted]:
    """Take every reading of a suspect as it is stored."""
    everything = sorted((abs(float(value)) for layer in layers for value in suspect[layer.name].flat), reverse=True)
    threshold = everything[max(1, len(everything) * density_ppm // 1_000_000) - 1]
    votes, agreements = [0] * 5, [0] * 5
    for layer in layers:
        flat = [float(value) for value in suspect[layer.name].reshape(-1)]
        sizes, compared = [abs(value) for value in flat], relative(suspect[layer.name])
        count = sum(value >= threshold and value > 0 for value in sizes)
        counts = (len(flat), count, round(count / 2), round(count / 4), standing_out(compared))
        voting, negative = set(layer.votes()), negative_votes(layer, secret, commitment)
        for reading, wanted in enumerate(counts):
            counted = largest(compared if reading == 4 else sizes, wanted) & voting
            votes[reading] += len(counted)
            agreements[reading] += sum((flat[position] < 0) == (position in negative) for position in counted)
    return [Counted(votes=n, agreements=k) for n, k in zip(votes, agreements, strict=True)]
