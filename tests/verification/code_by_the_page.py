"""signatures/qr-code.md, once more: by its words, slowly and exactly."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import math
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import segno

from tests.verification.by_the_page import largest, relative
from ticketguard.keyed import KeyedStream
from ticketguard.ticket import Mask

LETTERS = {7: "L", 15: "M", 25: "Q", 30: "H"}


def shown_text(text: str, commitment: bytes) -> str:
    fingerprint = base64.b32encode(hashlib.sha256(b"ticketguard/qr-code/v1\0" + commitment).digest())[:12].decode()
    return f"{text}:{fingerprint}" if text else fingerprint


def symbol_bits(text: str, version: int, correction: int) -> list[int]:
    """The bits of the codewords, in the order of their modules."""
    symbol = segno.make(
        text, version=version, error=LETTERS[correction], mode="alphanumeric", mask=0, micro=False, boost_error=False
    )
    modules = [list(row) for row in symbol.matrix]
    side, right, row, step, found = len(modules), len(modules) - 1, len(modules) - 1, -1, []
    taken = function_patterns(version)
    while right > 0:
        if right == 6:
            right = 5
        found += [
            modules[row][column] ^ ((row + column) % 2 == 0)
            for column in (right, right - 1)
            if (row, column) not in taken
        ]
        if 0 <= row + step < side:
            row += step
        else:
            right, step = right - 2, -step
    return [int(bit) for bit in found[: len(found) // 8 * 8]]


def function_patterns(version: int) -> set[tuple[int, int]]:
    """Finders with separators and format information beside them, timing, and one alignment pattern from version 2."""
    side = 17 + 4 * version
    taken = {(row, column) for row in range(8) for column in range(8)}
    taken |= {(row, side - 1 - column) for row, column in taken} | {(side - 1 - row, column) for row, column in taken}
    taken |= {(8, column) for column in range(9)} | {(row, 8) for row in range(9)}
    taken |= {(8, side - 1 - column) for column in range(8)} | {(side - 1 - row, 8) for row in range(8)}
    taken |= {(6, column) for column in range(side)} | {(row, 6) for row in range(side)}
    if version > 1:
        middle = side - 7
        taken |= {(middle + down, middle + along) for down in range(-2, 3) for along in range(-2, 3)}
    return taken


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """Two positions of a layer, the coin, and the pair's number among all."""

    layer: str
    first: int
    second: int
    coin: int
    number: int


