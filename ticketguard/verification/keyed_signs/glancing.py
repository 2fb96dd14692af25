"""A quick look at a suspect as it is stored: votes and anchors among the first positions of every layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ticketguard.checkpoints.checkpoints import Checkpoint
from ticketguard.checkpoints.matching import LayerMatch
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.keyed_signs import drawn_signs
from ticketguard.errors import TensorError
from ticketguard.graph import ChannelGroup
from ticketguard.ticket import BoolArray, FloatArray, StartReference
from ticketguard.verification.binomial import log10_at_least
from ticketguard.verification.interface import Glance
from ticketguard.verification.memory import Memory
from ticketguard.verification.networks import blocks_of
from ticketguard.verification.ways import joined_or_not, ways_to_read

# Of each layer so many positions are looked at, the first ones.
LOOKED_AT = 2**14


def glance(
    suspect: Checkpoint,
    reference: StartReference,
    binding: Binding,
    *,
    groups: Sequence[ChannelGroup],
    memory: Memory | None,
) -> Glance:
    """Look at every network of a suspect that has layers of the reference's shape; the strongest pays for all.

    Args:
        suspect: The checkpoint.
        reference: The start weights.
        binding: The owner's key.
        groups: Channel groups of the reference's layers that the commitment binds.
        memory: Keeps the votes' signs for the next suspect.

    Raises:
        UnverifiableError: An examination could not read the suspect either.
        FileError: The file is gone or has changed.
    """
    shapes = {name: layer.shape for name, layer in reference.layers.items()}
    found = [
        _looked_at(way, match, reference, binding, memory)
        for way in joined_or_not(suspect, reference, groups)
        for match in way.possible_matches(shapes, blocks=blocks_of(groups))
    ]
    found = [one for one in found if one[1]]
    if not found:
        # Names and shapes say too little: whether the suspect can be read at all is for the examination to say.
        ways_to_read(suspect, reference, groups)
        return Glance(log10_p=0.0, likeness=0.0)
    smallest = min(log10_at_least(agreements, votes) for agreements, votes, _ in found)
    return Glance(
        log10_p=min(0.0, smallest + math.log10(len(found))), likeness=max(likeness for _, _, likeness in found)
    )


def _looked_at(
    suspect: Checkpoint, match: LayerMatch, reference: StartReference, binding: Binding, memory: Memory | None
) -> tuple[int, int, float]:
    """Return agreements, votes, and the share of the anchors that agree beyond chance, at most 1."""
    agreements = votes = same = anchored = 0
    for layer, name in match.pairs.items():
        weights = _beginning(suspect, match, layer, name, reference)
        if weights is None:
            continue
        start = reference.layers[layer]
        alive, negative = weights != 0, weights < 0
        anchors = reference.first_anchors(layer, len(weights))
        here = alive & anchors
        same += int(np.count_nonzero(negative[here] == start.negative(len(weights))[here]))
        anchored += int(np.count_nonzero(here))
        there = alive & ~anchors
        agreements += int(np.count_nonzero(negative[there] == _signs(layer, len(weights), binding, memory)[there]))
        votes += int(np.count_nonzero(there))
    return agreements, votes, 2 * same / max(1, anchored) - 1


def _beginning(
    suspect: Checkpoint, match: LayerMatch, layer: str, name: str, reference: StartReference
) -> FloatArray | None:
    """Return a layer's first weights; None if it has another shape, or cannot be read."""
    layout = match.conventions[0].get(layer)
    if layout is None or layer in match.resized:
        return None
    try:
        weights = layout.apply(suspect.weights(name))
    except TensorError:
        return None
    return weights.reshape(-1)[:LOOKED_AT] if weights.size == reference.layers[layer].size else None


def _signs(layer: str, size: int, binding: Binding, memory: Memory | None) -> BoolArray:
    def drawn() -> BoolArray:
        return drawn_signs(binding, layer, size)

    return drawn() if memory is None else memory.get((binding, layer, "first signs"), drawn)
