"""Ways to read a mask from a suspect's weights; none of them looks at a key."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ticketguard.checkpoints.matching import Layout
from ticketguard.graph.alignment import Alignment
from ticketguard.graph.groups import IndexArray
from ticketguard.graph.similarity import balanced
from ticketguard.ticket import FloatArray

Magnitudes: TypeAlias = FloatArray | npt.NDArray[np.float64]
# A layer with fewer weights than this share of its positions is read as a list of them.
SPARSE = 0.25


class Layers(Mapping[str, FloatArray]):
    """A suspect's weights under the reference's layer names, read one layer at a time.

    Args:
        read: Reads a tensor by the suspect's name.
        names: The suspect's name of each reference layer it has.
        layouts: How the tensors are read as layers; those without one are layers as stored.
        alignment: Puts the suspect's channels into the reference's order.
        shapes: Shapes of the reference's layers, where the suspect may have others.
    """

    def __init__(
        self,
        *,
        read: Callable[[str], FloatArray],
        names: Mapping[str, str],
        layouts: Mapping[str, Layout] | None = None,
        alignment: Alignment | None = None,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        self._read = read
        self._names = names
        self._layouts = layouts or {}
        self._shapes = shapes or {}
        self.alignment = alignment

    @property
    def layout(self) -> str:
        """Names of the layouts that the tensors are read in."""
        return ", ".join(sorted({layout.name for layout in self._layouts.values()}))

    def __getitem__(self, name: str) -> FloatArray:
        layer = self._read(self._names[name])
        if name in self._layouts:
            layer = self._layouts[name].apply(layer)
        return layer if self.alignment is None else self.alignment.apply(name, layer, self._shapes.get(name))

    def __contains__(self, name: object) -> bool:
        return name in self._names  # Mapping's own would read the layer

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """One way to read a mask from weights.

    Attributes:
        name: As evidence names it.
        share_of_reference: Keep the largest weights, this multiple of the reference's edges in each layer; None
            reads what is not zero.
        relative: Weights are compared relative to their rows and columns, which rescaling channels, free for a thief
            to do, leaves alone.
    """

    name: str
    share_of_reference: float | None
    relative: bool = False


READINGS = (
    Reading(name="weights that are not zero", share_of_reference=None),
    Reading(name="largest weights, as many as the reference has edges", share_of_reference=1.0),
    Reading(name="largest weights, half the reference's edges", share_of_reference=0.5),
    Reading(name="largest weights, a quarter of the reference's edges", share_of_reference=0.25),
    Reading(
        name="weights largest for their channels, as many as the reference has edges",
        share_of_reference=1.0,
        relative=True,
    ),
)
# Which of all bytes have each reading's bit, shape (readings, bytes).
BYTES = 2**8
KEPT_BY = np.arange(BYTES) >> np.arange(len(READINGS))[:, np.newaxis] & 1


def strongest(magnitudes: Magnitudes, keeps: Collection[int]) -> dict[int, IndexArray]:
    """Return, for each of some numbers, the positions of that many of the largest magnitudes, ascending.

    Ties go to the earlier position.

    Args:
        magnitudes: Flat absolute weights.
        keeps: How many positions to keep, each at most as many as are not zero.
    """
    found: dict[int, IndexArray] = {}
    values, inside = magnitudes, None
    for keep in sorted(set(keeps), reverse=True):
        # Fewer are among the more.
        chosen = _strongest(values, keep)
        values, inside = values[chosen], chosen if inside is None else inside[chosen]
        found[keep] = inside
    return found


def _strongest(magnitudes: Magnitudes, keep: int) -> IndexArray:
    if keep == 0:
        return np.empty(0, dtype=np.int64)
    threshold = np.partition(magnitudes, len(magnitudes) - keep)[len(magnitudes) - keep]
    above = np.flatnonzero(magnitudes > threshold)
    ties = np.flatnonzero(magnitudes == threshold)[: keep - len(above)]
    return np.sort(np.concatenate([above, ties]))


def read_layer(layer: FloatArray, *, edges: int, found_later: bool = False) -> tuple[list[int], npt.NDArray[np.uint8]]:
    """Take every reading of one layer.

    Args:
        layer: The suspect's weights.
        edges: Edges of the reference in this layer.
        found_later: Whether the reference keeps everything, because the ticket was found after the secret edges were
            drawn: the relative weights themselves then show how many of them are edges.

    Returns:
        Per reading how many positions it keeps; and per flat position a byte whose bit *r* says that reading *r* keeps
        it: a key that looks positions up pays for all readings at once.
    """
    weights = layer.reshape(-1)
    is_alive = (weights != 0).view(np.uint8)
    alive = int(np.count_nonzero(is_alive))
    # A sparse layer is its few weights; a list of a dense one's positions would be larger than the layer.
    where = np.flatnonzero(is_alive) if alive < SPARSE * weights.size else None
    keeps = [alive] * len(READINGS)
    some: list[tuple[int, IndexArray]] = []
    for is_relative in (False, True):
        bits = [bit for bit, reading in enumerate(READINGS) if reading.relative == is_relative]
        # Where no more weights are alive than are asked for, their sizes do not matter.
        scaled = is_relative and (found_later or alive > edges)
        flat = balanced(layer).reshape(-1) if scaled else weights
        magnitudes = np.abs(flat if where is None else flat[where])
        wanted = edges_that_stand_out(magnitudes) if is_relative and found_later else edges
        for bit in bits:
            share = READINGS[bit].share_of_reference
            keeps[bit] = alive if share is None else min(alive, round(share * wanted))
        positions = strongest(magnitudes, [keeps[bit] for bit in bits if keeps[bit] < alive])
        some += [(bit, positions[keeps[bit]]) for bit in bits if keeps[bit] < alive]
    kept = is_alive
    kept *= np.uint8(sum(1 << bit for bit, keep in enumerate(keeps) if keep == alive))
    for bit, found in some:
        kept[found if where is None else where[found]] |= np.uint8(1 << bit)
    return keeps, kept


def per_reading(bits: npt.NDArray[np.uint8]) -> list[int]:
    """Return how many of some positions each reading keeps.

    Args:
        bits: A byte a position, as `read_layer` has it; bits above the readings' say something else.
    """
    return [int(kept) for kept in KEPT_BY @ np.bincount(bits, minlength=BYTES)]


def edges_that_stand_out(magnitudes: Magnitudes) -> int:
    """Return how many magnitudes stand out from the rest, whatever scale they have: Otsu's split of their square roots.

    A thief can rescale whole layers for free and fill pruned positions with noise; this count does not see it.
    (Otsu, "A threshold selection method from gray-level histograms", IEEE Trans. SMC 9(1), 1979, equation 14.)
    """
    roots = np.sqrt(np.sort(magnitudes[magnitudes > 0].astype(np.float64))[::-1])
    if len(roots) < 2:
        return len(roots)
    sums, first = np.cumsum(roots), np.arange(1, len(roots))
    rest = len(roots) - first
    apart = (sums[:-1] / first - (sums[-1] - sums[:-1]) / rest) ** 2 * first * rest
    return int(first[apart.argmax()])


def ordered_bits(layer: FloatArray) -> npt.NDArray[np.uint32]:
    """Return magnitudes as the integers that their bits are: those of floats that are not negative sort alike."""
    return np.abs(np.ascontiguousarray(layer, dtype=np.float32)).reshape(-1).view(np.uint32)


def largest_overall(suspect: Mapping[str, FloatArray], names: Sequence[str], keep: int) -> int:
    """Return the bits of the *keep*-th largest magnitude of all layers, found half a word at a time."""
    known = 0
    for shift in (16, 0):
        counts = np.zeros(2**16, dtype=np.int64)
        for name in names:
            bits = ordered_bits(suspect[name])
            here = bits if shift else bits[bits >> 16 == known >> 16]
            counts += np.bincount((here >> shift) & 0xFFFF, minlength=2**16)
        at_least = np.cumsum(counts[::-1])[::-1]
        half = int(np.flatnonzero(at_least >= keep)[-1])
        keep -= int(at_least[half + 1]) if half + 1 < len(at_least) else 0
        known |= half << shift
    return known
