"""Neurons added to a group: dead ones, pairs that cancel each other, and copies that share what goes out."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ticketguard.graph.groups import ChannelGroup, IndexArray, group_channels
from ticketguard.graph.sides import Norm, Role, role_of, takes
from ticketguard.graph.surgery.growth import Growth, resampled
from ticketguard.graph.transformation import Array, Description, Floats, State, along, like

# A copy takes at least this share of what goes out, so that neither neuron looks dead.
SMALLEST_SHARE = 0.2
WIDER = "the model is built with more channels"


DEAD = Description(name="dead neurons", does="neurons are added that take but do not give", exact=True, around=WIDER)
CANCELLING = Description(
    name="cancelling neurons",
    does="pairs of equal neurons are added whose outgoing weights are each other's negative",
    exact=True,
    around=WIDER,
)
SILENT = Description(
    name="silent neurons",
    does="neurons are added that are never above zero, where a ReLU lets nothing else through",
    exact=True,
    around=WIDER,
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class NewNeurons:
    """Neurons added to a group, so that all of them together give nothing.

    Attributes:
        growth: Where they go.
        slices: By tensor and axis, their part of it, along that axis.
        description: What they are.
    """

    growth: Growth
    slices: Mapping[tuple[str, int], Array]
    description: Description

    @classmethod
    def dead(
        cls,
        state: State,
        group: ChannelGroup,
        *,
        count: int = 1,
        generator: np.random.Generator,
        inward: Collection[str] = (),
    ) -> NewNeurons:
        """Draw *count* neurons that nobody takes from; each tensor's new entries are drawn from its old ones."""
        growth = Growth.drawn(group, count, generator=generator)
        slices: dict[tuple[str, int], Array] = {}
        current = dict(state)
        for side in growth.sides(state):
            drawn = resampled(current[side.tensor], side, count, generator)
            slices[side.tensor, side.axis] = np.zeros_like(drawn) if takes(side, state, inward) else drawn
            current[side.tensor] = growth.insert(current[side.tensor], side, slices[side.tensor, side.axis])
        return cls(growth=growth, slices=slices, description=DEAD)

    @classmethod
    def cancelling(
        cls,
        state: State,
        group: ChannelGroup,
        *,
        pairs: int = 1,
        generator: np.random.Generator,
        inward: Collection[str] = (),
    ) -> NewNeurons:
        """Draw *pairs* of equal neurons, one of which takes away what the other gives, each at a place of its own.

        Each tensor's new entries are drawn from its old ones.
        """
        growth = Growth.drawn(group, 2 * pairs, generator=generator)
        order = generator.permutation(2 * pairs)
        pair, signs = order // 2, 1 - 2 * (order % 2)
        slices: dict[tuple[str, int], Array] = {}
        current = dict(state)
        for side in growth.sides(state):
            blocks = sum(side.blocks)
            both = (pair[:, None] * blocks + np.arange(blocks)).reshape(-1)
            drawn = np.take(resampled(current[side.tensor], side, pairs, generator), both, axis=side.axis)
            if takes(side, state, inward):
                drawn = like(drawn, drawn * along(drawn, side.axis, np.repeat(signs, blocks)))
            slices[side.tensor, side.axis] = drawn
            current[side.tensor] = growth.insert(current[side.tensor], side, drawn)
        return cls(growth=growth, slices=slices, description=CANCELLING)

    @classmethod
    def silent(
        cls,
        state: State,
        group: ChannelGroup,
        *,
        count: int = 1,
        generator: np.random.Generator,
        norms: Sequence[Norm] = (),
        inward: Collection[str] = (),
    ) -> NewNeurons:
        """Draw *count* neurons that others take from, but that are never above zero: exact behind a ReLU.

        Behind a norm they take from others as well, and the norm multiplies by zero. Other new entries are drawn from
        each tensor's old ones.

        Args:
            state: The network's tensors.
            group: Where they go.
            count: How many.
            generator: Source of the draws.
            norms: Which norm follows which layer; see `norms_of`.
            inward: Weights laid out (in, out).

        Raises:
            ValueError: A norm of the group follows none of its layers.
        """
        growth = Growth.drawn(group, count, generator=generator)
        slices: dict[tuple[str, int], Array] = {}
        current = dict(state)
        for side in growth.sides(state):
            drawn = resampled(current[side.tensor], side, count, generator)
            role, is_normalised = role_of(side, state, norms, inward)
            if role is Role.SHIFT or (role is Role.BIAS and not is_normalised):
                drawn = -np.abs(drawn)
            elif role is Role.SCALE or (role is Role.MAKES and not is_normalised):
                drawn = np.zeros_like(drawn)
            slices[side.tensor, side.axis] = drawn
            current[side.tensor] = growth.insert(current[side.tensor], side, drawn)
        return cls(growth=growth, slices=slices, description=SILENT)

    def apply(self, state: State) -> dict[str, Array]:
        """Return *state* with the neurons."""
        result = dict(state)
        for side in self.growth.sides(state):
            slices = self.slices[side.tensor, side.axis]
            result[side.tensor] = self.growth.insert(result[side.tensor], side, slices)
        return result

    def undo(self, state: State) -> dict[str, Array]:
        """Return *state* without the neurons."""
        result = dict(state)
        for side in self.growth.sides(state):
            result[side.tensor] = self.growth.delete(result[side.tensor], side)
        return result


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SplitNeurons:
    """Copies of neurons, each of which takes over a share of what its source gave (Chen et al. 2016, "Net2Net", §2.2).

    Attributes:
        growth: Where the copies go.
        sources: The old channel that each one copies, no channel twice.
        shares: Share of the outgoing weights that goes to each copy.
        inward: Weights laid out (in, out).
    """

    growth: Growth
    sources: IndexArray
    shares: Floats
    inward: tuple[str, ...] = ()

    @classmethod
    def drawn(
        cls,
        state: State,
        group: ChannelGroup,
        *,
        count: int = 1,
        share: float | None = None,
        generator: np.random.Generator,
        inward: Collection[str] = (),
    ) -> SplitNeurons:
        """Draw *count* neurons to split.

        Args:
            state: The network's tensors.
            group: Where they are.
            count: How many, at most all of the group's.
            share: What each copy takes over; drawn for each where not given. One half makes twins.
            generator: Source of the draws.
            inward: Weights laid out (in, out).
        """
        growth = Growth.drawn(group, count, generator=generator)
        sources = generator.choice(group_channels(group), count, replace=False)
        drawn = generator.uniform(SMALLEST_SHARE, 1.0 - SMALLEST_SHARE, count)
        shares = drawn if share is None else np.full(count, share)
        return cls(growth=growth, sources=sources, shares=shares, inward=tuple(inward))

    @property
    def description(self) -> Description:
        """Say what it is."""
        return Description(
            name="neurons split",
            does="neurons are copied and share what goes out with the copy",
            exact=True,
            around=WIDER,
        )

    def apply(self, state: State) -> dict[str, Array]:
        """Return *state* with the copies."""
        result = dict(state)
        for side in self.growth.sides(state):
            array = result[side.tensor]
            places = side.positions()[self.sources].reshape(-1)
            copies = np.take(array, places, axis=side.axis)
            if takes(side, state, self.inward):
                shares = along(array, side.axis, np.repeat(self.shares, sum(side.blocks)))
                array = _replaced(array, side.axis, places, like(array, copies * (1.0 - shares)))
                copies = like(array, copies * shares)
            result[side.tensor] = self.growth.insert(array, side, copies)
        return result

    def undo(self, state: State) -> dict[str, Array]:
        """Return *state* without the copies."""
        result = dict(state)
        for side in self.growth.sides(state):
            array = result[side.tensor]
            copies = np.take(array, self.growth.new_places(side).reshape(-1), axis=side.axis)
            array = self.growth.delete(array, side)
            if takes(side, state, self.inward):
                places = side.positions()[self.sources].reshape(-1)
                array = _replaced(array, side.axis, places, np.take(array, places, axis=side.axis) + copies)
            result[side.tensor] = array
        return result


def _replaced(array: Array, axis: int, places: IndexArray, slices: Array) -> Array:
    """Return *array* with other slices at some *places* of an axis."""
    result = array.copy()
    np.moveaxis(result, axis, 0)[places] = np.moveaxis(slices, axis, 0)
    return result
