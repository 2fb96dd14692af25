"""Operations that treat every position alike, and those that nothing is known about."""

from __future__ import annotations

import torch

from ticketguard.graph.layout import Layout, freeze_alone, joined, renamed, used
from ticketguard.graph.rules.call import Call, Rule
from ticketguard.graph.units import Labels


def freeze_all(call: Call) -> list[Labels]:
    """Follow an operation nothing is known about: whatever goes in stays where it is."""
    pending = [*call.args, *call.kwargs.values()]
    while pending:
        item = pending.pop()
        if isinstance(item, (tuple, list)):
            pending += item
        elif isinstance(item, torch.Tensor):
            for factor in call.layout_of(item):
                call.units.freeze(factor.units)
    return [[None] * output.ndim for output in call.outputs]


def pointwise(call: Call) -> list[Layout]:
    """Join all tensor arguments place by place under broadcasting."""
    shape = call.outputs[0].shape
    result: Layout = ()
    covered: set[int] = set()
    for tensor in [item for item in [*call.args, *call.kwargs.values()] if isinstance(item, torch.Tensor)]:
        shift = len(shape) - tensor.ndim
        layout = used(call.layout_of(tensor), call.units)
        wide = {axis + shift for axis, size in enumerate(tensor.shape) if size > 1}
        for axis, size in enumerate(tensor.shape):
            if size == 1 and shape[axis + shift] > 1:
                freeze_alone(layout, axis, call.units)
        given = renamed(layout, {axis - shift: axis for axis in wide})
        result = joined(result, given, wide=(covered, wide), ndim=len(shape), units=call.units)
        covered |= wide
    return [result for _ in call.outputs]


def uniform(call: Call) -> list[Labels]:
    """Label equal values: any order of channels is as good as another."""
    return [
        [call.units.fresh(size, uniform=True) if size > 1 else None for size in output.shape] for output in call.outputs
    ]


def unchanged(call: Call) -> list[Layout]:
    """Follow an operation that gives every position its own back."""
    given = call.layout_of(call.args[0])
    return [given if output.ndim == call.args[0].ndim else () for output in call.outputs]


def mixing(call: Call) -> list[Labels]:
    """Follow an operation that compares each position to the others of its axis, in any order."""
    return [call.first()]


def along_axis(index: int, name: str) -> Rule:
    """Return the rule of an operation that tells positions of some axes apart, and treats those of others alike.

    Args:
        index: The argument that names the axes, one or several.
        name: Its name.
    """

    def rule(call: Call) -> list[Labels]:
        given = call.first()
        for axis in call.axes(index, name):
            call.units.freeze(given[axis])
            given[axis] = None
        return [given if output.ndim == len(given) else [None] * output.ndim for output in call.outputs]

    return rule
