"""White-box verification: is the owner's planted graph in the suspect's weights?

1. Draw the secret edges S from (secret, C); C binds the unmarked reference, so S is fixed by it.
2. Read the suspect's mask in a few ways: as stored, and its largest weights at a few densities.
3. Count the mask's edges inside S where the reference has none; the tail of the hypergeometric sum is the p-value.
4. If that is not enough, or the strongest evidence is wanted, align the suspect to the reference, which never sees S,
   and read again.
5. Multiply by the number of readings (Bonferroni); show decoy keys through the same steps.

Nothing here runs a model or needs torch.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from ticketguard.checkpoints.checkpoints import Checkpoint
from ticketguard.checkpoints.matching import Layout, Shape
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.planted_graph import PlantedParameters
from ticketguard.graph import ChannelGroup, align
from ticketguard.graph.alignment import Alignment
from ticketguard.graph.matching import Budget
from ticketguard.graph.streams import loosened_streams
from ticketguard.ticket import Mask, Reference
from ticketguard.verification.by_content import View
from ticketguard.verification.memory import Memory
from ticketguard.verification.networks import (
    Network,
    Networks,
    blocks_of,
    find_networks,
    paired_anew,
    with_clear_layouts,
)
from ticketguard.verification.planted_graph.evidence import evidence_of
from ticketguard.verification.planted_graph.passages import Passage, Sighting
from ticketguard.verification.readings import READINGS, Layers
from ticketguard.verification.verdict import Evidence

# As stored, and aligned.
PASSES = 2
# How often layers are paired anew, each time by the order of channels that was found before.
MOST_PAIRINGS = 3
# What was seen of a network.
Seen: TypeAlias = tuple[Sighting, Network]


def examine_networks(
    suspect: Checkpoint,
    reference: Reference,
    binding: Binding,
    parameters: PlantedParameters,
    *,
    groups: Sequence[ChannelGroup],
    threshold_log10_p: float,
    thorough: bool = False,
    memory: Memory | None = None,
) -> Evidence:
    """Read every network as stored and, if that is not enough, aligned; the strongest one pays for all.

    Args:
        suspect: The checkpoint.
        reference: The unmarked ticket.
        binding: The owner's key.
        parameters: Of the claim's planted graph.
        groups: Channel groups of the reference's layers that the commitment binds; without any, every axis is aligned
            for itself.
        threshold_log10_p: What the verdict asks for.
        thorough: Read aligned even where what is stored is enough.
        memory: Keeps the owner's secret edges for the next suspect.

    Raises:
        UnverifiableError: They share no layer that can be read, or too many networks fit.
        FileError: The file is gone or has changed.
    """
    examination = Examination(suspect, reference, parameters, groups=groups)
    return examination.evidence(binding, threshold_log10_p=threshold_log10_p, thorough=thorough, memory=memory)


class Examination:
    """Every network of a suspect beside a reference: which layers are read, and how, before any key.

    All of it follows from the suspect and the reference alone, so one examination serves any number of keys.

    Args:
        suspect: The checkpoint.
        reference: The unmarked ticket.
        parameters: Of the claim's planted graph.
        groups: Channel groups of the reference's layers that the commitment binds.

    Raises:
        UnverifiableError: They share no layer that can be read, or too many networks fit.
        FileError: The file is gone or has changed.
    """

    def __init__(
        self,
        suspect: Checkpoint,
        reference: Reference,
        parameters: PlantedParameters,
        *,
        groups: Sequence[ChannelGroup],
    ) -> None:
        self._suspect = suspect
        self._reference = reference
        self._parameters = parameters
        self._groups = groups
        self._found = find_networks(suspect, reference, blocks=blocks_of(groups))

    @property
    def looks(self) -> int:
        """Readings in all passes that the rule allows, made or not."""
        return len(READINGS) * PASSES * len(self._found.readable)

    @functools.cached_property
    def stored(self) -> tuple[Seen, ...]:
        """What the networks show as stored: those that have layers of the reference's shape."""
        seen = (
            _as_stored(self._suspect, network, self._reference.mask, self._parameters)
            for network in self._found.readable
        )
        return tuple(each for each in seen if each is not None)

    @functools.cached_property
    def aligned(self) -> tuple[Seen, ...]:
        """What the networks show aligned: those for which that is not what they show as stored."""
        seen = (
            ordered.read(network, self._reference.mask, self._parameters)
            for network, ordered in zip(self._found.readable, self._orders, strict=True)
        )
        return tuple(each for each in seen if each is not None)

    @functools.cached_property
    def _orders(self) -> tuple[_Ordered, ...]:
        return tuple(
            _best_order(self._suspect, network, self._reference, self._groups) for network in self._found.readable
        )

    def evidence(
        self, binding: Binding, *, threshold_log10_p: float, thorough: bool = False, memory: Memory | None = None
    ) -> Evidence:
        """Count for one key: as stored and, if that is not enough, aligned.

        Both are paid for, so whether the second is made changes p, and never what a verdict says: more readings only
        make the smallest p smaller.

        Args:
            binding: The owner's key.
            threshold_log10_p: What the verdict asks for.
            thorough: Count aligned even where what is stored is enough.
            memory: Keeps the owner's secret edges for the next suspect.
        """
        passages = [(seen.counted(binding, self._parameters, memory), network) for seen, network in self.stored]
        smallest = min((passage.log10_p for passage, _ in passages), default=0.0)
        alignments: list[Alignment] = []
        if thorough or not passages or smallest + math.log10(self.looks) > threshold_log10_p:
            alignments = [ordered.alignment for ordered in self._orders]
            passages += [(seen.counted(binding, self._parameters, memory), network) for seen, network in self.aligned]
        best = min(passages, key=lambda passage: passage[0].log10_p)
        return evidence_of(
            [passage for passage, _ in passages],
            alignments,
            binding,
            self._parameters,
            threshold_log10_p=threshold_log10_p,
            looks=self.looks,
            details={
                **_what_was_read(self._suspect, self._reference.mask, *best, self._found),
                "channel_groups": len(self._groups),
            },
        )