def drawn_pairs(mask: Mask, count: int, secret: bytes, commitment: bytes) -> list[Pair]:
    sizes = {}
    for name in sorted(mask):
        edges, positions = int(mask[name].sum()), mask[name].size
        sizes[name] = min(edges, (positions - edges) // 2)
    total, before, found = sum(sizes.values()), 0, []
    assert count <= total // 4
    for name, size in sizes.items():
        numbers = range(count * before // total, count * (before + size) // total)
        before += size
        positions = _positions(mask[name], name, 2 * len(numbers), secret, commitment) if numbers else []
        coins = KeyedStream(secret=secret, commitment=commitment, label=f"coins/{name}")
        for index, number in enumerate(numbers):
            first, second = positions[2 * index : 2 * index + 2]
            coin = int(coins.integers(2, 1)[0])
            found.append(Pair(layer=name, first=first, second=second, coin=coin, number=number))
    return found


def _positions(layer: np.ndarray, name: str, wanted: int, secret: bytes, commitment: bytes) -> list[int]:
    edges = [tuple(int(axis) for axis in place) for place in np.argwhere(layer)]
    empty = [position for position, there in enumerate(layer.reshape(-1)) if not there]
    luck, found = KeyedStream(secret=secret, commitment=commitment, label=f"pairs/{name}"), list[int]()
    in_row = [sum(edge[0] == row for edge in edges) for row in range(layer.shape[0])]
    in_column = [sum(edge[1] == column for edge in edges) for column in range(layer.shape[1])]
    places = len(edges) * math.prod(layer.shape[2:])
    most = min(max(in_row) * max(in_column), places * 19 // 20)
    for _ in range(200 * wanted // 2):
        row, column, kernel = (edges[int(luck.integers(len(edges), 1)[0])] for _ in range(3))
        last = int(luck.integers(len(edges), 1)[0])
        place = (row[0], column[1], *kernel[2:])
        position = int(np.ravel_multi_index(place, layer.shape))
        likely = min(in_row[row[0]] * in_column[column[1]], most)
        is_kept = last * (places - likely) < len(edges) * (places - most)
        if is_kept and not layer[place] and position not in found:
            found.append(position)
        if len(found) == wanted:
            return found
    rest = KeyedStream(secret=secret, commitment=commitment, label=f"rest/{name}")
    while len(found) < wanted:
        position = empty[int(rest.integers(len(empty), 1)[0])]
        if position not in found:
            found.append(position)
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counted:
    """One reading: votes, those that are right, their weight, the weight of all, and the exact p."""

    votes: int
    right: int
    observed: int
    weight: int
    p: Fraction
    sums: tuple[float, ...]


def readings(suspect: Mapping[str, np.ndarray], mask: Mask, pairs: list[Pair], bits: list[int]) -> list[Counted]:
    found = []
    for reading in range(1, 6):
        kept: dict[str, set[int]] = {}
        for name in mask:
            magnitudes = [float(value) for value in np.abs(suspect[name]).reshape(-1)]
            edges, alive = int(mask[name].sum()), sum(value > 0 for value in magnitudes)
            compared = relative(suspect[name]) if reading == 5 and alive > edges else magnitudes
            wanted = {1: len(magnitudes), 2: edges, 3: round(edges / 2), 4: round(edges / 4), 5: edges}[reading]
            kept[name] = largest(compared, wanted)
        found.append(_counted(kept, mask, pairs, bits))
    return found


def _counted(kept: Mapping[str, set[int]], mask: Mask, pairs: list[Pair], bits: list[int]) -> Counted:
    worth: dict[str, float] = {}
    has_votes = set()
    for name in mask:
        own = [pair for pair in pairs if pair.layer == name]
        flat = mask[name].reshape(-1)
        edges, positions = int(flat.sum()), flat.size
        inside = sum((pair.first in kept[name]) + (pair.second in kept[name]) for pair in own)
        there = sum(bool(flat[position]) for position in kept[name])
        s = (there + 0.5) / (edges + 1)
        r = (len(kept[name]) - there - inside + 0.5) / (positions - edges - 2 * len(own) + 1)
        if own:
            worth[name] = math.log(1 + s / ((1 - s) * r))
        if any((pair.first in kept[name]) != (pair.second in kept[name]) for pair in own):
            has_votes.add(name)
    heaviest = max((worth[name] for name in has_votes), default=1.0)
    votes, right, observed, total = 0, 0, 0, 0
    # How many outcomes of the coins have each weight: a polynomial whose coefficients are digits of one large number.
    ways, digits = 1, len(pairs) + 2
    sums = [0.0] * len(bits)
    for pair in pairs:
        at_first, at_second = (position in kept[pair.layer] for position in (pair.first, pair.second))
        if at_first == at_second:
            continue
        said = pair.coin if at_first else 1 - pair.coin
        bit, weight = pair.number % len(bits), round(8 * worth[pair.layer] / heaviest)
        sums[bit] += worth[pair.layer] * (1 - 2 * said)
        votes, right = votes + 1, right + (said == bits[bit])
        observed, total = observed + weight * (said == bits[bit]), total + weight
        ways += ways << digits * weight
    # A number has the same remainder as the sum of its digits.
    p = Fraction((ways >> digits * observed) % (2**digits - 1), 2**votes)
    return Counted(votes=votes, right=right, observed=observed, weight=total, p=p, sums=tuple(sums))
