"""Channels in another order, hidden ones or those at a network's edge."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from ticketguard.graph.groups import ChannelGroup, IndexArray, check_fit, group_channels, permute
from ticketguard.graph.sides import whole_axis
from ticketguard.graph.transformation import Array, Description, State

Edge: TypeAlias = Literal["inputs", "outputs", "vocabulary"]

AROUND = {
    "inputs": "inputs are put into the new order before they go in",
    "outputs": "outputs are put back into the old order",
    "vocabulary": "token numbers are mapped into the new order, and the outputs for them back into the old one",
}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Permutation:
    """Channels permuted within their groups; groups may overlap, as attention heads and the dimensions inside them do.

    Attributes:
        groups: The channel groups.
        orders: One per group; channel ``c`` becomes what channel ``orders[g][c]`` was.
    """

    groups: tuple[ChannelGroup, ...]
    orders: tuple[IndexArray, ...]

    @classmethod
    def drawn(cls, state: State, groups: Sequence[ChannelGroup], *, generator: np.random.Generator) -> Permutation:
        """Draw one order per group, uniformly.

        Raises:
            ValueError: The groups do not fit *state*.
        """
        check_fit(groups, {name: array.shape for name, array in state.items()})
        orders = tuple(generator.permutation(group_channels(group)).astype(np.int64) for group in groups)
        return cls(groups=tuple(groups), orders=orders)

    @property
    def description(self) -> Description:
        """Say what it is."""
        return Description(name="channels permuted", does="the channels of every group change places", exact=True)

    def apply(self, state: State) -> dict[str, Array]:
        """Return *state* with its channels in the new order."""
        return permute(state, self.groups, self.orders)

    def undo(self, state: State) -> dict[str, Array]:
        """Return *state* with its channels in the old order."""
        return permute(state, self.groups[::-1], [np.argsort(order) for order in self.orders[::-1]])


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class EdgePermutation:
    """Input features or channels, classes or a vocabulary in another order, and a wrapper around the model.

    Attributes:
        group: Where the inputs are taken, the outputs made, or both.
        order: Input (output) ``c`` of the changed model is the old model's ``order[c]``.
        edge: Which edge of the network this is.
    """

    group: ChannelGroup
    order: IndexArray
    edge: Edge

    @classmethod
    def drawn(
        cls, state: State, layers: Sequence[str], *, edge: Edge, generator: np.random.Generator, block: int = 1
    ) -> EdgePermutation:
        """Draw an order, uniformly.

        Args:
            state: The network's tensors.
            layers: Names of the tensors: the first layers' weights, which take inputs on axis 1; the last layers'
                weights and biases, which make outputs on axis 0; embeddings, and the layer that turns features into
                tokens, which have the vocabulary on axis 0.
            edge: Which edge of the network this is.
            generator: Source of the order.
            block: Positions that move together.

        Raises:
            ValueError: A layer's axis is not a number of blocks, or layers disagree on how many.
        """
        axis = 1 if edge == "inputs" else 0
        group = tuple(whole_axis(state, layer, axis, block=block) for layer in layers)
        if len({member.channels for member in group}) != 1:
            raise ValueError(f"{list(layers)} have different numbers of {edge}")
        return cls(group=group, order=generator.permutation(group_channels(group)).astype(np.int64), edge=edge)

    @property
    def description(self) -> Description:
        """Say what it is."""
        return Description(
            name=f"{self.edge} permuted",
            does=f"the network's {self.edge} change places",
            exact=True,
            around=AROUND[self.edge],
        )

    def apply(self, state: State) -> dict[str, Array]:
        """Return *state* with its edge in the new order."""
        return permute(state, [self.group], [self.order])

    def undo(self, state: State) -> dict[str, Array]:
        """Return *state* with its edge in the old order."""
        return permute(state, [self.group], [np.argsort(self.order)])