def _as_stored(suspect: Checkpoint, network: Network, reference: Mask, parameters: PlantedParameters) -> Seen | None:
    """Read a network's layers that have the reference's shape; None if there are none."""
    if not network.as_stored:
        return None
    layers = Layers(read=suspect.read, names=network.as_stored, layouts=network.conventions[0])
    return Sighting.of(layers, reference.only(network.as_stored), parameters), network


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Ordered:
    """A network in an order in which it resembles the reference.

    Attributes:
        suspect: The checkpoint.
        network: The network, its layers where they were found.
        layouts: How its tensors are read as layers.
        alignment: Where its channels lie.
    """

    suspect: Checkpoint
    network: Network
    layouts: Mapping[str, Layout]
    alignment: Alignment

    def layers(self, shapes: Mapping[str, Shape]) -> Layers:
        """Return the network's layers in the reference's order and *shapes*."""
        return Layers(
            read=self.suspect.read,
            names=self.network.names,
            layouts=self.layouts,
            alignment=self.alignment,
            shapes=shapes,
        )

    def view(self, shapes: Mapping[str, Shape]) -> View:
        """Return what puts any tensor, taken as a layer of some name, into the reference's order."""
        return lambda name, layer: self.alignment.apply(name, layer, shapes.get(name))

    def read(self, stored: Network, reference: Mask, parameters: PlantedParameters) -> Seen | None:
        """Read it; None where that would only repeat what the network showed as *stored*."""
        is_same = (self.network.names, self.layouts) == (stored.as_stored, stored.conventions[0])
        # What could not be aligned reads as it is stored, but for layers that could only be read so.
        if stored.as_stored and ((is_same and self.alignment.changes_nothing) or not self.alignment.is_found):
            return None
        present = reference.only(self.network.names)
        layers = self.layers({name: present.shape(name) for name in present})
        layout = ", ".join(sorted({layout.name for layout in self.layouts.values()}))
        return Sighting.of(layers, present, parameters, layout=layout), self.network


def _best_order(
    suspect: Checkpoint, network: Network, reference: Reference, groups: Sequence[ChannelGroup]
) -> _Ordered:
    """Align a network, its tensors read and paired in the way in which it resembles the reference most."""
    network = with_clear_layouts(suspect, reference, network)
    shapes = {name: reference.mask.shape(name) for name in reference.mask}
    # All ways to read a network share what it is worth.
    budget = Budget.of(shapes, {name: suspect.shape(network.names[name]) for name in network.names})
    best = _aligned(suspect, network, reference, groups, budget)
    for _ in range(MOST_PAIRINGS):
        if best.alignment.is_clear:
            break
        view = best.view(shapes) if best.alignment.is_found else None
        anew = paired_anew(suspect, reference, best.network, blocks=blocks_of(groups), view=view)
        if anew is None:
            break
        other = _aligned(suspect, anew, reference, groups, budget)
        if other.alignment.deviations <= best.alignment.deviations:
            break
        best = other
    return best


def _aligned(
    suspect: Checkpoint, network: Network, reference: Reference, groups: Sequence[ChannelGroup], budget: Budget
) -> _Ordered:
    """Align a network, in the layout in which it resembles the reference most."""
    best: _Ordered | None = None
    for layouts in _likeliest_first(network, reference, groups):
        stored = Layers(read=suspect.read, names=network.names, layouts=layouts)
        alignment = align(stored, reference, groups, budget=budget)
        if best is None or alignment.deviations > best.alignment.deviations:
            best = _Ordered(suspect=suspect, network=network, layouts=layouts, alignment=alignment)
        if alignment.is_clear:
            break
    assert best is not None  # a match has a convention at least
    return best


def _likeliest_first(
    network: Network, reference: Reference, groups: Sequence[ChannelGroup]
) -> list[Mapping[str, Layout]]:
    """Return a network's conventions, those first in which most axes of a group have one number of channels."""
    wanted = {name: reference.mask.shape(name) for name in network.names}

    def streams(layouts: Mapping[str, Layout]) -> int:
        return len(loosened_streams(groups, wanted, {name: layouts[name].shape for name in network.names}))

    return sorted(network.conventions, key=streams)


def _what_was_read(
    suspect: Checkpoint, reference: Mask, passage: Passage, network: Network, found: Networks
) -> dict[str, object]:
    """Return what evidence says of the network that it rests on."""
    read = passage.read.reference.layers
    front = suspect.network or ""
    return {
        "missing_layers": [name for name in reference if name not in read and name not in network.unreadable],
        "layers_paired_by_order": list(network.match.by_order),
        "layers_paired_by_content": list(network.match.by_content),
        "network": front + network.match.network,
        "networks": len(found.readable),
        "unreadable_networks": [front + other.match.network for other in found.unreadable],
        "unreadable_layers": [{"layer": layer, "reason": reason} for layer, reason in network.unreadable.items()],
    }
