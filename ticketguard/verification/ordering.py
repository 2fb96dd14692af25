"""In which way, and in which order of its channels, a suspect's network resembles the reference most.

Of a large network a few layers are ordered first. They show whether anything of the reference is there, and where the
rest begins.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from ticketguard.checkpoints.checkpoints import Checkpoint
from ticketguard.checkpoints.matching import Layout, Shape
from ticketguard.graph import ChannelGroup, align
from ticketguard.graph.alignment import Alignment
from ticketguard.graph.few import few_layers
from ticketguard.graph.matching import Budget
from ticketguard.graph.streams import loosened_streams
from ticketguard.graph.turns import UNTURNED
from ticketguard.ticket import AnyReference, Mask
from ticketguard.verification.by_content import View
from ticketguard.verification.networks import Network, blocks_of, paired_anew, with_clear_layouts
from ticketguard.verification.readings import Layers

# What is free of the work is divided among the networks of a file, so that none can use up another's, but in so many
# parts at most: networks that a thief puts beside a copy take no more from it. (There are 16 networks at most.)
MOST_SHARES = 4
# How often layers are paired anew, each time by the order of channels that was found before.
MOST_PAIRINGS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ordered:
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
            read=self.suspect.weights,
            names=self.network.names,
            layouts=self.layouts,
            alignment=self.alignment,
            shapes=shapes,
        )

    def view(self, shapes: Mapping[str, Shape]) -> View:
        """Return what puts any tensor, taken as a layer of some name, into the reference's order."""
        return lambda name, layer: self.alignment.apply(name, layer, shapes.get(name))

    def read(self, stored: Network, reference: Mask) -> Layers | None:
        """Return its layers to be read; None where that would only repeat what the network showed as *stored*."""
        is_same = (self.network.names, self.layouts) == (stored.as_stored, stored.conventions[0])
        # What could not be aligned reads as it is stored, but for layers that could only be read so.
        if stored.as_stored and ((is_same and self.alignment.changes_nothing) or not self.alignment.is_found):
            return None
        return self.layers({name: reference.shape(name) for name in self.network.names})


def best_order(
    suspect: Checkpoint,
    network: Network,
    reference: AnyReference,
    groups: Sequence[ChannelGroup],
    *,
    networks: int = 1,
    thorough: bool = False,
) -> Ordered:
    """Align a network, its tensors read and paired in the way in which it resembles the reference most.

    All ways to read it share what it is worth.

    Args:
        suspect: The checkpoint.
        network: The network, as it was found.
        reference: The unmarked ticket.
        groups: Channel groups of the reference's layers that the commitment binds.
        networks: How many networks the suspect has.
        thorough: Look at all layers, even where a few of them show nothing of the reference, and for as long as if this
            were the only network.

    Raises:
        FileError: The file is gone or has changed.
    """
    shapes = {name: reference.mask.shape(name) for name in network.names}
    few = few_layers(shapes, {name: reference.mask.count(name) for name in shapes}, groups)
    is_whole = len(few) == len(shapes)
    shares = (1 if thorough else min(networks, MOST_SHARES)) * (1 if is_whole else 2)

    def budget(layers: Iterable[str]) -> Budget:
        stored = {name: suspect.shape(network.names[name]) for name in layers}
        return Budget.of({name: shapes[name] for name in layers}, stored, shares=shares)

    ordering = _Ordering(suspect=suspect, reference=reference, groups=groups, budget=budget(shapes))
    if is_whole:
        return ordering.best(network)
    part = dataclasses.replace(ordering, reference=reference.only(few), budget=budget(few), is_part=True)
    first = part.best(network.only(few))
    if first.alignment.is_traced:
        return ordering.continued(network, first)
    if thorough:
        return ordering.best(network)
    unmoved = dataclasses.replace(first.alignment, streams=(), orders=(), turn=UNTURNED, is_part=True)
    return Ordered(suspect=suspect, network=network, layouts=network.conventions[0], alignment=unmoved)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Ordering:
    """What is compared.

    Attributes:
        suspect: The checkpoint.
        reference: The unmarked ticket, or some of its layers.
        groups: Channel groups.
        budget: Work that is left for all of it.
        is_part: Whether these are a few layers of a larger network.
    """

    suspect: Checkpoint
    reference: AnyReference
    groups: Sequence[ChannelGroup]
    budget: Budget
    is_part: bool = False

    def best(self, network: Network) -> Ordered:
        """Align a network, its tensors read and paired in the way in which it resembles the reference most."""
        network = with_clear_layouts(self.suspect, self.reference, network)
        best = self._aligned(network)
        shapes = {name: self.reference.mask.shape(name) for name in self.reference.mask}
        for _ in range(MOST_PAIRINGS):
            # A layer that nothing was paired with may be what another one is taken for.
            if best.alignment.is_clear and not (best.network.match.missing or best.network.match.wrong_shapes):
                break
            view = best.view(shapes) if best.alignment.is_found else None
            blocks = blocks_of(self.groups)
            anew = paired_anew(
                self.suspect, self.reference, best.network, blocks=blocks, view=view, is_part=self.is_part
            )
            if anew is None:
                break
            other = self._aligned(anew)
            if other.alignment.surplus <= best.alignment.surplus:
                break
            best = other
        # Whatever was cut short after the best was found might have been better.
        alignment = dataclasses.replace(best.alignment, complete=self.budget.kept)
        return dataclasses.replace(best, alignment=alignment)

    def continued(self, network: Network, first: Ordered) -> Ordered:
        """Align a network of which some layers were ordered *first*."""
        agreeing = network
        if any(network.names[layer] != name for layer, name in first.network.names.items()):
            blocks = blocks_of(self.groups)
            agreeing = paired_anew(self.suspect, self.reference, network, blocks=blocks) or network
        likeliest = max(
            self._likeliest_first(agreeing),
            key=lambda layouts: sum(layouts.get(layer) == layout for layer, layout in first.layouts.items()),
        )
        found = self._in_layouts(agreeing, likeliest, start=first.alignment)
        if found.alignment.is_clear:
            return found
        best = self.best(network)
        return max(found, best, key=lambda ordered: ordered.alignment.surplus)

    def _aligned(self, network: Network) -> Ordered:
        """Align a network, in the layout in which it resembles the reference most."""
        best: Ordered | None = None
        for layouts in self._likeliest_first(network):
            found = self._in_layouts(network, layouts)
            if best is None or found.alignment.surplus > best.alignment.surplus:
                best = found
            if found.alignment.is_clear:
                break
        assert best is not None  # a match has a convention at least
        return best

    def _in_layouts(self, network: Network, layouts: Mapping[str, Layout], start: Alignment | None = None) -> Ordered:
        stored = Layers(read=self.suspect.weights, names=network.names, layouts=layouts)
        alignment = align(stored, self.reference, self.groups, budget=self.budget, start=start, is_part=self.is_part)
        return Ordered(suspect=self.suspect, network=network, layouts=layouts, alignment=alignment)

    def _likeliest_first(self, network: Network) -> list[Mapping[str, Layout]]:
        """Return a network's conventions, those first in which most axes of a group have one number of channels."""
        wanted = {name: self.reference.mask.shape(name) for name in network.names}

        def streams(layouts: Mapping[str, Layout]) -> int:
            found = {name: layouts[name].shape for name in network.names}
            return len(loosened_streams(self.groups, wanted, found))

        return sorted(network.conventions, key=streams)
