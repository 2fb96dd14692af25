"""Operations that make one number of many."""

from __future__ import annotations

import torch

from ticketguard.graph.layout import Layout
from ticketguard.graph.rules.call import Call, Rule
from ticketguard.graph.rules.general import pointwise
from ticketguard.graph.units import Labels


def reduction(index: int = 1) -> Rule:
    """Return the rule of an operation for which the order along the axes it reduces does not matter.

    Args:
        index: The argument that names the axes.
    """

    def rule(call: Call) -> list[Labels]:
        return [_left(call.first(), call.axes(index, "dim"), output.ndim) for output in call.outputs]

    return rule


def choice(call: Call) -> list[Labels] | list[Layout]:
    """Follow an operation that says *where* on an axis something is, or sorts it: its order matters."""
    if len(call.args) > 1 and isinstance(call.args[1], torch.Tensor):  # the larger of two tensors
        return pointwise(call)
    given = call.first()
    index = 2 if call.name == "topk" else 1
    chosen = call.axes(index, "dim")
    if call.name in ("topk", "sort"):
        chosen = {call.argument(index, "dim", -1) % len(given)}
    if len(call.outputs) > 1 or call.name.startswith("arg"):  # rather than the largest of all
        for axis in chosen:
            call.units.freeze(given[axis])
    return [_left(given, chosen, output.ndim) for output in call.outputs]


def _left(given: Labels, reduced: set[int], ndim: int) -> Labels:
    """Return the labels of what is left of some axes: a single position, sorted ones, or nothing."""
    if ndim == len(given):
        return [None if axis in reduced else labels for axis, labels in enumerate(given)]
    return [labels for axis, labels in enumerate(given) if axis not in reduced]
