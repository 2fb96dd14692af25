"""Mask graph, channel groups, and alignment of a suspect to a reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ticketguard.graph.alignment import Alignment, align
from ticketguard.graph.groups import (
    ChannelGroup,
    GroupMember,
    IndexArray,
    check_fit,
    group_channels,
    groups_from_json,
    groups_to_json,
    permute,
)
from ticketguard.graph.known import KnownGroups, known_groups
from ticketguard.graph.mask_graph import mask_graph

if TYPE_CHECKING:
    from torch import nn

    from ticketguard.graph.examples import Ask, Example


def channel_groups(
    model: nn.Module, example_input: Example | None, *, ask: Ask | None = None
) -> tuple[ChannelGroup, ...]:
    """Find the tensor axes of *model* that must be permuted together for its function to stay the same.

    Only hidden channels are grouped: the model's inputs and outputs stay where they are. Every group returned has
    been tried with a random permutation, and left the model's outputs alone.

    Args:
        model: Any model; it is copied, not changed.
        example_input: A batch the model accepts, shape (1, *input_shape) is enough; several tensors in a sequence, or
            by name in a mapping. Where the model runs on random numbers or tokens, only the shape is used. None for a
            model with embedding layers, which is given some tokens.
        ask: Asks the model; by default it is called with the example.

    Raises:
        ConfigurationError: The model does not run on *example_input*, or on what was tried in its place.
    """
    from ticketguard.graph.tracing import trace  # torch only where a model is

    return trace(model, example_input, ask=ask).groups


__all__ = [
    "Alignment",
    "ChannelGroup",
    "GroupMember",
    "IndexArray",
    "KnownGroups",
    "align",
    "channel_groups",
    "check_fit",
    "group_channels",
    "groups_from_json",
    "groups_to_json",
    "known_groups",
    "mask_graph",
    "permute",
]
