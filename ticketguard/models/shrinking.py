"""Physically smaller networks: channels cut out of every tensor that knows them."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ticketguard.errors import ConfigurationError, TensorError
from ticketguard.graph import ChannelGroup, IndexArray, channel_groups, group_channels
from ticketguard.ticket import Array

if TYPE_CHECKING:
    from ticketguard.graph.probing import Probe


def remove_channels(
    weights: Mapping[str, Array], groups: Sequence[ChannelGroup], kept: Sequence[IndexArray]
) -> dict[str, Array]:
    """Return *weights* with only the *kept* channels of each group: what `ticketguard.graph.permute` is to reordering.

    Args:
        weights: Named arrays, such as a state dict, a part of one, or a mask's layers; members that are absent are
            left out.
        groups: Channel groups, such as `cuttable_groups` returns.
        kept: Per group the indices of the channels that stay, at least one; their order does not matter.

    Raises:
        ValueError: The indices do not fit the groups, or leave one empty.
    """
    removed: dict[tuple[str, int], list[IndexArray]] = defaultdict(list)
    for group, channels in zip(groups, kept, strict=True):
        count = group_channels(group)
        gone = np.ones(count, dtype=np.bool_)
        if not len(channels) or min(channels) < 0 or max(channels) >= count:
            raise ValueError(f"expected some of {count} channels to keep, got {np.asarray(channels).tolist()}")
        gone[np.asarray(channels)] = False
        for member in group:
            removed[member.tensor, member.axis].append(member.positions()[gone].reshape(-1))
    result = dict(weights)
    for (name, axis), positions in removed.items():
        if name in result:
            result[name] = np.delete(result[name], np.concatenate(positions), axis=axis)
    return result


def resize_to(model: nn.Module, shapes: Mapping[str, Sequence[int]]) -> None:
    """Make *model* physically smaller, in place, until its state dict has *shapes*.

    What remains of a tensor are its first values along every axis; the right ones are loaded afterwards. Sizes that
    convolutions, linear layers and normalisations know of themselves follow.

    Args:
        model: Any model.
        shapes: By state-dict name; tensors that are not named keep their shape.

    Raises:
        TensorError: A shape is larger than the model's own, or has other axes.
        ConfigurationError: A tensor belongs to a kind of module whose size cannot be changed.
    """
    cut: dict[int, nn.Parameter] = {}  # a parameter that two modules share stays shared
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        before = {name: tuple(tensor.shape) for name, tensor in _own_tensors(module)}
        after = {name: tuple(shapes.get(prefix + name, shape)) for name, shape in before.items()}
        if before == after:
            continue
        for name, shape in before.items():
            if len(shape) != len(after[name]) or not all(
                0 < new <= old for new, old in zip(after[name], shape, strict=True)
            ):
                raise TensorError(
                    name=prefix + name,
                    reason=f"has shape {after[name]}, expected at most the model's {shape}",
                    hint="name the ticket's own model",
                )
        _resize_sizes(module, before, after, path=path)
        for name, tensor in _own_tensors(module):
            part = tensor.detach()[tuple(slice(size) for size in after[name])].clone()
            if isinstance(tensor, nn.Parameter):
                value = cut.setdefault(id(tensor), nn.Parameter(part, requires_grad=tensor.requires_grad))
                module.register_parameter(name, value)
            else:
                module._buffers[name] = part


def drop_missing_branches(model: nn.Module, names: Container[str]) -> None:
    """Take out of *model*, in place, the branches that a search has emptied.

    A branch is a member of a ``nn.ModuleDict``, such as a supernet cell's; its parent must do without it.

    Args:
        model: Any model.
        names: State-dict names of what remains; a branch that has tensors, and none among these, goes.
    """
    for path, parent in list(model.named_modules()):
        if not isinstance(parent, nn.ModuleDict):
            continue
        for key, branch in list(parent.items()):
            tensors = [f"{path}.{key}.{name}" if path else f"{key}.{name}" for name in branch.state_dict()]
            if tensors and not any(name in names for name in tensors):
                del parent[key]


def _own_tensors(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    parameters = module.named_parameters(recurse=False, remove_duplicate=False)
    return [*parameters, *module.named_buffers(recurse=False, remove_duplicate=False)]


def _resize_sizes(
    module: nn.Module, before: Mapping[str, tuple[int, ...]], after: Mapping[str, tuple[int, ...]], *, path: str
) -> None:
    """Tell *module* its new sizes; its tensors are still the old ones."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = after["weight"]
    elif isinstance(module, _ConvNd) and before["weight"][2:] == after["weight"][2:]:
        module.groups = _groups_left(module.groups, before["weight"], after["weight"], path=path)
        first, second = after["weight"][0], after["weight"][1] * module.groups
        transposed = isinstance(module, _ConvTransposeNd)
        module.in_channels, module.out_channels = (first, second) if transposed else (second, first)
    elif isinstance(module, _NormBase):
        module.num_features = next(shape[0] for shape in after.values() if shape)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = after["weight"][0]
    else:
        raise ConfigurationError(
            f"module '{path}' is a {type(module).__name__}, which cannot be made smaller: expected convolutions, "
            "linear layers or batch normalisation"
        )


