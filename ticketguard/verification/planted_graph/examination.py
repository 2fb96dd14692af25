"""White-box verification: is the owner's planted graph in the suspect's weights?

1. Draw the secret edges S from (secret, C); C binds the unmarked reference, so S is fixed by it.
2. Read the suspect's mask in a few ways: as stored, and its largest weights at a few densities.
3. Count the mask's edges inside S where the reference has none; the tail of the hypergeometric sum is the p-value.
4. If that is not enough, align the suspect to the reference, which never sees S, and read again.
5. Multiply by the number of readings (Bonferroni); show decoy keys through the same steps.

Nothing here runs a model or needs torch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from ticketguard.checkpoints.checkpoints import Checkpoint
from ticketguard.checkpoints.layouts import Layout, Shape
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.planted_graph import PlantedParameters
from ticketguard.graph import ChannelGroup, align
from ticketguard.graph.alignment import Alignment
from ticketguard.ticket import Mask, Reference
from ticketguard.verification.by_content import View
from ticketguard.verification.networks import Network, Networks, blocks_of, find_networks, paired_anew
from ticketguard.verification.planted_graph.evidence import evidence_of
from ticketguard.verification.planted_graph.passages import Passage, examine
from ticketguard.verification.readings import READINGS, Layers
from ticketguard.verification.verdict import Evidence

# As stored, and aligned.
PASSES = 2


def examine_networks(
    suspect: Checkpoint,
    reference: Reference,
    binding: Binding,
    parameters: PlantedParameters,
    *,
    groups: Sequence[ChannelGroup],
    threshold_log10_p: float,
) -> Evidence:
    """Read every network as stored and, if that is not enough, aligned; the strongest one pays for all.

    Which networks and layers are read, and how, follows from the suspect and the reference alone, never from the
    secret.

    Args:
        suspect: The checkpoint.
        reference: The unmarked ticket.
        binding: The owner's key.
        parameters: Of the claim's planted graph.
        groups: Channel groups of the reference's layers that the commitment binds; without any, every axis is aligned
            for itself.
        threshold_log10_p: What the verdict asks for.

    Raises:
        UnverifiableError: They share no layer that can be read, or too many networks fit.
        FileError: The file is gone or has changed.
    """
    found = find_networks(suspect, reference, blocks=blocks_of(groups))
    networks = found.readable
    looks = len(READINGS) * PASSES * len(networks)
    passages: list[tuple[Passage, Network]] = []
    alignments: list[Alignment] = []
    for aligned in (False, True):
        if passages and min(seen.log10_p for seen, _ in passages) + math.log10(looks) <= threshold_log10_p:
            break
        for network in networks:
            if not aligned:
                passage = _as_stored(suspect, network, reference.mask, binding, parameters)
            else:
                ordered = _best_order(suspect, network, reference, groups)
                alignments.append(ordered.alignment)
                passage = ordered.read(reference.mask, binding, parameters)
                network = ordered.network
            if passage is not None:
                passages.append((passage, network))
    best = min(passages, key=lambda passage: passage[0].log10_p)
    return evidence_of(
        [passage for passage, _ in passages],
        alignments,
        binding,
        parameters,
        threshold_log10_p=threshold_log10_p,
        looks=looks,
        details={**_what_was_read(suspect, reference.mask, *best, found), "channel_groups": len(groups)},
    )


def _as_stored(
    suspect: Checkpoint, network: Network, reference: Mask, binding: Binding, parameters: PlantedParameters
) -> Passage | None:
    """Read a network's layers that have the reference's shape; None if there are none."""
    if not network.as_stored:
        return None
    layers = Layers(read=suspect.read, names=network.as_stored, layouts=network.conventions[0])
    return examine(layers, reference.only(network.as_stored), binding, parameters)


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

    def read(self, reference: Mask, binding: Binding, parameters: PlantedParameters) -> Passage | None:
        """Read it; None where that would only repeat what it showed as stored."""
        stored = self.network.conventions[0]
        repeats = self.alignment.changes_nothing and self.layouts == stored and not self.network.match.resized
        # What could not be aligned reads as it is stored, but for layers that could only be read so.
        if self.network.as_stored and (repeats or not self.alignment.is_found):
            return None
        present = reference.only(self.network.names)
        layers = self.layers({name: present.shape(name) for name in present})
        layout = ", ".join(sorted({layout.name for layout in self.layouts.values()}))
        return examine(layers, present, binding, parameters, layout=layout)


def _best_order(
    suspect: Checkpoint, network: Network, reference: Reference, groups: Sequence[ChannelGroup]
) -> _Ordered:
    """Align a network, its tensors read and paired in the way in which it resembles the reference most."""
    best = _aligned(suspect, network, reference, groups)
    by_name = not (network.match.by_order or network.match.by_content)
    if best.alignment.is_clear or (by_name and not best.alignment.is_found):
        return best
    shapes = {name: reference.mask.shape(name) for name in reference.mask}
    view = best.view(shapes) if best.alignment.is_found else None
    anew = paired_anew(suspect, reference, network, blocks=blocks_of(groups), view=view)
    if anew is None:
        return best
    return max(best, _aligned(suspect, anew, reference, groups), key=lambda ordered: ordered.alignment.deviations)


def _aligned(suspect: Checkpoint, network: Network, reference: Reference, groups: Sequence[ChannelGroup]) -> _Ordered:
    """Align a network, in the layout in which it resembles the reference most."""
    best: _Ordered | None = None
    for layouts in network.conventions:
        stored = Layers(read=suspect.read, names=network.names, layouts=layouts)
        alignment = align(stored, reference, groups)
        if best is None or alignment.deviations > best.alignment.deviations:
            best = _Ordered(suspect=suspect, network=network, layouts=layouts, alignment=alignment)
        if alignment.is_clear:
            break
    assert best is not None  # a match has a convention at least
    return best


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
