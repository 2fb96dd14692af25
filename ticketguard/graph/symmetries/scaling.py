"""Channels multiplied where they are made and divided where they are taken."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ticketguard.graph.groups import ChannelGroup, group_channels
from ticketguard.graph.sides import Norm, Role, Side, role_of, sides_of
from ticketguard.graph.transformation import Array, Description, Floats, State, along, like

# Factors are drawn between its inverse and this: a channel is up to nine times another's size.
LARGEST_FACTOR = 3.0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scaling:
    """Axes of tensors multiplied, so that all factors that a channel meets on its way cancel.

    Attributes:
        factors: By tensor and axis, one factor per position.
        needs: What must hold for the function to stay the same.
    """

    factors: Mapping[tuple[str, int], Floats]
    needs: str = ""

    @classmethod
    def of(
        cls,
        state: State,
        groups: Sequence[ChannelGroup],
        factors: Sequence[Floats],
        *,
        norms: Sequence[Norm] = (),
        grouped: Collection[str] = (),
        inward: Collection[str] = (),
    ) -> Scaling:
        """Scale channels between the layers that make them and those that take them.

        Exact where what lies between is homogeneous: for positive factors ReLU, leaky ReLU, pooling, zero padding and
        sums; for factors of -1 odd functions such as tanh; for any the identity. A channel that is normalised is scaled
        by its norm's scale and shift.

        Args:
            state: The network's tensors.
            groups: Channel groups.
            factors: One array per group, shape (channels,).
            norms: Which norm follows which layer; see `norms_of`.
            grouped: Weights of grouped and depthwise convolutions, which take the channels that they make.
            inward: Weights laid out (in, out).

        Raises:
            ValueError: A norm of a group follows none of its layers, so that what enters it would be scaled.
        """
        result: dict[tuple[str, int], Floats] = {}
        for group, factor in zip(groups, factors, strict=True):
            for side in sides_of(group, state):
                power = _power(side, state, norms, grouped, inward)
                if power:
                    _multiply(result, side, state, factor**power)
        return cls(factors=result, needs="through functions that are homogeneous")

    @classmethod
    def drawn(
        cls,
        state: State,
        groups: Sequence[ChannelGroup],
        *,
        generator: np.random.Generator,
        signs: bool = False,
        norms: Sequence[Norm] = (),
        grouped: Collection[str] = (),
        inward: Collection[str] = (),
    ) -> Scaling:
        """Scale every channel by a factor drawn by `drawn_factors`; the rest is as for `of`."""
        factors = [drawn_factors(group_channels(group), generator, signs=signs) for group in groups]
        return cls.of(state, groups, factors, norms=norms, grouped=grouped, inward=inward)

    @classmethod
    def between(
        cls, state: State, *, made: ChannelGroup, taken: ChannelGroup, factors: Floats, needs: str = ""
    ) -> Scaling:
        """Scale channels where *made* says, and take it back where *taken* says.

        So a norm's scale and shift against the weights that take what it normalised, queries against keys, the one
        factor of a gated product against the layer behind it.

        Args:
            state: The network's tensors.
            made: Where channels are multiplied.
            taken: Where the same channels are divided.
            factors: One per channel.
            needs: What must hold for the function to stay the same.
        """
        result: dict[tuple[str, int], Floats] = {}
        for group, power in ((made, 1), (taken, -1)):
            for side in sides_of(group, state):
                _multiply(result, side, state, factors**power)
        return cls(factors=result, needs=needs)

    @property
    def description(self) -> Description:
        """Say what it is."""
        does = "channels are multiplied where they are made and divided where they are taken"
        return Description(name="channels scaled", does=f"{does}, {self.needs}" if self.needs else does, exact=True)

    def apply(self, state: State) -> dict[str, Array]:
        """Return *state* with its channels scaled."""
        return self._scaled(state, 1)

    def undo(self, state: State) -> dict[str, Array]:
        """Return *state* with its channels as they were."""
        return self._scaled(state, -1)

    def _scaled(self, state: State, power: int) -> dict[str, Array]:
        result = dict(state)
        for (tensor, axis), factors in self.factors.items():
            if tensor in result:
                array = result[tensor]
                result[tensor] = like(array, array * along(array, axis, factors**power))
        return result


def drawn_factors(channels: int, generator: np.random.Generator, *, signs: bool = False) -> Floats:
    """Draw a factor per channel, log-uniform up to `LARGEST_FACTOR`; with *signs*, every other one negative."""
    factors: Floats = np.exp(generator.uniform(-1.0, 1.0, channels) * np.log(LARGEST_FACTOR))
    if signs:
        factors *= generator.choice([-1.0, 1.0], channels)
    return factors


def _power(side: Side, state: State, norms: Sequence[Norm], grouped: Collection[str], inward: Collection[str]) -> int:
    """Return by which power of a channel's factor a side is multiplied."""
    role, is_normalised = role_of(side, state, norms, inward)
    if role is Role.TAKES:
        return -1
    made = 0 if is_normalised or role is Role.STATISTICS else 1
    return made - 1 if side.tensor in grouped else made


def _multiply(result: dict[tuple[str, int], Floats], side: Side, state: State, factors: Floats) -> None:
    vector = result.setdefault((side.tensor, side.axis), np.ones(state[side.tensor].shape[side.axis]))
    vector[side.positions()] *= factors[:, None]