def _groups_left(groups: int, before: tuple[int, ...], after: tuple[int, ...], *, path: str) -> int:
    """Return a convolution's new number of groups: fewer if groups go whole, as they do in depthwise convolutions."""
    if groups == 1 or before[1] != after[1]:
        return groups
    left, rest = divmod(after[0] * groups, before[0])
    if rest or not left:
        raise ConfigurationError(
            f"module '{path}' is a convolution in {groups} groups, expected whole groups to be cut, got "
            f"{before[0] - after[0]} of {before[0]} channels: cut a multiple of {before[0] // groups}"
        )
    return left


def cuttable_groups(model: nn.Module, example_input: torch.Tensor) -> tuple[ChannelGroup, ...]:
    """Find the channels of *model* that can be cut out physically.

    Each group has been tried: without one of its channels the model still runs, and computes what it computes with
    that channel zero in every tensor. Channels that a zero-padded shortcut counts on, or that a layer normalisation
    averages over, are not among them.

    Args:
        model: Any model; it is copied, not changed.
        example_input: A batch the model accepts; floating inputs give only their shape.

    Raises:
        ConfigurationError: No channel can be cut, or the model does not run on *example_input*.
    """
    from ticketguard.graph.probing import probe_of

    probe = probe_of(model, example_input)
    groups = channel_groups(model, example_input)
    if not _can_be_cut(probe, groups):  # usually all can, and trying them at once is quick
        groups = tuple(group for group in groups if _can_be_cut(probe, (group,)))
    if not groups:
        raise ConfigurationError(
            "no channels of this model can be cut out: structured methods need hidden channels that nothing else "
            "counts on; prune single weights instead, or use another model"
        )
    return groups


def _can_be_cut(probe: Probe, groups: Sequence[ChannelGroup]) -> bool:
    """Cut each group's last channel, and zero it in another copy: both must compute the same.

    One channel rather than half of them, which would not show that a model counts on a multiple of two.
    """
    from ticketguard.graph.probing import outputs_agree

    zeroed, cut = copy.deepcopy(probe.model), copy.deepcopy(probe.model)
    state = zeroed.state_dict()
    kept = [np.arange(group_channels(group) - 1) for group in groups]
    smaller = remove_channels({name: tensor.numpy().copy() for name, tensor in state.items()}, groups, kept)
    for group in groups:
        for member in group:
            if member.tensor in state:
                state[member.tensor].index_fill_(member.axis, torch.from_numpy(member.positions()[-1]), 0)
    try:
        resize_to(cut, {name: array.shape for name, array in smaller.items()})
        cut.load_state_dict({name: torch.from_numpy(array) for name, array in smaller.items()})
        return outputs_agree(probe.ask(zeroed), probe.ask(cut))
    except Exception:  # whatever a model's own code raises where a size is not the one it counted on
        return False
