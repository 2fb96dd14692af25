"""One operation that ran, as rules see it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch

from ticketguard.graph.layout import Layout, per_axis
from ticketguard.graph.units import Labels, Units


class NotUnderstood(Exception):
    """A rule meets a use of its operation that it knows nothing about."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """One operation that ran.

    Attributes:
        units: Where rules record what they learn.
        name: ATen's name of the operator.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        outputs: The tensors it returned, in order.
        layout_of: Gives the layout of any tensor seen so far.
        is_constant: Says whether a tensor's values follow from the model's code alone, not from inputs or parameters.
    """

    units: Units
    name: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    outputs: Sequence[torch.Tensor]
    layout_of: Callable[[torch.Tensor], Layout]
    is_constant: Callable[[torch.Tensor], bool]

    def argument(self, index: int, name: str, default: Any) -> Any:
        """Return an argument that may be given by position or by name."""
        return self.args[index] if len(self.args) > index else self.kwargs.get(name, default)

    def labels_of(self, tensor: torch.Tensor) -> Labels:
        """Return the labels of a tensor's axes, each for itself: from here on, its channels move only so."""
        return per_axis(self.layout_of(tensor), tensor.ndim, self.units)

    def first(self) -> Labels:
        """Return the labels of the first argument."""
        return self.labels_of(self.args[0])

    def axes(self, index: int, name: str) -> set[int]:
        """Return the first argument's axes that an argument names, one or several; without one it means all."""
        count = self.args[0].ndim
        chosen = self.argument(index, name, None)
        if chosen is None or chosen == []:
            return set(range(count))
        return {axis % count for axis in (chosen if isinstance(chosen, (tuple, list)) else [chosen])}

    def with_blanks(self, labels: Labels) -> list[Labels]:
        """Return *labels* for the first output and labels without meaning for the others (statistics)."""
        blanks: list[Labels] = [[None] * output.ndim for output in self.outputs[1:]]
        return [labels, *blanks]


# What a rule returns: one layout, or one label per axis, for each of the operation's outputs.
Rule: TypeAlias = Callable[[Call], Sequence[Layout] | Sequence[Labels]]
