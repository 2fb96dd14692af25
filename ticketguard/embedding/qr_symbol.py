"""The QR code symbol: which modules carry what, and the linear code that they are a word of.

ISO/IEC 18004:2015, versions 1 to 6, whose function patterns are the finders, the timing, one alignment pattern and the
format information. All of these are public, and the reader draws them; what a mark carries is the data and the error
correction codewords. The mask pattern is always the first, so that nothing about the symbol depends on the text.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ticketguard.embedding.pairs import Bits
from ticketguard.ticket import BoolArray

if TYPE_CHECKING:
    import segno

VERSIONS = range(1, 7)
# What share of the codewords a level restores, in percent, → its letter (table 12).
LEVELS = {7: "L", 15: "M", 25: "Q", 30: "H"}
ALPHANUMERIC = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"
MASK_PATTERN = 0
# Per version and level: error correction codewords of a block, blocks of the shorter kind, their data codewords, and
# blocks with one data codeword more (table 9).
BLOCKS: dict[tuple[int, int], tuple[int, int, int, int]] = {
    (1, 7): (7, 1, 19, 0), (1, 15): (10, 1, 16, 0), (1, 25): (13, 1, 13, 0), (1, 30): (17, 1, 9, 0),
    (2, 7): (10, 1, 34, 0), (2, 15): (16, 1, 28, 0), (2, 25): (22, 1, 22, 0), (2, 30): (28, 1, 16, 0),
    (3, 7): (15, 1, 55, 0), (3, 15): (26, 1, 44, 0), (3, 25): (18, 2, 17, 0), (3, 30): (22, 2, 13, 0),
    (4, 7): (20, 1, 80, 0), (4, 15): (18, 2, 32, 0), (4, 25): (26, 2, 24, 0), (4, 30): (16, 4, 9, 0),
    (5, 7): (26, 1, 108, 0), (5, 15): (24, 2, 43, 0), (5, 25): (18, 2, 15, 2), (5, 30): (22, 2, 11, 2),
    (6, 7): (18, 2, 68, 0), (6, 15): (16, 4, 27, 0), (6, 25): (24, 4, 19, 0), (6, 30): (28, 4, 15, 0),
}  # fmt: skip
# Bits in front of an alphanumeric text: the mode's four, and its length's nine (table 3).
HEADER_BITS = 13
# x^8 + x^4 + x^3 + x^2 + 1 (7.5.2).
FIELD_POLYNOMIAL = 0x11D

Bytes = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """One Reed–Solomon codeword of a symbol, as a binary linear code.

    Attributes:
        generator: Shape (data bits, bits of the block), 0 or 1: what every data bit alone encodes to.
        places: For each bit of the block its number among the symbol's bits.
    """

    generator: Bits
    places: npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Symbol:
    """A version and level of QR code.

    Attributes:
        version: From 1, whose side has 21 modules; each has four more than the one before.
        correction: A key of `LEVELS`.
    """

    version: int
    correction: int

    @property
    def designation(self) -> str:
        """As it is usually written, such as ``2-Q``."""
        return f"{self.version}-{LEVELS[self.correction]}"

    @property
    def side(self) -> int:
        """Modules on a side."""
        return 17 + 4 * self.version

    @property
    def data_codewords(self) -> int:
        """Bytes of data."""
        _, short, data, longer = BLOCKS[self.version, self.correction]
        return short * data + longer * (data + 1)

    @property
    def bits(self) -> int:
        """Bits of all codewords: one module each."""
        corrections, short, _, longer = BLOCKS[self.version, self.correction]
        return 8 * (self.data_codewords + corrections * (short + longer))

    @property
    def rate(self) -> float:
        """Share of the bits that are data."""
        return 8 * self.data_codewords / self.bits

    @property
    def characters(self) -> int:
        """Characters of an alphanumeric text that fit: eleven bits for two, six for the last."""
        pairs, rest = divmod(8 * self.data_codewords - HEADER_BITS, 11)
        return 2 * pairs + (rest >= 6)

    def encode(self, text: str) -> Bits:
        """Return the bits of a text's codewords, in the order in which modules carry them.

        Raises:
            ValueError: The text does not fit, or has other characters than `ALPHANUMERIC`.
        """
        if len(text) > self.characters or not text or set(text) - set(ALPHANUMERIC):
            raise ValueError(f"text has {len(text)} characters, expected 1 to {self.characters} of {ALPHANUMERIC}")
        return self.bits_of(np.array(self._drawn(text).matrix, dtype=np.bool_))

    def bits_of(self, modules: BoolArray) -> Bits:
        """Return the bits of all codewords that a symbol's *modules* show; True is dark."""
        rows, columns = _path(self.version)[: self.bits].T
        return np.asarray(modules[rows, columns] ^ ((rows + columns) % 2 == 0), dtype=np.uint8)

    def draw(self, bits: Bits) -> BoolArray:
        """Return the modules of a symbol whose codewords have these *bits*, right or wrong."""
        modules = self._frame.copy()
        rows, columns = _path(self.version)[: self.bits].T
        modules[rows, columns] = bits.astype(np.bool_) ^ ((rows + columns) % 2 == 0)
        return modules

    def places(self, chosen: BoolArray) -> BoolArray:
        """Return the modules that carry *chosen* bits of the codewords."""
        modules = np.zeros_like(self._frame)
        rows, columns = _path(self.version)[: self.bits].T
        modules[rows, columns] = chosen
        return modules

    @functools.cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Its Reed–Solomon codewords: their bytes take turns in the symbol, first data and then correction (7.6)."""
        corrections, short, data, longer = BLOCKS[self.version, self.correction]
        sizes = [data] * short + [data + 1] * longer
        order = [(block, byte) for byte in range(data + 1) for block, size in enumerate(sizes) if byte < size]
        order += [(block, sizes[block] + byte) for byte in range(corrections) for block in range(len(sizes))]
        number = {place: index for index, place in enumerate(order)}
        return tuple(
            Block(
                generator=_binary_generator(size, corrections),
                places=np.array(
                    [8 * number[block, byte] + bit for byte in range(size + corrections) for bit in range(8)]
                ),
            )
            for block, size in enumerate(sizes)
        )

    @functools.cached_property
    def _frame(self) -> BoolArray:
        """Everything but the codewords: the same in every symbol with this version and level."""
        return np.array(self._drawn("0").matrix, dtype=np.bool_)

    def _drawn(self, text: str) -> segno.QRCode:
        import segno

        return segno.make(
            text,
            version=self.version,
            error=LEVELS[self.correction],
            mode="alphanumeric",
            mask=MASK_PATTERN,
            micro=False,
            boost_error=False,
        )


@functools.cache
def _path(version: int) -> npt.NDArray[np.int64]:
    """Return row and column of the modules that carry codewords, in order: up and down two columns (7.7.3)."""
    side = 17 + 4 * version
    is_function = np.zeros((side, side), dtype=np.bool_)
    is_function[:9, :9] = is_function[:9, side - 8 :] = is_function[side - 8 :, :9] = True
    is_function[6, :] = is_function[:, 6] = True
    if version > 1:
        is_function[side - 9 : side - 4, side - 9 : side - 4] = True
    path, upwards = [], True
    for right in (*range(side - 1, 6, -2), 5, 3, 1):
        rows = range(side - 1, -1, -1) if upwards else range(side)
        path += [(row, column) for row in rows for column in (right, right - 1) if not is_function[row, column]]
        upwards = not upwards
    return np.array(path, dtype=np.int64)


@functools.cache
def _products() -> Bytes:
    """Return the multiplication table of the field of 256 elements, shape (256, 256)."""
    powers, value = [], 1
    for _ in range(255):
        powers.append(value)
        value <<= 1
        value ^= FIELD_POLYNOMIAL if value & 0x100 else 0
    logarithms = np.zeros(256, dtype=np.int64)
    logarithms[powers] = range(255)
    table: Bytes = np.array(powers, dtype=np.uint8)[np.add.outer(logarithms, logarithms) % 255]
    table[0, :] = table[:, 0] = 0
    return table


@functools.cache
def _generator_polynomial(corrections: int) -> Bytes:
    """Return the coefficients of (x − 1)(x − 2)(x − 2²)…, the highest, which is 1, left out (annex A)."""
    found: Bytes = np.ones(1, dtype=np.uint8)
    root = 1
    for _ in range(corrections):
        found = np.pad(found, (0, 1)) ^ np.pad(_products()[root, found], (1, 0))
        root = int(_products()[root, 2])
    return found[1:]


def correction_of(data: Bytes, corrections: int) -> Bytes:
    """Return the error correction codewords of blocks' data: the remainder of a division (7.5.2).

    Args:
        data: Shape (blocks, data codewords).
        corrections: Error correction codewords of each block.
    """
    rest = np.zeros((len(data), corrections + 1), dtype=np.uint8)
    for byte in data.T:
        factor = byte ^ rest[:, 0]
        rest[:, :-1] = rest[:, 1:] ^ _products()[factor[:, np.newaxis], _generator_polynomial(corrections)]
    return rest[:, :-1]


@functools.cache
def _binary_generator(data: int, corrections: int) -> Bits:
    """Return what each data bit of a block alone encodes to: the code is linear, over bits as well."""
    units = np.packbits(np.eye(8 * data, dtype=np.uint8), axis=1)
    return np.unpackbits(np.hstack([units, correction_of(units, corrections)]), axis=1)
