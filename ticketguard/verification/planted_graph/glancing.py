"""A quick look at a suspect as it is stored: one count outside the reference, and how much of the reference it has.

What is looked at is where a layer's largest weights lie, as many as the reference has edges. They are found once for
all credentials; each then looks its own positions up. Edges that other marks of the claim decide count like
chance's: drawing those marks would take longer than the look.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from ticketguard.checkpoints.checkpoints import Checkpoint
from ticketguard.checkpoints.matching import LayerMatch, Layout
from ticketguard.embedding.interface import Binding, Positions
from ticketguard.embedding.planted_graph import PARTS, PlantedParameters
from ticketguard.errors import TensorError
from ticketguard.graph import ChannelGroup
from ticketguard.ticket import AnyReference, FloatArray, Mask
from ticketguard.verification.interface import Glance
from ticketguard.verification.memory import Memory
from ticketguard.verification.networks import blocks_of
from ticketguard.verification.planted_graph.drawing import secret_of_layer
from ticketguard.verification.statistics import LayerCount, log10_upper_tail
from ticketguard.verification.ways import joined_or_not, ways_to_read

# Standard deviations above its mean from which on a count's tail is worth computing: it is about one in fifty there.
REMARKABLE = 2.0


def glance(
    suspect: Checkpoint,
    reference: AnyReference,
    binding: Binding,
    parameters: PlantedParameters,
    *,
    groups: Sequence[ChannelGroup],
    memory: Memory | None,
    seen: Memory,
) -> Glance:
    """Look at every network of a suspect that has layers of the reference's shape; the strongest pays for all.

    Args:
        suspect: The checkpoint.
        reference: The unmarked ticket.
        binding: The owner's key.
        parameters: Of the claim's planted graph.
        groups: Channel groups of the reference's layers that the commitment binds.
        memory: Keeps the credential's positions for the next suspect.
        seen: Keeps the suspect's weights for the next credential.

    Raises:
        UnverifiableError: An examination could not read the suspect either.
        FileError: The file is gone or has changed.
    """
    shapes = {name: reference.mask.shape(name) for name in reference.mask}
    blocks = blocks_of(groups)
    credential = _Positions(reference=reference.mask, binding=binding, parameters=parameters, memory=memory)
    counts = [
        count
        for way in joined_or_not(suspect, reference, groups)
        for match in way.possible_matches(shapes, blocks=blocks)
        if (count := _Count.of(way, match, credential, seen)).outside
    ]
    if not counts:
        # Names and shapes say too little: whether the suspect can be read at all is for the examination to say.
        ways_to_read(suspect, reference, groups)
        return Glance(log10_p=0.0, likeness=0.0)
    smallest = min(count.log10_p for count in counts)
    return Glance(
        log10_p=min(0.0, smallest + math.log10(len(counts))), likeness=max(count.likeness for count in counts)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Positions:
    """Where a credential looks.

    Attributes:
        reference: The unmarked ticket's edges.
        binding: The owner's key.
        parameters: Of the claim's planted graph.
        memory: Keeps positions.
    """

    reference: Mask
    binding: Binding
    parameters: PlantedParameters
    memory: Memory | None

    def secret(self, layer: str) -> Positions:
        """Return the owner's secret positions that are counted."""
        return secret_of_layer(self.reference, layer, self.binding, self.parameters, self.memory).positions

    def edges(self, layer: str) -> Positions:
        """Return the positions of the reference's edges."""

        def found() -> Positions:
            return np.flatnonzero(self.reference[layer])

        return found() if self.memory is None else self.memory.get((self.binding, layer, "edges"), found)

    def edges_of_a_copy(self, edges: int, size: int) -> int:
        """Return how many weights to take for the edges of a layer that has so many in the reference."""
        if self.parameters.density_ppm:  # of a ticket that was found later
            return max(1, size * self.parameters.density_ppm // PARTS)
        return max(1, self.parameters.edges_of_a_copy(edges, size))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Count:
    """One network's counts.

    Attributes:
        outside: In the owner's secret positions, among those that are counted; one a layer.
        inside: In the reference's edges, among all positions; one a layer.
    """

    outside: tuple[LayerCount, ...]
    inside: tuple[LayerCount, ...]

    @classmethod
    def of(cls, suspect: Checkpoint, match: LayerMatch, credential: _Positions, seen: Memory) -> _Count:
        """Count in the layers that are stored in the reference's shape and can be read."""
        outside: list[LayerCount] = []
        inside: list[LayerCount] = []
        for layer, magnitudes, ascending in _readable(suspect, match, seen):
            edges, secret = credential.edges(layer), credential.secret(layer)
            wanted = min(len(ascending), credential.edges_of_a_copy(len(edges), len(magnitudes)))
            threshold = ascending[-wanted] if wanted else np.float32(np.inf)
            kept = len(ascending) - int(np.searchsorted(ascending, threshold))
            own = int(np.count_nonzero(magnitudes[edges] >= threshold))
            hits = int(np.count_nonzero(magnitudes[secret] >= threshold))
            everywhere = LayerCount(size=len(magnitudes), kept=kept, secret=len(edges), hits=own)
            inside.append(everywhere)
            if len(edges) == len(magnitudes):  # a full layer is counted as a whole
                outside.append(dataclasses.replace(everywhere, secret=len(secret), hits=hits))
            else:
                empty = len(magnitudes) - len(edges)
                outside.append(LayerCount(size=empty, kept=kept - own, secret=len(secret), hits=hits))
        return cls(outside=tuple(outside), inside=tuple(inside))

    @property
    def log10_p(self) -> float:
        """log10 of the p-value; 0, which bounds it, where the count is not remarkable."""
        above = sum(layer.hits - layer.expected for layer in self.outside)
        spread = math.sqrt(sum(layer.variance for layer in self.outside))
        return log10_upper_tail(self.outside) if above > REMARKABLE * spread else 0.0

    @property
    def likeness(self) -> float:
        """How much of the reference's edges there is beyond chance, of what there could be."""
        sparse = [layer for layer in self.inside if layer.secret < layer.size]
        expected = sum(layer.expected for layer in sparse)
        most = sum(layer.highest for layer in sparse)
        return (sum(layer.hits for layer in sparse) - expected) / (most - expected) if most > expected else 0.0


def _readable(suspect: Checkpoint, match: LayerMatch, seen: Memory) -> Iterator[tuple[str, FloatArray, FloatArray]]:
    """Yield the layers of the reference's shape: name, flat magnitudes, and those that are not zero, ascending."""
    for layer, name in match.pairs.items():
        if layer in match.resized:
            continue
        layout = match.conventions[0].get(layer)
        try:
            magnitudes = seen.get((name, layout), functools.partial(_magnitudes, suspect, name, layout))
        except TensorError:
            continue
        yield layer, magnitudes, seen.get((name, layout, "ascending"), functools.partial(_ascending, magnitudes))


def _magnitudes(suspect: Checkpoint, name: str, layout: Layout | None) -> FloatArray:
    stored = suspect.weights(name)
    return np.abs(stored if layout is None else layout.apply(stored)).reshape(-1)


def _ascending(magnitudes: FloatArray) -> FloatArray:
    return np.sort(magnitudes[magnitudes > 0])
