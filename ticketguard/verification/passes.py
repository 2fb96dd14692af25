"""Every network of a suspect beside a reference, as stored and aligned: what a mark in the weights is read from.

All of it follows from the suspect and the reference alone, before any key: it serves any number of keys, and whatever
is searched here needs not be paid for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Generic, TypeVar

from ticketguard.graph.alignment import Alignment
from ticketguard.ticket import AnyReference
from ticketguard.verification.networks import Network, Networks
from ticketguard.verification.readings import Layers
from ticketguard.verification.ways import Way

# As stored, and aligned.
PASSES = 2
Seen = TypeVar("Seen")


class Passes(Generic[Seen]):
    """The passes over a suspect.

    Args:
        way: How to read it. Marks that share one align the suspect once.
        see: Reads layers, of those of the reference that are named, in every way that a mark is read in.
    """

    def __init__(self, way: Way, *, see: Callable[[Layers, AnyReference], Seen]) -> None:
        self._way, self._reference = way, way.reference
        self._see = see

    @property
    def thorough(self) -> bool:
        """Whether to look on where what is stored is enough."""
        return self._way.thorough

    @property
    def found(self) -> Networks:
        """The suspect's networks."""
        return self._way.found

    @property
    def passes(self) -> int:
        """How many there are, made or not."""
        return PASSES * len(self._way.found.readable)

    @property
    def alignments(self) -> list[Alignment]:
        """How each network lies beside the reference."""
        return [ordered.alignment for ordered in self._way.orders]

    @functools.cached_property
    def stored(self) -> tuple[tuple[Seen, Network, Alignment | None], ...]:
        """What the networks show as stored: those that have layers of the reference's shape."""
        suspect = self._way.suspect
        return tuple(
            (
                self._see(
                    Layers(read=suspect.weights, names=network.as_stored, layouts=network.conventions[0]),
                    self._reference.only(network.as_stored),
                ),
                network,
                None,
            )
            for network in self._way.found.readable
            if network.as_stored
        )

    @functools.cached_property
    def aligned(self) -> tuple[tuple[Seen, Network, Alignment | None], ...]:
        """What the networks show aligned: those for which that is not what they show as stored."""
        found = []
        for network, ordered in zip(self._way.found.readable, self._way.orders, strict=True):
            layers = ordered.read(network, self._reference.mask)
            if layers is not None:
                seen = self._see(layers, self._reference.only(ordered.network.names))
                found.append((seen, ordered.network, ordered.alignment))
        return tuple(found)

    def what_was_read(self, network: Network, read: Collection[str]) -> Mapping[str, Any]:
        """Return what evidence says of the *network* that it rests on, and of its layers that were *read*."""
        front = self._way.suspect.network or ""
        return {
            "missing_layers": [
                name for name in self._reference.mask if name not in read and name not in network.unreadable
            ],
            "layers_paired_by_order": list(network.match.by_order),
            "layers_paired_by_content": list(network.match.by_content),
            "network": front + network.match.network,
            "networks": len(self._way.found.readable),
            "unreadable_networks": [front + other.match.network for other in self._way.found.unreadable],
            "unreadable_layers": [{"layer": layer, "reason": reason} for layer, reason in network.unreadable.items()],
            "values_not_finite": [
                {"layer": layer, "values": wrong.values, "of": wrong.of} for layer, wrong in network.not_finite.items()
            ],
        }


def how_it_lay(alignment: Alignment | None, alignments: Sequence[Alignment]) -> dict[str, Any]:
    """Return how a suspect lay, as evidence says it.

    Args:
        alignment: How it was put in order for what the evidence rests on; None if that was read as stored.
        alignments: All that were tried.
    """
    shown = alignment or max(alignments, key=lambda tried: tried.deviations, default=None)
    if shown is None:
        return {"channels_out_of_place": 0}
    told: dict[str, Any] = {
        "alignment_overlap": round(shown.overlap, 4),
        "alignment_overlap_by_chance": round(shown.chance, 4),
        "alignment_deviations": round(shown.deviations, 1),
    }
    if alignment is None:
        return {"channels_out_of_place": 0, **told}
    return {
        "channels_out_of_place": shown.moved,
        "channels_missing": shown.missing,
        "channels_added": shown.added,
        "channels_not_recognised": shown.unrecognised,
        "kernels": shown.turn.name,
        **told,
    }
