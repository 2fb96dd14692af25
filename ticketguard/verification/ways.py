"""Whether tensors that may be blocks of a layer are joined.

A thief can name whole layers, or one and something that no program reads, as if they were blocks of another layer. The
reference says which it is, so it is no other look: nothing here sees a key.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable, Sequence

from ticketguard.checkpoints.checkpoints import Checkpoint
from ticketguard.errors import UnverifiableError
from ticketguard.graph import ChannelGroup
from ticketguard.ticket import AnyReference
from ticketguard.verification.networks import Networks, blocks_of, find_networks
from ticketguard.verification.ordering import Ordered, best_order


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
    """A way to read a suspect.

    Attributes:
        suspect: The checkpoint, its blocks joined or not.
        found: Its networks.
        reference: The unmarked ticket.
        groups: Channel groups of the reference's layers that the commitment binds.
        thorough: Look for an order of channels in all layers.
    """

    suspect: Checkpoint
    found: Networks
    reference: AnyReference
    groups: Sequence[ChannelGroup]
    thorough: bool

    @functools.cached_property
    def orders(self) -> tuple[Ordered, ...]:
        """Each network in the order in which it resembles the reference most."""
        return tuple(
            best_order(
                self.suspect,
                network,
                self.reference,
                self.groups,
                networks=len(self.found.readable),
                thorough=self.thorough,
            )
            for network in self.found.readable
        )

    @property
    def surplus(self) -> float:
        """Held-out edges that the network which resembles the reference most shares with it beyond chance."""
        return max(ordered.alignment.surplus for ordered in self.orders)


def joined_or_not(
    suspect: Checkpoint, reference: AnyReference, groups: Sequence[ChannelGroup]
) -> tuple[Checkpoint, ...]:
    """Return a suspect with its blocks joined and as it is stored; only the latter if it has none.

    Raises:
        UnverifiableError: Too many networks fit.
    """
    shapes = {name: reference.mask.shape(name) for name in reference.mask}
    joined = suspect.joined(shapes, blocks=blocks_of(groups))
    return (suspect,) if joined is suspect else (joined, suspect)


def ways_to_read(
    suspect: Checkpoint, reference: AnyReference, groups: Sequence[ChannelGroup], *, thorough: bool = False
) -> tuple[Way, ...]:
    """Find the ways to read a suspect, one at least, in none of which it was aligned yet.

    Args:
        suspect: The checkpoint.
        reference: The unmarked ticket.
        groups: Channel groups of the reference's layers that the commitment binds.
        thorough: Look for an order of channels in all layers.

    Raises:
        UnverifiableError: It shares no layer with the reference that can be read, or too many networks fit.
        FileError: The file is gone or has changed.
    """
    ways: list[Way] = []
    errors: list[UnverifiableError] = []
    for one in joined_or_not(suspect, reference, groups):
        try:
            found = find_networks(one, reference, blocks=blocks_of(groups))
        except UnverifiableError as error:
            errors.append(error)
        else:
            ways.append(Way(suspect=one, found=found, reference=reference, groups=groups, thorough=thorough))
    if not ways:
        raise errors[0]
    return tuple(ways)


def likeliest_way(
    suspect: Checkpoint, reference: AnyReference, groups: Sequence[ChannelGroup], *, thorough: bool = False
) -> Way:
    """Return the way in which a suspect resembles the reference most; one alone needs no alignment to say so.

    Its arguments, and what it raises, are those of `ways_to_read`.
    """
    ways = ways_to_read(suspect, reference, groups, thorough=thorough)
    return ways[0] if len(ways) == 1 else max(ways, key=lambda way: way.surplus)


class FoundWays:
    """The likeliest ways to read suspects, each found and aligned once, whichever mark asks first.

    Alignment is most of what a verification costs. A way keeps its suspect's file open: this lives as long as the
    verdict that it was made for.
    """

    def __init__(self) -> None:
        # A suspect is itself; references and groups are what they hold.
        self._found: dict[Hashable, Way] = {}

    def likeliest(
        self,
        suspect: Checkpoint,
        reference: AnyReference,
        groups: Sequence[ChannelGroup],
        *,
        reference_digest: bytes,
        thorough: bool,
    ) -> Way:
        """Return the `likeliest_way`.

        Args:
            suspect: The checkpoint.
            reference: The unmarked ticket, or the start weights.
            groups: Channel groups of the reference's layers that the commitment binds.
            reference_digest: Of *reference*.
            thorough: Look for an order of channels in all layers.

        Raises:
            UnverifiableError, FileError: As `ways_to_read`.
        """
        key = (suspect, reference_digest, tuple(groups), thorough)
        if key not in self._found:
            self._found[key] = likeliest_way(suspect, reference, groups, thorough=thorough)
        return self._found[key]
