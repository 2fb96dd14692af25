"""The rows that cost a thief nothing: transformations after which the network computes what it did."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np

from ticketguard.graph import ChannelGroup, group_channels
from ticketguard.graph.sides import norms_of
from ticketguard.graph.surgery import Clique, Cut, NewNeurons, SplitNeurons, in_every_group
from ticketguard.graph.symmetries import (
    Companion,
    EdgePermutation,
    NormFolding,
    NormScaling,
    Relayout,
    Renaming,
    StreamPermutation,
    Turn,
    streams_of,
)
from ticketguard.ticket import Array

State: TypeAlias = dict[str, Array]

# Of each group's channels, so many are added.
ADDED = 0.1
# An average of the last steps is this far from the last one, as a share of each tensor's spread.
AVERAGED = 0.01
PAIRS_OF_NAMES = (("student", "teacher"), ("net", "ema"), ("online", "target"), ("encoder_q", "encoder_k"))
# Axes of a kernel and which of them run backwards, by what the pictures must be.
TURNS = {
    "turned by 180°": ((0, 1), (True, True)),
    "turned by 90°": ((1, 0), (True, False)),
    "transposed": ((1, 0), (False, False)),
    "mirrored": ((0, 1), (False, True)),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Base:
    """What is transformed.

    Attributes:
        state: The stolen network's tensors, permuted and rescaled or not.
        groups: Its channel groups.
        layers: Names of its prunable weights, from input to output.
        other: Tensors of another network of the same shape, for files that hold two.
        generator: Of the thief's choices.
    """

    state: State
    groups: tuple[ChannelGroup, ...]
    layers: tuple[str, ...]
    other: State
    generator: np.random.Generator

    @property
    def is_convolutional(self) -> bool:
        """Whether there are kernels."""
        return any(self.state[name].ndim > 2 for name in self.layers)


Change: TypeAlias = Callable[[Base], State]


def exact_rows(*, convolutional: bool, hidden: bool = False) -> Iterator[tuple[str, Change]]:
    """List the rows for a perceptron, or for a residual network whose images have one channel.

    Args:
        convolutional: Whether it is the latter.
        hidden: Whether the network is permuted and rescaled: of the names of two networks, one pair is enough then.
    """
    yield "dead neurons", dead
    yield "split neurons", functools.partial(split, share=None)
    yield "duplicated neurons", functools.partial(split, share=0.5)
    yield "cancelling neurons", cancelling
    yield "silent neurons", silent
    yield "a clique of dead neurons", clique
    yield "dead channels cut away", cut
    yield "classes permuted", classes_permuted
    if convolutional:
        yield "residual streams permuted, each for itself", streams_permuted
        yield "signs flipped before norms", signs_flipped
        yield "norms folded", norms_folded
        for name, (axes, flipped) in TURNS.items():
            yield f"kernels {name}, images too", functools.partial(turned, axes=axes, flipped=flipped)
        for layout in ("kernel first", "channels last", "matrix"):
            yield f"layout {layout}", functools.partial(laid_out, layout=layout)
    else:
        yield "inputs permuted", inputs_permuted
        yield "inputs and classes permuted", edges_permuted
        yield "layout linear as 1x1", functools.partial(laid_out, layout="linear as 1x1")
    yield "layout in first", functools.partial(laid_out, layout="in first")
    for pair in PAIRS_OF_NAMES[: 1 if hidden else None]:
        for place, name in enumerate(pair):
            yield (
                f"two networks in a file, {name} of {' and '.join(pair)} is stolen",
                functools.partial(beside, mine=name, others=pair[1 - place]),
            )
    yield "names shuffled", renamed
    yield "names shuffled, an average beside", averaged_beside


def _more(group: ChannelGroup) -> int:
    return max(1, round(ADDED * group_channels(group)))


def dead(base: Base) -> State:
    """Add neurons that nobody listens to."""
    chain, _ = in_every_group(
        base.state,
        base.groups,
        lambda state, group: NewNeurons.dead(state, group, count=_more(group), generator=base.generator),
    )
    return chain.apply(base.state)


def split(base: Base, *, share: float | None) -> State:
    """Split neurons in two."""
    chain, _ = in_every_group(
        base.state,
        base.groups,
        lambda state, group: SplitNeurons.drawn(
            state, group, count=_more(group), share=share, generator=base.generator
        ),
    )
    return chain.apply(base.state)


def cancelling(base: Base) -> State:
    """Add pairs of neurons that cancel each other."""
    chain, _ = in_every_group(
        base.state,
        base.groups,
        lambda state, group: NewNeurons.cancelling(
            state, group, pairs=max(1, _more(group) // 2), generator=base.generator
        ),
    )
    return chain.apply(base.state)


def silent(base: Base) -> State:
    """Add neurons that are never above zero."""
    norms = norms_of(base.state, base.groups)
    chain, _ = in_every_group(
        base.state,
        base.groups,
        lambda state, group: NewNeurons.silent(state, group, count=_more(group), generator=base.generator, norms=norms),
    )
    return chain.apply(base.state)


def clique(base: Base) -> State:
    """Add dead neurons that listen to each other."""
    return Clique.drawn(base.state, base.groups, count=2, generator=base.generator).apply(base.state)


def cut(base: Base) -> State:
    """Cut away what no edge leads to or from, as deployment tools do."""
    relu = functools.partial(np.maximum, 0.0)
    return Cut.of(base.state, base.groups, norms=norms_of(base.state, base.groups), activation=relu).apply(base.state)


def inputs_permuted(base: Base) -> State:
    """Permute the input features."""
    return EdgePermutation.drawn(base.state, [base.layers[0]], edge="inputs", generator=base.generator).apply(
        base.state
    )


def classes_permuted(base: Base) -> State:
    """Permute the classes."""
    last = base.layers[-1]
    names = [name for name in (last, last.replace("weight", "bias")) if name in base.state]
    return EdgePermutation.drawn(base.state, names, edge="outputs", generator=base.generator).apply(base.state)


def edges_permuted(base: Base) -> State:
    """Permute both."""
    return classes_permuted(dataclasses.replace(base, state=inputs_permuted(base)))


def streams_permuted(base: Base) -> State:
    """Permute each stage's residual stream, its shortcut becoming an index."""
    streams = streams_of(base.state, base.groups)
    return StreamPermutation.drawn(base.state, streams, generator=base.generator).apply(base.state)


