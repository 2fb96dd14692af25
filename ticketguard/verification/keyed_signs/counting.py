"""How many of a suspect's weights have the sign that the owner's key gave them at the start.

Given the reference, which C binds, the key's signs are fair and independent coins. Whatever weights a reading takes of
a suspect that does not derive from this start, each one at a vote agrees with its coin with probability ½: the number
of agreements is binomial. Which weights are taken, and how the suspect lies, never depends on a vote's sign.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ticketguard.embedding.interface import Binding
from ticketguard.embedding.keyed_signs import PARTS, SignParameters, drawn_signs
from ticketguard.graph.orientation import orientation
from ticketguard.ticket import BoolArray, FloatArray, StartReference
from ticketguard.verification.binomial import log10_at_least
from ticketguard.verification.memory import Memory
from ticketguard.verification.readings import READINGS, Reading, largest_overall, ordered_bits, per_reading, read_layer

# Share of the votes that agree in an untouched copy, at least. The weakest of five ResNet-20s, rewound to after half an
# epoch at a rate of 0.1, kept 79% of its edges' signs; others 86 to 98% (benchmarks/signs.py measures it).
AGREEING = 0.75


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ReadVotes:
    """Every reading of a suspect's votes.

    Attributes:
        size: Positions of the layers that were read.
        readings: Per layer and vote, ascending, a byte whose bit *r* says that reading *r* takes it.
        negative: Per layer and vote whether the suspect's weight is negative, once it is oriented by the anchors.
    """

    size: int
    readings: Mapping[str, npt.NDArray[np.uint8]]
    negative: Mapping[str, BoolArray]

    @classmethod
    def of(cls, suspect: Mapping[str, FloatArray], reference: StartReference, parameters: SignParameters) -> ReadVotes:
        """Read a suspect, a layer at a time.

        Args:
            suspect: Weights in the reference's shapes; each layer is looked up four times.
            reference: The layers to read.
            parameters: Of the claim.
        """
        edges = edges_to_read(suspect, reference, parameters)
        readings: dict[str, npt.NDArray[np.uint8]] = {}
        negative: dict[str, BoolArray] = {}
        for name in reference.layers:
            layer, anchors = suspect[name], reference.anchors(name)
            votes = np.flatnonzero(~anchors)
            readings[name] = read_layer(layer, edges=edges[name], found_later=True)[1][votes]
            upright = orientation(layer, reference.layer_weights(name), anchors).undo(layer)
            negative[name] = upright.reshape(-1)[votes] < 0
        size = sum(layer.size for layer in reference.layers.values())
        return cls(size=size, readings=readings, negative=negative)


def edges_to_read(
    suspect: Mapping[str, FloatArray], reference: StartReference, parameters: SignParameters
) -> dict[str, int]:
    """Return how many of each layer's weights to take for its edges: those among the suspect's largest overall."""
    size = sum(layer.size for layer in reference.layers.values())
    keep = max(1, size * parameters.density_ppm // PARTS)
    threshold = largest_overall(suspect, list(reference.layers), keep)
    return {
        name: int(np.count_nonzero((bits >= threshold) & (bits > 0)))
        for name in reference.layers
        for bits in (ordered_bits(suspect[name]),)
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignCount:
    """One reading of a suspect, counted for one key.

    Attributes:
        reading: Which.
        votes: Votes that it takes.
        agreements: Those whose sign is the key's.
    """

    reading: Reading
    votes: int
    agreements: int

    @property
    def log10_p(self) -> float:
        """log10 of the p-value of this reading alone."""
        return log10_at_least(self.agreements, self.votes)

    @property
    def attainable_log10_p(self) -> float:
        """What an untouched copy with as many votes left would show."""
        return log10_at_least(round(AGREEING * self.votes), self.votes)


def signs_of_votes(
    reference: StartReference, name: str, binding: Binding, memory: Memory | None = None
) -> npt.NDArray[np.bool_]:
    """Return which votes of a layer, ascending, the key made negative.

    Args:
        reference: The start weights, which the commitment binds.
        name: The layer.
        binding: The key.
        memory: Keeps them for the next suspect.
    """

    def drawn() -> npt.NDArray[np.bool_]:
        return drawn_signs(binding, name, reference.layers[name].size)[~reference.anchors(name)]

    return drawn() if memory is None else memory.get((binding, name, "votes"), drawn)


def count_agreements(
    read: ReadVotes, reference: StartReference, binding: Binding, memory: Memory | None = None
) -> tuple[SignCount, ...]:
    """Count the votes that have the signs of a key, the owner's or a decoy; one count a reading."""
    votes, agreements = np.zeros((2, len(READINGS)), dtype=np.int64)
    for name, readings in read.readings.items():
        agrees = read.negative[name] == signs_of_votes(reference, name, binding, memory)
        votes += per_reading(readings)
        agreements += per_reading(readings[agrees])
    return tuple(
        SignCount(reading=reading, votes=int(taken), agreements=int(agreed))
        for reading, taken, agreed in zip(READINGS, votes, agreements, strict=True)
    )
