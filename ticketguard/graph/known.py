"""What a vault keeps of a model's channel groups, and what has to be said about the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from ticketguard.errors import ConfigurationError
from ticketguard.graph.groups import CHANNEL_AXES, groups_from_json, groups_to_json

if TYPE_CHECKING:
    from torch import nn

    from ticketguard.graph.examples import Ask, Example
    from ticketguard.graph.tracing import Traced

# Where to give what an error asks for.
TAKES = "; prepare takes it as example=, or how to ask the model as ask="
# A message names so many layers.
SHOWN = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class KnownGroups:
    """A model's channel groups, as far as they can be known.

    Attributes:
        groups: As `groups_to_json` writes them; None where they cannot be known.
        doubts: Which reordered copies would not be recognised, why, and what to do; empty if none.
    """

    groups: list[list[list[Any]]] | None
    doubts: str = ""


def known_groups(
    model: nn.Module,
    *,
    layers: Collection[str],
    input_shape: Sequence[int] = (),
    example: Example | None = None,
    ask: Ask | None = None,
) -> KnownGroups:
    """Find a model's channel groups; without them everything works but the undoing of a permutation.

    Axes after a tensor's first two are left out: those of masked layers are places, not channels.

    Args:
        model: Any model.
        layers: State-dict names of the masked layers.
        input_shape: Shape of one input without the batch axis; empty if unknown.
        example: A batch of its inputs, if they are not of this shape, or not floating.
        ask: Asks the model; where that fails, it is called with the example.
    """
    import torch

    if example is None and input_shape:
        example = torch.zeros(1, *input_shape)
    try:
        traced = _traced(model, example, ask)
        kept = [tuple(member for member in group if member.axis < CHANNEL_AXES) for group in traced.groups]
        groups = groups_to_json([group for group in kept if group])
        groups_from_json(groups)  # more than the format allows are as good as unknown
    except (ConfigurationError, ValueError) as error:
        from ticketguard.graph.probing import GIVE_EXAMPLE, GIVE_SHAPE

        return KnownGroups(
            groups=None,
            doubts="a copy whose channels were reordered may not be recognised, because the model's channel groups are "
            f"unknown: {error}{TAKES if str(error).endswith((GIVE_EXAMPLE, GIVE_SHAPE)) else ''}",
        )
    return KnownGroups(groups=groups, doubts=_doubts(traced, layers))


def _traced(model: nn.Module, example: Example | None, ask: Ask | None) -> Traced:
    from ticketguard.graph.tracing import trace  # torch only where a model is

    if ask is not None:
        try:
            return trace(model, example, ask=ask)
        except ConfigurationError:  # it may count on a device, or on what only a trained model answers
            pass
    return trace(model, example)


def _doubts(traced: Traced, layers: Collection[str]) -> str:
    """Name the axes of masked layers that are in no group for want of knowledge, rather than by what the model does."""
    grouped = {(member.tensor, member.axis) for group in traced.groups for member in group}
    reasons = {place: f"nothing is known of {', '.join(names)}" for place, names in traced.unknown.items()}
    for group in traced.failed:
        for member in group:
            reasons.setdefault((member.tensor, member.axis), "reordering it changed the outputs")
    open_places = [
        (layer, axis)
        for layer in sorted(layers)
        for axis in range(CHANNEL_AXES)
        if (layer, axis) in reasons and (layer, axis) not in grouped
    ]
    if not open_places:
        return ""
    shown = [f"{('rows', 'columns')[axis]} of '{layer}' ({reasons[layer, axis]})" for layer, axis in open_places]
    more = f", and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return (
        "a copy whose channels were reordered may not be recognised where pruned layers are in no channel group: "
        f"{', '.join(shown[:SHOWN])}{more}; the mark's other layers are not affected"
    )
