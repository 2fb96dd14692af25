"""Count a suspect's edges inside secret edge sets, where the reference has none.

Given the reference, a secret edge set is uniform among all positions of a layer; restricted to the positions that are
empty in the reference it is uniform among those, given its size there. Only they are counted: the edges that a suspect
shares with the reference say where it comes from, but nothing about a key, and would only drown the mark. A layer that
the reference keeps in full has no empty position, and is counted as a whole.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ticketguard.embedding import planted_graph
from ticketguard.embedding.interface import Binding, Positions
from ticketguard.embedding.planted_graph import PlantedParameters
from ticketguard.ticket import FloatArray, Mask
from ticketguard.verification.memory import Memory
from ticketguard.verification.readings import READINGS, Reading, largest_overall, ordered_bits, read_layer
from ticketguard.verification.statistics import LayerCount

COMBINATIONS = 2 ** len(READINGS)
# Which combinations each reading is in, shape (readings, combinations).
KEPT_BY = np.array([[byte >> bit & 1 for byte in range(COMBINATIONS)] for bit in range(len(READINGS))], dtype=np.int64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadSuspect:
    """Every reading of a suspect, in a byte a position.

    Attributes:
        reference: The layers that were read, with the reference's edges.
        edges: Per layer how many edges a copy has.
        kept: Per layer how many positions each reading keeps.
        readings: Per layer and flat position a byte whose bit *r* says that reading *r* keeps it.
    """

    reference: Mask
    edges: Mapping[str, int]
    kept: Mapping[str, Sequence[int]]
    readings: Mapping[str, npt.NDArray[np.uint8]]

    @classmethod
    def of(cls, suspect: Mapping[str, FloatArray], reference: Mask, parameters: PlantedParameters) -> ReadSuspect:
        """Read a suspect, a layer at a time.

        Args:
            suspect: Weights in the reference's shapes.
            reference: The layers to read (those the suspect has), with the reference's edges.
            parameters: Of the claim.
        """
        edges = edges_to_read(suspect, reference, parameters)
        kept: dict[str, Sequence[int]] = {}
        readings: dict[str, npt.NDArray[np.uint8]] = {}
        for name in reference:
            found_later = bool(parameters.density_ppm)
            kept[name], readings[name] = read_layer(suspect[name], edges=edges[name], found_later=found_later)
        return cls(reference=reference, edges=edges, kept=kept, readings=readings)

    @functools.cached_property
    def counted(self) -> Mapping[str, tuple[int, Sequence[int]]]:
        """Per layer how many positions are counted, and how many of those each reading keeps: the same for all keys."""
        found: dict[str, tuple[int, Sequence[int]]] = {}
        for name, readings in self.readings.items():
            empty = readings.size - self.reference.count(name)
            if not empty:  # a full layer is counted as a whole
                found[name] = (readings.size, self.kept[name])
                continue
            on_edges = _per_reading(readings[self.reference[name].reshape(-1)])
            found[name] = (empty, [kept - own for kept, own in zip(self.kept[name], on_edges, strict=True)])
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counted:
    """One reading of a suspect, counted for one key.

    Attributes:
        reading: Which.
        kept: Positions that it keeps, in all of each layer.
        layers: One count a layer, of the positions that are counted.
    """

    reading: Reading
    kept: tuple[int, ...]
    layers: tuple[LayerCount, ...]


def secret_positions(
    reference: Mask, name: str, binding: Binding, parameters: PlantedParameters, memory: Memory | None = None
) -> Positions:
    """Return the secret positions of a key that are counted in a layer of the *reference*, flat and ascending.

    Args:
        reference: The unmarked ticket's edges, or some layers of them.
        name: The layer.
        binding: The key, whose commitment binds the reference.
        parameters: Say how large the secret set is.
        memory: Keeps them for the next time.
    """

    def drawn() -> Positions:
        shape = reference.shape(name)
        secret = planted_graph.secret_edges(binding, {name: shape}, secret_ppm=parameters.secret_ppm)[name]
        kept = reference.at(name, secret)
        return secret if kept.all() and reference.count(name) == math.prod(shape) else secret[~kept]

    return drawn() if memory is None else memory.get((binding, name), drawn)


def count_hits(
    read: ReadSuspect, binding: Binding, parameters: PlantedParameters, memory: Memory | None = None
) -> tuple[Counted, ...]:
    """Count a suspect's edges inside the secret edges of a key, one layer's secret edges in memory at a time.

    Args:
        read: The suspect.
        binding: The key: the owner's, or a decoy.
        parameters: Say how large the secret sets are.
        memory: Keeps the secret edges for the next suspect.

    Returns:
        One count per reading.
    """
    layers: list[list[LayerCount]] = [[] for _ in READINGS]
    for name, readings in read.readings.items():
        secret = secret_positions(read.reference, name, binding, parameters, memory)
        size, inside = read.counted[name]
        for own, kept, hits in zip(layers, inside, _per_reading(readings[secret]), strict=True):
            own.append(LayerCount(size=size, kept=kept, secret=len(secret), hits=hits))
    return tuple(
        Counted(reading=reading, kept=tuple(kept[index] for kept in read.kept.values()), layers=tuple(layers[index]))
        for index, reading in enumerate(READINGS)
    )


def _per_reading(read: npt.NDArray[np.uint8]) -> list[int]:
    """Return how many of some positions each reading keeps.

    Args:
        read: Bytes as `read_layer` returns them.
    """
    return [int(found) for found in KEPT_BY @ np.bincount(read, minlength=COMBINATIONS)]


def edges_to_read(suspect: Mapping[str, FloatArray], reference: Mask, parameters: PlantedParameters) -> dict[str, int]:
    """Return how many of each layer's weights to take for its edges.

    A ticket that was found after the secret edges were drawn is not the reference, which keeps everything: there it is
    as many as the layer has among the suspect's largest weights overall. Neither count looks at a key.

    Args:
        suspect: Weights in the reference's shapes; each layer is looked up once, and held one at a time, or three times
            where the ticket was found later.
        reference: The layers to count in.
        parameters: Of the claim.
    """
    if not parameters.density_ppm:
        return {
            name: parameters.edges_of_a_copy(reference.count(name), math.prod(reference.shape(name)))
            for name in reference
        }
    keep = max(1, reference.size * parameters.density_ppm // planted_graph.PARTS)
    threshold = largest_overall(suspect, list(reference), keep)
    return {
        name: int(np.count_nonzero((bits >= threshold) & (bits > 0)))
        for name in reference
        for bits in (ordered_bits(suspect[name]),)
    }


def copy_of(counted: Counted, read: ReadSuspect, parameters: PlantedParameters) -> list[LayerCount]:
    """Return what an untouched copy would show that has as many weights left as the suspect.

    Its planted edges are as likely as its others to be among the kept; what is kept beyond its edges is as if by
    chance. In the positions that are counted a copy has no edges but the planted ones, unless the layer is full.

    Args:
        counted: A reading of the suspect.
        read: The suspect.
        parameters: Of the claim.
    """
    share = parameters.share_ppm / planted_graph.PARTS
    copies = []
    for name, kept, layer in zip(read.reference, counted.kept, counted.layers, strict=True):
        everywhere, own = read.readings[name].size, read.edges[name]
        if layer.size == everywhere:
            planted = min(layer.secret, own * (share + layer.secret / max(1, everywhere)))
            there = float(own)
        else:
            planted = there = min(layer.secret, own * share)
        if kept <= own:
            left = kept / max(1, own)
            hits, inside = planted * left, there * left
        else:
            grown = (kept - own) / (everywhere - own)
            hits, inside = planted + (layer.secret - planted) * grown, there + (layer.size - there) * grown
        copy = dataclasses.replace(layer, kept=round(inside))
        copies.append(dataclasses.replace(copy, hits=max(copy.lowest, min(copy.highest, round(hits)))))
    return copies
