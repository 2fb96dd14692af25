"""Count a suspect's edges inside secret edge sets, where the reference has none, and how many have the coins' signs.

Given the reference, a secret edge set is uniform among all positions of a layer; restricted to the positions that are
empty in the reference it is uniform among those, given its size there. Only they are counted: the edges that a suspect
shares with the reference say where it comes from, but nothing about a key, and would only drown the mark. A layer that
the reference keeps in full has no empty position, and is counted as a whole. What other marks of the claim decide is
left out (rule PG23): they are drawn independently, and their edges would count as chance's.

Where edges were planted with signs, hits agree with their coins or not: given the positions and the suspect, each does
with probability 1/2 (rule PG21 of ``signatures/planted-graph.md``). No edge was planted in a full layer: its hits have
no coins.
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
from ticketguard.graph.orientation import orientation
from ticketguard.ticket import AnyReference, BoolArray, FloatArray, Mask
from ticketguard.verification.memory import Memory
from ticketguard.verification.passes import PASSES
from ticketguard.verification.planted_graph.drawing import secret_of_layer
from ticketguard.verification.readings import READINGS, Reading, largest_overall, ordered_bits, per_reading, read_layer
from ticketguard.verification.statistics import HitSigns, LayerCount, log10_upper_tail, log10_with_signs

# The bit of a position's byte that says that its weight is negative.
NEGATIVE = 1 << len(READINGS)
# Hits are counted alone, and with their signs.
COUNTS = 2


def looks_at_one(*, is_signed: bool) -> int:
    """Return how many p-values of one network the rule allows, made or not (rule PG16)."""
    return len(READINGS) * PASSES * (COUNTS if is_signed else 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadSuspect:
    """Every reading of a suspect, in a byte a position.

    Attributes:
        reference: The layers that were read, with the reference's edges.
        edges: Per layer how many edges a copy has.
        kept: Per layer how many positions each reading keeps.
        readings: Per layer and flat position a byte whose bit *r* says that reading *r* keeps it, and whose bit
            `NEGATIVE` that its weight is negative, where signs count.
        decided: Per layer the flat positions that other marks of the claim decide, ascending; layers may be missing.
    """

    reference: Mask
    edges: Mapping[str, int]
    kept: Mapping[str, Sequence[int]]
    readings: Mapping[str, npt.NDArray[np.uint8]]
    decided: Mapping[str, Positions] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls,
        suspect: Mapping[str, FloatArray],
        reference: AnyReference,
        parameters: PlantedParameters,
        decided: Mapping[str, Positions] | None = None,
    ) -> ReadSuspect:
        """Read a suspect, a layer at a time.

        Signs are those of weights whose rows and columns are turned as the reference's are (rule PG22): what the
        suspect shares with the reference says which are turned, and no key is needed for it.

        Args:
            suspect: Weights in the reference's shapes.
            reference: The layers to read (those the suspect has), as the claim's commitment binds them.
            parameters: Of the claim.
            decided: Positions that other marks of the claim decide.
        """
        mask = reference.mask
        edges = edges_to_read(suspect, mask, parameters)
        kept: dict[str, Sequence[int]] = {}
        readings: dict[str, npt.NDArray[np.uint8]] = {}
        for name in mask:
            layer, found_later = suspect[name], bool(parameters.density_ppm)
            kept[name], readings[name] = read_layer(layer, edges=edges[name], found_later=found_later)
            if parameters.is_signed and mask.count(name) < layer.size:
                readings[name] |= _is_negative(layer, reference, name) * np.uint8(NEGATIVE)
        return cls(reference=mask, edges=edges, kept=kept, readings=readings, decided=decided or {})

    @functools.cached_property
    def counted(self) -> Mapping[str, tuple[int, Sequence[int]]]:
        """Per layer how many positions are counted, and how many of those each reading keeps: the same for all keys."""
        found: dict[str, tuple[int, Sequence[int]]] = {}
        for name, readings in self.readings.items():
            left_out = self.reference[name].reshape(-1).copy()
            if left_out.all():  # a full layer is counted as a whole
                left_out[:] = False
            if name in self.decided:
                left_out[self.decided[name]] = True
            kept_there = per_reading(readings[left_out])
            inside = [kept - there for kept, there in zip(self.kept[name], kept_there, strict=True)]
            found[name] = (readings.size - int(np.count_nonzero(left_out)), inside)
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counted:
    """One reading of a suspect, counted for one key.

    Attributes:
        reading: Which.
        kept: Positions that it keeps, in all of each layer.
        layers: One count a layer, of the positions that are counted.
        signs: How many of the hits agree with their coins; None where the claim has none.
    """

    reading: Reading
    kept: tuple[int, ...]
    layers: tuple[LayerCount, ...]
    signs: HitSigns | None = None

    @property
    def hits(self) -> int:
        """Hits in all layers."""
        return sum(layer.hits for layer in self.layers)

    @functools.cached_property
    def log10_p(self) -> float:
        """log10 of the p-value of the hits alone."""
        return log10_upper_tail(self.layers)

    @functools.cached_property
    def results(self) -> tuple[float, ...]:
        """log10 of the p-values that are looked at: of the hits and, where the claim has coins, of hits and signs."""
        if self.signs is None:
            return (self.log10_p,)
        return self.log10_p, log10_with_signs(self.log10_p, self.signs, hits=self.hits)

    @property
    def surprise(self) -> float:
        """How many standard deviations hits, or hits and signs together, are above their mean."""
        above = self.hits - sum(layer.expected for layer in self.layers)
        of_hits = above / math.sqrt(max(sum(layer.variance for layer in self.layers), 1e-9))
        if self.signs is None or not self.signs.coins:
            return of_hits
        of_signs = (self.signs.agreeing - self.signs.expected) / math.sqrt(self.signs.coins / 4)
        # The sum of two normal deviates, scaled to be one.
        return max(of_hits, (of_hits + of_signs) / math.sqrt(2))


def count_hits(
    read: ReadSuspect, binding: Binding, parameters: PlantedParameters, memory: Memory | None = None
) -> tuple[Counted, ...]:
    """Count a suspect's edges inside the secret edges of a key, one layer's secret edges in memory at a time.

    Args:
        read: The suspect.
        binding: The key: the owner's, or a decoy.
        parameters: Say how large the secret sets are, and whether they have coins.
        memory: Keeps the secret edges for the next suspect.

    Returns:
        One count per reading.
    """
    layers: list[list[LayerCount]] = [[] for _ in READINGS]
    coins, agreeing = np.zeros((2, len(READINGS)), dtype=np.int64)
    for name, readings in read.readings.items():
        drawn = secret_of_layer(read.reference, name, binding, parameters, memory)
        secret = drawn.without(read.decided.get(name))
        size, inside = read.counted[name]
        here = readings[secret.positions]
        hits = per_reading(here)
        for own, kept, found in zip(layers, inside, hits, strict=True):
            own.append(LayerCount(size=size, kept=kept, secret=len(here), hits=found))
        if secret.is_negative is not None:
            coins += hits
            agreeing += per_reading(here[(here >= NEGATIVE) == secret.is_negative])
    return tuple(
        Counted(
            reading=reading,
            kept=tuple(kept[index] for kept in read.kept.values()),
            layers=tuple(layers[index]),
            signs=HitSigns(coins=int(coins[index]), agreeing=int(agreeing[index])) if parameters.is_signed else None,
        )
        for index, reading in enumerate(READINGS)
    )


def _is_negative(layer: FloatArray, reference: AnyReference, name: str) -> BoolArray:
    """Return, flat, where a suspect's weights are negative once its rows and columns point as the reference's do."""
    upright = orientation(layer, reference.layer_weights(name), reference.mask[name]).undo(layer)
    return np.asarray(upright.reshape(-1) < 0)


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


def copy_of(counted: Counted, read: ReadSuspect, parameters: PlantedParameters) -> Counted:
    """Return what an untouched copy would show that has as many weights left as the suspect.

    Its planted edges are as likely as its others to be among the kept; what is kept beyond its edges is as if by
    chance. In the positions that are counted a copy has no edges but the planted ones, unless the layer is full. Of its
    planted edges, as many have their coins' signs as the claim says that training leaves; of other hits, half.

    Args:
        counted: A reading of the suspect.
        read: The suspect.
        parameters: Of the claim.
    """
    share, turned = (ppm / planted_graph.PARTS for ppm in (parameters.share_ppm, parameters.turned_ppm))
    copies, coins, agreeing = [], 0, 0.0
    for name, kept, layer in zip(read.reference, counted.kept, counted.layers, strict=True):
        everywhere, own = read.readings[name].size, read.edges[name]
        is_full = layer.size == everywhere
        if is_full:
            planted = min(layer.secret, own * (share + layer.secret / max(1, everywhere)))
            there = float(own)
        else:
            planted = there = min(layer.secret, own * share)
        if kept <= own:
            planted *= kept / max(1, own)
            hits, inside = planted, there * kept / max(1, own)
        else:
            grown = (kept - own) / (everywhere - own)
            hits, inside = planted + (layer.secret - planted) * grown, there + (layer.size - there) * grown
        copy = dataclasses.replace(layer, kept=round(inside))
        copy = dataclasses.replace(copy, hits=max(copy.lowest, min(copy.highest, round(hits))))
        copies.append(copy)
        if not is_full:
            left = min(planted, copy.hits)
            coins, agreeing = coins + copy.hits, agreeing + left * (1 - turned) + (copy.hits - left) / 2
    signs = counted.signs and HitSigns(coins=coins, agreeing=math.floor(agreeing))
    return dataclasses.replace(counted, layers=tuple(copies), signs=signs)