def signs_flipped(base: Base) -> State:
    """Multiply what goes into norms by factors of any sign."""
    norms = norms_of(base.state, base.groups)
    return NormScaling.drawn(base.state, norms, generator=base.generator, signs=True).apply(base.state)


def norms_folded(base: Base) -> State:
    """Fold norms into the layers before them."""
    return NormFolding.of(base.state, norms_of(base.state, base.groups)).apply(base.state)


def turned(base: Base, *, axes: tuple[int, ...], flipped: tuple[bool, ...]) -> State:
    """Turn all kernels."""
    turns = {(turn.axes, turn.flipped): turn for turn in Turn.every(base.state)}
    return turns[axes, flipped].apply(base.state)


def laid_out(base: Base, *, layout: str) -> State:
    """Lay weights out as another framework does."""
    return Relayout.every(base.state, layout).apply(base.state)


def beside(base: Base, *, mine: str, others: str) -> State:
    """Put an innocent network into the same file."""
    pair = Companion(prefix=f"{mine}.", other_prefix=f"{others}.", other=base.other)
    return pair.apply(base.state)


def renamed(base: Base) -> State:
    """Give every tensor another one's name."""
    return Renaming.drawn(base.state, generator=base.generator).apply(base.state)


def averaged_beside(base: Base) -> State:
    """Put an average of the last steps into the same file, and shuffle all names."""
    average = {
        name: (array + (array != 0) * AVERAGED * array.std() * base.generator.standard_normal(array.shape)).astype(
            array.dtype
        )
        for name, array in base.state.items()
        if array.dtype.kind == "f"
    }
    pair = Companion(prefix="net.", other_prefix="ema.", other=average).apply(base.state)
    return Renaming.drawn(pair, generator=base.generator, style="numbered").apply(pair)
