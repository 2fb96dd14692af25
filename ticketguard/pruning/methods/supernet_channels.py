"""The channels that a supernet search may drop: what each costs, which stand in for each other, which are gone."""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ticketguard.errors import ConfigurationError
from ticketguard.graph import ChannelGroup, channel_groups
from ticketguard.models import cuttable_groups, remove_channels
from ticketguard.models.counting import uses_per_weight
from ticketguard.ticket import Array, BoolArray


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchedChannels:
    """Channels behind one depthwise convolution.

    Attributes:
        scale: State-dict name of their batch normalisation's scales, γ.
        branch: Path of the module that goes when all of them do; empty if one must stay.
        cell: Path of the module in which branches stand in for each other: one channel of it stays.
        cost: Multiply-accumulates of one of these channels, over the mean of all searched channels.
    """

    scale: str
    branch: str
    cell: str
    cost: float


def searched_channels(network: nn.Module, input_shape: Sequence[int]) -> tuple[SearchedChannels, ...]:
    """Find the channels of *network* that a search may drop.

    They are those of every depthwise convolution with a batch normalisation right behind it, where nothing else counts
    on their number. Branches are the members of a ``nn.ModuleDict``.

    Raises:
        ConfigurationError: There are none.
    """
    uses = uses_per_weight(network, input_shape)
    sizes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    scales = _scales_of_depthwise(network)
    branches = _branches(network)
    found: list[SearchedChannels] = []
    macs: dict[str, float] = {}
    for group in cuttable_groups(network, torch.zeros(1, *input_shape)):
        own = [member.tensor for member in group if member.tensor in scales]
        # Where one group passes two depthwise convolutions, no single scale says what a channel is worth.
        if len(own) != 1 or not _is_whole(group, own[0], sizes):
            continue
        branch = max((path for path in branches if own[0].startswith(f"{path}.")), key=len, default="")
        cell = branches.get(branch, own[0])
        found.append(SearchedChannels(scale=own[0], branch=branch, cell=cell, cost=0.0))
        macs[own[0]] = sum(
            np.prod(sizes[member.tensor]) / sizes[member.tensor][member.axis] * member.block * uses[member.tensor]
            for member in group
            if member.tensor in uses
        )
    if not found:
        raise ConfigurationError(
            "this model has no depthwise convolution with a batch normalisation right behind it, whose channels a "
            "search could drop: use model 'supernet', or a model with such cells"
        )
    mean = np.average([macs[one.scale] for one in found], weights=[sizes[one.scale][0] for one in found])
    priced = [dataclasses.replace(one, cost=float(macs[one.scale] / mean)) for one in found]
    return tuple(sorted(priced, key=lambda one: one.scale))


def _scales_of_depthwise(network: nn.Module) -> set[str]:
    modules = [(path, module) for path, module in network.named_modules() if not list(module.children())]
    return {
        f"{path}.weight"
        for (_, module), (path, norm) in itertools.pairwise(modules)
        if isinstance(module, nn.Conv2d)
        and module.groups == module.in_channels == module.out_channels
        and isinstance(norm, _BatchNorm)
        and norm.affine
        and norm.num_features == module.out_channels
    }


def _branches(network: nn.Module) -> dict[str, str]:
    """Return every branch's path, and its cell's."""
    cells = [(path, module) for path, module in network.named_modules() if isinstance(module, nn.ModuleDict)]
    return {f"{path}.{key}" if path else key: path for path, cell in cells for key in cell}


def _is_whole(group: ChannelGroup, scale: str, sizes: Mapping[str, tuple[int, ...]]) -> bool:
    member = next(member for member in group if member.tensor == scale)
    return member.runs == ((0, sizes[scale][0]),)


def living_channels(
    state: Mapping[str, Array], searched: Sequence[SearchedChannels], *, threshold: float
) -> dict[str, BoolArray]:
    """Say which channels live on, by name of their scales: those of a scale beyond *threshold*, on either side of zero.

    In a cell without any, the one of the largest scale stays: the guard against a collapse that cuts the network.
    """
    cells: dict[str, list[str]] = defaultdict(list)
    for one in searched:
        if one.scale in state:
            cells[one.cell if one.branch else one.scale].append(one.scale)
    living = {}
    for names in cells.values():
        sizes = {name: np.abs(state[name]) for name in names}
        living.update({name: sizes[name] > threshold for name in names})
        if not any(living[name].any() for name in names):
            best = max(names, key=lambda name: float(sizes[name].max()))
            living[best][sizes[best].argmax()] = True
    return living


def without_dead(
    network: nn.Module,
    parts: Mapping[str, Mapping[str, Array]],
    searched: Sequence[SearchedChannels],
    living: Mapping[str, BoolArray],
    *,
    input_shape: Sequence[int],
) -> dict[str, dict[str, Array]]:
    """Return *parts* without the dead channels, and without the branches that have no others.

    Args:
        network: As it still is.
        parts: Things with tensors by the network's names and of their shapes, or without axes: state, masks,
            what an optimiser remembers.
        searched: The channels that were searched.
        living: What `living_channels` returned.
        input_shape: Shape of one input without the batch axis.
    """
    emptied = [one.branch for one in searched if one.scale in living and not living[one.scale].any()]
    groups: list[ChannelGroup] = []
    kept: list[Any] = []
    for group in channel_groups(network, torch.zeros(1, *input_shape)):
        scale = next((member.tensor for member in group if member.tensor in living), None)
        if scale is not None and living[scale].any():
            groups.append(group)
            kept.append(np.flatnonzero(living[scale]))
    result = {}
    for part, arrays in parts.items():
        # A count of steps, of which an optimiser may keep one a tensor, has no channels.
        counts = {name: array for name, array in arrays.items() if not array.ndim}
        cut = remove_channels({name: arrays[name] for name in arrays if name not in counts}, groups, kept)
        cut = {name: {**cut, **counts}[name] for name in arrays}
        result[part] = {
            name: array for name, array in cut.items() if not any(name.startswith(f"{branch}.") for branch in emptied)
        }
    return result
