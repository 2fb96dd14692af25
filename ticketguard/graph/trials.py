"""Trying channel groups: those whose permutation changes what the model computes are left out."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ticketguard.graph.groups import ChannelGroup, IndexArray, axis_order, group_channels
from ticketguard.graph.probing import Probe

# A wrong group among n is found in 2·log2(n) trials; more than a few of them are a sign that nothing is certain.
MOST_TRIALS = 100


def that_hold(
    probe: Probe, tensors: Mapping[str, torch.Tensor], groups: Sequence[ChannelGroup], *, most_trials: int = MOST_TRIALS
) -> tuple[ChannelGroup, ...]:
    """Return the groups whose permutation leaves the outputs alone, usually all of them: they are tried together.

    Where that fails, halves are tried, and their halves, until the trials are used up; groups that are still undecided
    then are left out.

    Args:
        probe: The model to try them on.
        tensors: Its tensors by name; one may have several names.
        groups: The groups.
        most_trials: How often the model may be run.
    """
    pending = deque([range(len(groups))] if groups else [])
    holding: list[int] = []
    for _ in range(most_trials):
        if not pending:
            break
        part = pending.popleft()
        if _holds(probe, tensors, [groups[index] for index in part]):
            holding += part
        elif len(part) > 1:
            middle = len(part) // 2
            pending += [part[:middle], part[middle:]]
    return tuple(groups[index] for index in sorted(holding))


def _holds(probe: Probe, tensors: Mapping[str, torch.Tensor], groups: Sequence[ChannelGroup]) -> bool:
    generator = np.random.default_rng(0)
    orders = [_cycle(group_channels(group), generator) for group in groups]
    _permute(tensors, groups, orders)
    try:
        return probe.agrees(probe.ask(probe.model))
    except Exception:  # whatever a model's own code raises where values are not where it expects them
        return False
    finally:
        _permute(tensors, groups, [np.argsort(order) for order in orders])


def _cycle(count: int, generator: np.random.Generator) -> IndexArray:
    """Return a random permutation that leaves nothing where it is."""
    order = generator.permutation(count)
    result = np.empty(count, dtype=np.int64)
    result[order] = np.roll(order, 1)
    return result


def _permute(tensors: Mapping[str, torch.Tensor], groups: Sequence[ChannelGroup], orders: Sequence[IndexArray]) -> None:
    """Reorder channels in place, tensor by tensor, as `ticketguard.graph.permute` does for arrays."""
    done = set()
    for group, order in zip(groups, orders, strict=True):
        for member in group:
            tensor = tensors[member.tensor]
            place = (id(tensor), member.axis, member.block, member.runs)
            if place not in done:  # a tensor of two names moves once
                done.add(place)
                index = torch.from_numpy(axis_order(member, order, tensor.shape[member.axis]))
                tensor.copy_(tensor.index_select(member.axis, index))
