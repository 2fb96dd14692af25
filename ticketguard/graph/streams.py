"""Streams: the axes whose channels a suspect may hold in one other order, or in another number, than the reference.

A channel group says what can be permuted without changing the function of the network as it was built. A thief may
rebuild it: permute each stage of a residual network for itself and turn its shortcut into an index, permute inputs and
classes and wrap the model, reorder what is inside an attention head, cut channels away and add others. Streams are
the groups with these ties undone: axes that run over the same channels of the same groups belong together, and every
axis that is in no group is a stream of its own. They follow from the bound groups and from shapes alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from ticketguard.graph.groups import CHANNEL_AXES, ChannelGroup, GroupMember, group_channels

Shape = tuple[int, ...]
# Which channels of which group lie along an axis: (group, first channel, channels) in order; None for those of none.
_Along = tuple[tuple[int | None, int, int], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stream:
    """Axes that run over the same channels.

    Attributes:
        reference: Where the channels lie in the reference's tensors.
        suspect: Where they lie in the suspect's: the same tensors and axes, in the same order.
    """

    reference: ChannelGroup
    suspect: ChannelGroup

    @property
    def channels(self) -> int:
        """Channels that the reference has."""
        return group_channels(self.reference)

    @property
    def suspect_channels(self) -> int:
        """Channels that the suspect has."""
        return group_channels(self.suspect)

    @property
    def pairs(self) -> Iterator[tuple[GroupMember, GroupMember]]:
        """What lies where in the reference and in the suspect."""
        return zip(self.reference, self.suspect, strict=True)


def bound_streams(
    groups: Sequence[ChannelGroup], reference: Mapping[str, Shape], suspect: Mapping[str, Shape]
) -> tuple[Stream, ...]:
    """Return the groups as they are, for a suspect of the reference's shapes.

    Args:
        groups: The channel groups.
        reference: Shapes of the reference's layers.
        suspect: Shapes of those that the suspect has; members in other layers are left out.
    """
    streams = []
    for group in groups:
        # A channel alone has nowhere to go.
        members = tuple(
            member
            for member in group
            if member.tensor in suspect and member.axis < len(reference[member.tensor]) and member.channels > 1
        )
        if members:
            streams.append(Stream(reference=members, suspect=members))
    return tuple(streams)


def loosened_streams(
    groups: Sequence[ChannelGroup], reference: Mapping[str, Shape], suspect: Mapping[str, Shape]
) -> tuple[Stream, ...]:
    """Return the streams of a suspect that may have been rebuilt.

    Args:
        groups: The channel groups.
        reference: Shapes of the reference's layers.
        suspect: Shapes of those that the suspect has.
    """
    along = _channels_along(groups, reference)
    alike: dict[tuple[object, ...], list[tuple[GroupMember, GroupMember]]] = {}
    for name in sorted(suspect):
        for axis, (size, found) in enumerate(
            zip(reference[name][:CHANNEL_AXES], suspect[name][:CHANNEL_AXES], strict=True)
        ):
            block, channels = along.get((name, axis), (1, ((None, 0, size),)))
            if found % block:
                block, channels = 1, ((None, 0, size),)
            free = channels[0][0] is None
            key = (name, axis) if free else (channels, found // block)
            member = GroupMember(tensor=name, axis=axis, block=block, runs=((0, size // block),))
            other = dataclasses.replace(member, runs=((0, found // block),))
            alike.setdefault(key, []).append((member, other))
    streams = []
    for members in alike.values():
        if len({member.block for member, _ in members}) == 1:
            members = [(_in_singles(one), _in_singles(other)) for one, other in members]
        stream = Stream(reference=tuple(one for one, _ in members), suspect=tuple(other for _, other in members))
        if stream.channels > 1 or stream.suspect_channels > 1:
            streams.append(stream)
    return tuple(streams)


def _channels_along(
    groups: Sequence[ChannelGroup], shapes: Mapping[str, Shape]
) -> dict[tuple[str, int], tuple[int, _Along]]:
    """Return, for each axis that groups fill with blocks of one size, that size and the channels in their order."""
    pieces: dict[tuple[str, int], list[tuple[int, int, int, int, int]]] = {}
    for index, group in enumerate(groups):
        for member in group:
            channel = 0
            for first, count in member.runs if member.tensor in shapes else ():
                piece = (first, count, member.block, index, channel)
                pieces.setdefault((member.tensor, member.axis), []).append(piece)
                channel += count
    along: dict[tuple[str, int], tuple[int, _Along]] = {}
    for (name, axis), found in pieces.items():
        blocks = {block for _, _, block, _, _ in found}
        block = min(blocks)
        filled = sum(count * block for _, count, block, _, _ in found)
        if len(blocks) == 1 and filled == shapes[name][axis]:
            along[name, axis] = (block, tuple((group, first, count) for _, count, _, group, first in sorted(found)))
    return along


def _in_singles(member: GroupMember) -> GroupMember:
    """Return blocks that every axis of a stream has, such as attention heads, as the channels they are made of."""
    return dataclasses.replace(member, block=1, runs=((0, member.block * member.channels),))
