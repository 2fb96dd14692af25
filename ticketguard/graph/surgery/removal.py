"""Channels removed: at random, or the least of a score; and all that touches them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np

from ticketguard.graph.groups import ChannelGroup, IndexArray, check_fit, group_channels
from ticketguard.graph.sides import makes, moved_groups, sides_of
from ticketguard.graph.transformation import Array, Description, Floats, State


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Removal:
    """Channels removed from every tensor that their groups touch.

    Attributes:
        groups: The channel groups, as they are before.
        kept: One per group: the channels that stay, ascending.
    """

    groups: tuple[ChannelGroup, ...]
    kept: tuple[IndexArray, ...]

    @classmethod
    def drawn(
        cls, state: State, groups: Sequence[ChannelGroup], *, share: float, generator: np.random.Generator
    ) -> Removal:
        """Remove a *share* of each group's channels at random; one at least stays."""
        scores = [generator.random(group_channels(group)) for group in groups]
        return cls.by_score(state, groups, scores, share=share)

    @classmethod
    def by_score(
        cls, state: State, groups: Sequence[ChannelGroup], scores: Sequence[Floats], *, share: float
    ) -> Removal:
        """Remove the *share* of each group's channels that has the lowest scores; one at least stays.

        Args:
            state: The network's tensors.
            groups: Channel groups.
            scores: One array per group, shape (channels,); see `magnitudes`.
            share: Share to remove, in [0, 1].

        Raises:
            ValueError: The groups do not fit *state*, or a share or number of scores is out of range.
        """
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"share is {share}, expected 0 to 1")
        check_fit(groups, {name: array.shape for name, array in state.items()})
        kept = []
        for group, score in zip(groups, scores, strict=True):
            channels = group_channels(group)
            if score.shape != (channels,):
                raise ValueError(f"scores of shape {score.shape} for {channels} channels")
            kept.append(np.sort(np.argsort(-score, kind="stable")[: max(1, round((1.0 - share) * channels))]))
        return cls(groups=tuple(groups), kept=tuple(kept))

    @property
    def description(self) -> Description:
        """Say what it is."""
        return Description(
            name="channels removed",
            does="some channels of every group go, and all that made, took or shifted them",
            exact=False,
            around="the model is built with fewer channels; what pads or splits them by number changes with them",
        )

    def removed(self) -> tuple[IndexArray, ...]:
        """Return, per group, the channels that go."""
        return tuple(
            np.setdiff1d(np.arange(group_channels(group)), kept)
            for group, kept in zip(self.groups, self.kept, strict=True)
        )

    def apply(self, state: State) -> dict[str, Array]:
        """Return *state* without the channels."""
        result = dict(state)
        for (tensor, axis), places in self.kept_places(state).items():
            result[tensor] = np.take(result[tensor], places, axis=axis)
        return result

    def groups_after(self, state: State, groups: Sequence[ChannelGroup] | None = None) -> tuple[ChannelGroup, ...]:
        """Return *groups*, or those given at the start, as they lie in the state after; *state* is the one before."""
        moves = {}
        for (tensor, axis), places in self.kept_places(state).items():
            move = np.full(state[tensor].shape[axis], -1, dtype=np.int64)
            move[places] = np.arange(len(places))
            moves[tensor, axis] = move
        return moved_groups(self.groups if groups is None else groups, moves)

    def kept_places(self, state: State) -> dict[tuple[str, int], IndexArray]:
        """Return the positions that stay, for every axis of *state* that loses some or could have."""
        stays: dict[tuple[str, int], Array] = {}
        for group, gone in zip(self.groups, self.removed(), strict=True):
            for side in sides_of(group, state):
                size = state[side.tensor].shape[side.axis]
                stays.setdefault((side.tensor, side.axis), np.ones(size, dtype=np.bool_))[side.positions()[gone]] = (
                    False
                )
        return {axis: np.flatnonzero(kept) for axis, kept in stays.items()}


def magnitudes(state: State, groups: Sequence[ChannelGroup], *, inward: Collection[str] = ()) -> tuple[Floats, ...]:
    """Return, per group, the L1 norm of the weights that make each channel.

    Li et al. 2017, "Pruning Filters for Efficient ConvNets", §3.1.
    """
    scores = []
    for group in groups:
        score = np.zeros(group_channels(group))
        for side in sides_of(group, state):
            if makes(side, state, inward):
                rows = np.moveaxis(np.abs(state[side.tensor].astype(np.float64)), side.axis, 0)
                score += rows.reshape(len(rows), -1).sum(axis=1)[side.positions()].sum(axis=1)
        scores.append(score)
    return tuple(scores)
