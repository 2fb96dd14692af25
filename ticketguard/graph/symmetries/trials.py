"""Which channels can be scaled: what lies between two layers is not in their tensors, so it is tried."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias, TypeVar

import numpy as np

from ticketguard.graph.groups import ChannelGroup, group_channels
from ticketguard.graph.sides import Norm, norms_of, role_of, sides_of
from ticketguard.graph.symmetries.norms import NORM_EPSILON, NormScaling
from ticketguard.graph.symmetries.scaling import Scaling, drawn_factors
from ticketguard.graph.transformation import Chain, State, Symmetry

T = TypeVar("T")
# Says whether the network answers the same with other tensors, up to the rounding of sums.
Same: TypeAlias = Callable[[State], bool]

# One that does not scale among n is found in 2·log2(n) trials; more than a few of them, and the rest is left out.
MOST_TRIALS = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scalable:
    """What of a network can be scaled.

    Attributes:
        groups: Channel groups that can be scaled by positive factors.
        signed: Those of them that can be scaled by any factors.
        norms: Batch norms that take back what is multiplied in front of them, by any factors.
        pairs: Which norm follows which layer, of all that are known.
        grouped: Weights of grouped convolutions.
        inward: Weights laid out (in, out).
        epsilon: What the norms add to the variance.
    """

    groups: tuple[ChannelGroup, ...]
    signed: tuple[ChannelGroup, ...]
    norms: tuple[Norm, ...]
    pairs: tuple[Norm, ...]
    grouped: tuple[str, ...]
    inward: tuple[str, ...]
    epsilon: float

    @classmethod
    def of(
        cls,
        state: State,
        groups: Sequence[ChannelGroup],
        *,
        same: Same,
        generator: np.random.Generator,
        pairs: Sequence[Norm] | None = None,
        grouped: Collection[str] = (),
        inward: Collection[str] = (),
        epsilon: float = NORM_EPSILON,
    ) -> Scalable:
        """Try what can be scaled.

        Args:
            state: Tensors of the network to try it on, with values that matter: of small ones any smooth function is
                nearly linear, and behind a scale of zero anything is the same.
            groups: Channel groups.
            same: Runs the network with tensors of the same names and shapes. It sees what its inputs show: a ReLU6 that
                none of them takes above six passes for a ReLU.
            generator: Draws the factors that are tried.
            pairs: Which norm follows which layer; guessed if not given.
            grouped: Weights of grouped and depthwise convolutions.
            inward: Weights laid out (in, out).
            epsilon: What the norms add to the variance.
        """
        known = tuple(norms_of(state, groups, inward=inward) if pairs is None else pairs)

        def negative(norms: Sequence[Norm]) -> Symmetry:
            drawn = NormScaling.drawn(state, norms, generator=generator, epsilon=epsilon, inward=inward)
            layers, reached = ({name: -part[name] for name in part} for part in (drawn.layers, drawn.norms))
            return dataclasses.replace(drawn, layers=layers, norms=reached)

        def scaled(chosen: Sequence[ChannelGroup], sign: int) -> Symmetry:
            factors = [sign * drawn_factors(group_channels(group), generator) for group in chosen]
            return Scaling.of(state, chosen, factors, norms=known, grouped=grouped, inward=inward)

        with_scale = [norm for norm in known if f"{norm.norm}.weight" in state]
        placed = [group for group in groups if _is_placed(group, state, known, inward)]
        positive = _that_hold(placed, lambda chosen: same(scaled(chosen, 1).apply(state)))
        return cls(
            groups=positive,
            signed=_that_hold(positive, lambda chosen: same(scaled(chosen, -1).apply(state))),
            norms=_that_hold(with_scale, lambda chosen: same(negative(chosen).apply(state))),
            pairs=known,
            grouped=tuple(grouped),
            inward=tuple(inward),
            epsilon=epsilon,
        )

    def drawn(self, state: State, *, generator: np.random.Generator) -> Chain:
        """Scale all that can be, and with any sign where that can be."""
        before = NormScaling.drawn(
            state, self.norms, generator=generator, signs=True, epsilon=self.epsilon, inward=self.inward
        )
        factors = [drawn_factors(group_channels(group), generator, signs=group in self.signed) for group in self.groups]
        behind = Scaling.of(state, self.groups, factors, norms=self.pairs, grouped=self.grouped, inward=self.inward)
        return Chain(steps=(before, behind))


def _is_placed(group: ChannelGroup, state: State, norms: Sequence[Norm], inward: Collection[str]) -> bool:
    """Say whether every norm of a group follows one of its layers."""
    try:
        for side in sides_of(group, state):
            role_of(side, state, norms, inward)
    except ValueError:
        return False
    return True


def _that_hold(candidates: Sequence[T], holds: Callable[[Sequence[T]], bool]) -> tuple[T, ...]:
    """Return those that hold, usually all: they are tried together, then in halves, until the trials are used up."""
    pending = deque([range(len(candidates))] if candidates else [])
    holding: list[int] = []
    for _ in range(MOST_TRIALS):
        if not pending:
            break
        part = pending.popleft()
        if holds([candidates[index] for index in part]):
            holding += part
        elif len(part) > 1:
            middle = len(part) // 2
            pending += [part[:middle], part[middle:]]
    return tuple(candidates[index] for index in sorted(holding))
