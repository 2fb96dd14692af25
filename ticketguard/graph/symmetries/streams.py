"""Residual streams in another order, stage by stage: what a shortcut that pads becomes when it picks by an index."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ticketguard.graph.groups import ChannelGroup, GroupMember, IndexArray
from ticketguard.graph.sides import whole_axis
from ticketguard.graph.symmetries.permutation import Permutation
from ticketguard.graph.transformation import Array, Description, State


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Shortcut:
    """A shortcut from one residual stream into the next: which channel it reads for each that it feeds.

    Attributes:
        given: Number of the stream that it reads.
        made: Number of the stream that it feeds.
        index: Per channel of *made* the channel of *given* that is added to it, -1 for zeros.
        tensor: Name of the tensor that holds the index, where the network has one.
    """

    given: int
    made: int
    index: IndexArray
    tensor: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class StreamPermutation:
    """Residual streams permuted each for itself, although shortcuts without weights lead from one into the next.

    Attributes:
        streams: The streams' permutation, one group per stage.
        shortcuts: The shortcuts between stages, as they are before.
    """

    streams: Permutation
    shortcuts: tuple[Shortcut, ...] = ()

    @classmethod
    def drawn(
        cls,
        state: State,
        groups: Sequence[ChannelGroup],
        *,
        generator: np.random.Generator,
        shortcuts: Sequence[Shortcut] = (),
    ) -> StreamPermutation:
        """Draw one order for each stage's stream; see `streams_of` for which groups these are."""
        return cls(
            streams=Permutation.drawn(state, groups, generator=generator),
            shortcuts=tuple(shortcuts),
        )

    @property
    def description(self) -> Description:
        """Say what it is."""
        return Description(
            name="residual streams permuted",
            does="each stage's residual stream gets an order of its own",
            exact=True,
            around="a shortcut between two stages picks channels by an index where it padded or cut",
        )

    def indices(self) -> tuple[IndexArray, ...]:
        """Return the shortcuts' indices as they are after."""
        return tuple(self._index(shortcut) for shortcut in self.shortcuts)

    def _index(self, shortcut: Shortcut) -> IndexArray:
        # Behind the last place stands -1, so that zeros stay zeros.
        places = np.append(np.argsort(self.streams.orders[shortcut.given]), -1)
        return np.asarray(places[shortcut.index[self.streams.orders[shortcut.made]]], dtype=np.int64)

    def apply(self, state: State) -> dict[str, Array]:
        """Return *state* with its streams, and its shortcuts' indices, in the new order."""
        return self._with_indices(self.streams.apply(state), self.indices())

    def undo(self, state: State) -> dict[str, Array]:
        """Return *state* with its streams, and its shortcuts' indices, in the old order."""
        return self._with_indices(self.streams.undo(state), [shortcut.index for shortcut in self.shortcuts])

    def _with_indices(self, state: dict[str, Array], indices: Sequence[IndexArray]) -> dict[str, Array]:
        for shortcut, index in zip(self.shortcuts, indices, strict=True):
            if shortcut.tensor in state:
                state[shortcut.tensor] = index.astype(state[shortcut.tensor].dtype)
        return state


def streams_of(state: State, groups: Sequence[ChannelGroup]) -> tuple[ChannelGroup, ...]:
    """Return the residual streams of a network whose shortcuts pad, one group of whole axes per stage.

    Groups of such a network hold their channels in several stages, at different places: axes of equal length that
    share a group are one stream. A group that fills every axis it is on lies inside a block and is left out.
    """
    stage: dict[tuple[str, int], list[tuple[str, int]]] = {}
    for group in groups:
        here = [member for member in group if member.tensor in state]
        if all(_fills(member, state) for member in here):
            continue
        axes = {(member.tensor, member.axis) for member in here}
        for size in {state[tensor].shape[axis] for tensor, axis in axes}:
            alike = [(tensor, axis) for tensor, axis in axes if state[tensor].shape[axis] == size]
            joined = sorted({place for one in alike for place in stage.get(one, [one])})
            stage.update(dict.fromkeys(joined, joined))
    streams = sorted({tuple(axes) for axes in stage.values()})
    return tuple(tuple(whole_axis(state, tensor, axis) for tensor, axis in axes) for axes in streams)


def _fills(member: GroupMember, state: State) -> bool:
    return bool(member.block * member.channels == state[member.tensor].shape[member.axis])


def shortcut_index(state: State, groups: Sequence[ChannelGroup], *, given: str, made: str) -> IndexArray:
    """Return what a shortcut between two residual streams picks: per channel made the channel given, -1 for none.

    Args:
        state: The network's tensors.
        groups: Channel groups of the network with a shortcut that pads, as they lie in *state*.
        given: A tensor whose axis 0 runs over the stream that the shortcut reads, such as a batch norm's scale.
        made: One whose axis 0 runs over the stream that it feeds.
    """
    index = np.full(state[made].shape[0], -1, dtype=np.int64)
    for group in groups:
        at = {member.tensor: member.positions()[:, 0] for member in group if member.axis == 0}
        if given in at and made in at:
            index[at[made]] = at[given]
    return index
