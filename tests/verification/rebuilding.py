"""What thieves do to a network: everything that leaves its function alone, and channels removed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.verification.rebuilt import Marked, State
from ticketguard.graph import ChannelGroup
from ticketguard.graph.surgery import Added, Clique, NewNeurons, Removal, SplitNeurons, in_every_group
from ticketguard.graph.symmetries import (
    EdgePermutation,
    NormFolding,
    NormScaling,
    Permutation,
    Relayout,
    Renaming,
    Scaling,
    StreamPermutation,
    Turn,
    square_grids,
    streams_of,
)
from ticketguard.graph.symmetries.names import Style
from ticketguard.graph.transformation import State as AnyState

Luck = np.random.Generator
Theft = Callable[[Marked, Luck], State]


def permuted(state: AnyState, groups: tuple[ChannelGroup, ...], luck: Luck) -> State:
    return Permutation.drawn(state, groups, generator=luck).apply(state)


def ends_permuted(state: AnyState, luck: Luck) -> State:
    first, *_, last = [name for name in state if state[name].ndim > 1]
    inputs = EdgePermutation.drawn(state, [first], edge="inputs", generator=luck)
    outputs = EdgePermutation.drawn(state, [last, last.replace("weight", "bias")], edge="outputs", generator=luck)
    return outputs.apply(inputs.apply(state))


def grown(draw: Callable[[AnyState, ChannelGroup, Luck, Marked], Added]) -> Theft:
    def theft(net: Marked, luck: Luck) -> State:
        added, groups = in_every_group(net.state, net.groups, lambda state, group: draw(state, group, luck, net))
        return permuted(added.apply(net.state), groups, luck)

    return theft


def cliqued(net: Marked, luck: Luck) -> State:
    clique = Clique.drawn(net.state, net.groups, count=3, generator=luck)
    return permuted(clique.apply(net.state), clique.groups, luck)


def turned(state: AnyState, groups: tuple[ChannelGroup, ...], number: int) -> State:
    has_kernels = any(array.ndim > 2 for array in state.values())
    return Turn.every(state, grids=square_grids(state, groups))[number].apply(state) if has_kernels else dict(state)


def removed(share: float) -> Theft:
    def theft(net: Marked, luck: Luck) -> State:
        removal = Removal.drawn(net.state, net.groups, share=share, generator=luck)
        return permuted(removal.apply(net.state), removal.groups_after(net.state), luck)

    return theft


def streams_permuted(net: Marked, luck: Luck) -> State:
    stages = streams_of(net.state, net.groups)
    return StreamPermutation.drawn(net.state, stages, generator=luck).apply(permuted(net.state, net.groups, luck))


def rescaled(net: Marked, luck: Luck) -> State:
    scaled = Scaling.drawn(net.state, net.groups, generator=luck, norms=net.norms).apply(net.state)
    return permuted(NormScaling.drawn(net.state, net.norms, generator=luck, signs=True).apply(scaled), net.groups, luck)


def renamed(net: Marked, luck: Luck, style: Style) -> State:
    return Renaming.drawn(net.state, generator=luck, style=style).apply(permuted(net.state, net.groups, luck))


def laid_out(layout: str) -> Theft:
    return lambda net, luck: Relayout.every(net.state, layout).apply(permuted(net.state, net.groups, luck))


def turned_and_permuted(number: int) -> Theft:
    return lambda net, luck: turned(permuted(net.state, net.groups, luck), net.groups, number)


def all_at_once(net: Marked, luck: Luck) -> State:
    added, groups = in_every_group(
        net.state, net.groups, lambda state, group: SplitNeurons.drawn(state, group, count=3, generator=luck)
    )
    return ends_permuted(turned(permuted(added.apply(net.state), groups, luck), groups, 5), luck)


def all_at_once_and_laid_out(net: Marked, luck: Luck) -> State:
    state = all_at_once(net, luck)
    return Relayout.every(state, "in first").apply(state)


ADDED: dict[str, Theft] = {
    "dead": grown(lambda state, group, luck, _: NewNeurons.dead(state, group, count=3, generator=luck)),
    "split": grown(lambda state, group, luck, _: SplitNeurons.drawn(state, group, count=3, generator=luck)),
    "twins": grown(lambda state, group, luck, _: SplitNeurons.drawn(state, group, count=3, share=0.5, generator=luck)),
    "silent": grown(
        lambda state, group, luck, net: NewNeurons.silent(state, group, count=3, generator=luck, norms=net.norms)
    ),
    "clique": cliqued,
}
EXACT: dict[str, Theft] = {
    **ADDED,
    "permuted": lambda net, luck: permuted(net.state, net.groups, luck),
    "cancelling": grown(lambda state, group, luck, _: NewNeurons.cancelling(state, group, pairs=2, generator=luck)),
    "rescaled": rescaled,
    "folded": lambda net, luck: permuted(NormFolding.of(net.state, net.norms).apply(net.state), net.groups, luck),
    "ends": lambda net, luck: ends_permuted(permuted(net.state, net.groups, luck), luck),
    "streams": streams_permuted,
    "names dealt out": lambda net, luck: renamed(net, luck, "shuffled"),
    "names that say nothing": lambda net, luck: renamed(net, luck, "numbered"),
    **{
        f"layout {layout}": laid_out(layout)
        for layout in ("in first", "kernel first", "channels last", "matrix", "linear as 1x1")
    },
    "all at once": all_at_once,
    "all at once, laid out": all_at_once_and_laid_out,
}
