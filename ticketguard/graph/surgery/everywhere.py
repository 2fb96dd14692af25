"""Neurons added in every group of a network; cliques, whose neurons know each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import numpy as np

from ticketguard.graph.groups import ChannelGroup, IndexArray
from ticketguard.graph.sides import sides_of
from ticketguard.graph.surgery.growth import Growth
from ticketguard.graph.surgery.neurons import NewNeurons
from ticketguard.graph.transformation import Array, Chain, Description, State, Symmetry, like


class Added(Symmetry, Protocol):
    """Neurons added to one group."""

    @property
    def growth(self) -> Growth:
        """Where they go."""
        ...


def in_every_group(
    state: State, groups: Sequence[ChannelGroup], draw: Callable[[State, ChannelGroup], Added]
) -> tuple[Chain, tuple[ChannelGroup, ...]]:
    """Add neurons to one group after the other; return the additions, and the groups as they lie afterwards.

    Args:
        state: The network's tensors.
        groups: Channel groups.
        draw: Gives the neurons of one group; it is called with the state as it is by then.
    """
    current, now = dict(state), tuple(groups)
    steps = []
    for index in range(len(now)):
        added = draw(current, now[index])
        steps.append(added)
        now, current = added.growth.groups_after(current, now), added.apply(current)
    return Chain(steps=tuple(steps)), now


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Clique:
    """Dead neurons in several groups that give to each other, so that none of them looks dead.

    Attributes:
        neurons: The dead neurons.
        edges: By tensor, what the neurons give each other: places on both axes, and the weights,
            shape (given to, given by, *kernel).
        groups: The channel groups as they lie with the neurons.
    """

    neurons: Chain
    edges: dict[str, tuple[IndexArray, IndexArray, Array]]
    groups: tuple[ChannelGroup, ...]

    @classmethod
    def drawn(
        cls,
        state: State,
        groups: Sequence[ChannelGroup],
        *,
        count: int = 1,
        generator: np.random.Generator,
        inward: Collection[str] = (),
    ) -> Clique:
        """Draw *count* neurons for every group, and the edges among them from each tensor's old entries."""
        new: dict[tuple[str, int], Array] = {}

        def draw(current: State, group: ChannelGroup) -> NewNeurons:
            neurons = NewNeurons.dead(current, group, count=count, generator=generator, inward=inward)
            for side in sides_of(group, current):
                key, size = (side.tensor, side.axis), current[side.tensor].shape[side.axis]
                is_new = np.ones(size + neurons.growth.new_places(side).size, dtype=np.bool_)
                is_new[np.setdiff1d(np.arange(is_new.size), neurons.growth.new_places(side))] = new.get(
                    key, np.zeros(size, dtype=np.bool_)
                )
                new[key] = is_new
            return neurons

        chain, after = in_every_group(state, groups, draw)
        edges = {}
        for name, axis in new:
            if axis == 1 and (name, 0) in new:
                rows, columns = np.flatnonzero(new[name, 0]), np.flatnonzero(new[name, 1])
                shape = (len(rows), len(columns), *state[name].shape[2:])
                edges[name] = rows, columns, generator.choice(state[name].reshape(-1), shape)
        return cls(neurons=chain, edges=edges, groups=after)

    @property
    def description(self) -> Description:
        """Say what it is."""
        does = "neurons are added that give to each other and to nobody else"
        return dataclasses.replace(self.neurons.description, name="clique of neurons", does=does)

    def apply(self, state: State) -> dict[str, Array]:
        """Return *state* with the clique."""
        result = self.neurons.apply(state)
        for name, (rows, columns, weights) in self.edges.items():
            if name in result:
                result[name] = result[name].copy()
                result[name][np.ix_(rows, columns)] = like(result[name], weights)
        return result

    def undo(self, state: State) -> dict[str, Array]:
        """Return *state* without the clique."""
        return self.neurons.undo(state)
