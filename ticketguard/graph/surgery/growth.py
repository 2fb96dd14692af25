"""New channels put among a group's old ones, and taken out again: what every added neuron has in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ticketguard.graph.groups import ChannelGroup, GroupMember, IndexArray, group_channels
from ticketguard.graph.sides import Side, member_at, moved_groups, sides_of
from ticketguard.graph.transformation import Array, State


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Growth:
    """Where new channels of one group go.

    Attributes:
        group: The channel group, as it is before.
        places: The old channel in front of which each new one goes, ascending; the number of channels for what goes
            behind the last.
    """

    group: ChannelGroup
    places: IndexArray

    @classmethod
    def drawn(cls, group: ChannelGroup, count: int, *, generator: np.random.Generator) -> Growth:
        """Draw places for *count* new channels, uniformly among all orders that keep the old channels' order."""
        channels = group_channels(group)
        chosen = np.sort(generator.choice(channels + count, count, replace=False))
        return cls(group=group, places=chosen - np.arange(count))

    @property
    def count(self) -> int:
        """Number of new channels."""
        return len(self.places)

    def sides(self, state: State) -> tuple[Side, ...]:
        """Return what the group has in *state*."""
        return sides_of(self.group, state)

    def insert(self, array: Array, side: Side, slices: Array) -> Array:
        """Return *array* with the slices of new channels, shape (..., count · blocks, ...) along the side's axis."""
        return np.insert(array, self._gaps(side), slices, axis=side.axis)

    def new_places(self, side: Side) -> IndexArray:
        """Return where the new channels' positions are after, shape (count, blocks)."""
        gaps = self._gaps(side)
        after = np.empty_like(gaps)
        order = np.argsort(gaps, kind="stable")
        after[order] = gaps[order] + np.arange(len(gaps))
        return after.reshape(self.count, -1)

    def delete(self, array: Array, side: Side) -> Array:
        """Return *array* without the new channels."""
        return np.delete(array, self.new_places(side).reshape(-1), axis=side.axis)

    def _gaps(self, side: Side) -> IndexArray:
        gaps = []
        for member in side.members:
            positions = member.positions()
            fronts = np.append(positions[:, 0], positions[-1, -1] + 1)[self.places]
            gaps.append(np.repeat(fronts[:, None], member.block, axis=1))
        return np.concatenate(gaps, axis=1).reshape(-1)

    def groups_after(self, state: State, groups: Sequence[ChannelGroup]) -> tuple[ChannelGroup, ...]:
        """Return *groups* as they lie in the state after; *state* is the one before."""
        moves = {}
        for side in self.sides(state):
            size = state[side.tensor].shape[side.axis]
            new = self.new_places(side)
            moves[side.tensor, side.axis] = np.setdiff1d(np.arange(size + new.size), new)
        moved = moved_groups(groups, moves)
        return tuple(
            self._grown(state, after) if before == self.group else after
            for before, after in zip(groups, moved, strict=True)
        )

    def _grown(self, state: State, moved: ChannelGroup) -> ChannelGroup:
        """Return the group with its new channels, all in the order in which they lie."""
        old = np.arange(group_channels(moved))
        order = np.insert(old, self.places, len(old) + np.arange(self.count))
        after = dict(zip(self.group, moved, strict=True))
        grown: dict[GroupMember, GroupMember] = {}
        for side in self.sides(state):
            new = np.split(self.new_places(side), np.cumsum(side.blocks)[:-1], axis=1)
            for member, places in zip(side.members, new, strict=True):
                positions = np.concatenate([after[member].positions(), places])[order]
                grown[member] = member_at(member, positions)
        # Tensors that the network does not have, such as biases, have no new channels either.
        return tuple(grown[member] for member in self.group if member in grown)


def resampled(array: Array, side: Side, count: int, generator: np.random.Generator) -> Array:
    """Draw *count* channels' slices of a side from the entries that *array* has: as dense, and as large."""
    shape = list(array.shape)
    shape[side.axis] = count * sum(side.blocks)
    return generator.choice(array.reshape(-1), shape)
