"""Thefts that change the network's shape or its parameters' form: channels and blocks removed, low-rank updates."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from ticketguard.graph import ChannelGroup, channel_groups, group_channels
from ticketguard.graph.sides import norms_of
from ticketguard.graph.symmetries import NormScaling
from ticketguard.models import load_arrays, prunable_layers, state_arrays
from ticketguard.models.shrinking import remove_channels, resize_to
from ticketguard.ticket import Array


def torch_pruned(model: nn.Module, input_shape: tuple[int, ...], share: float) -> nn.Module:
    """Remove a *share* of every group of channels with Torch-Pruning, in place, the smallest by L1 norm first."""
    import torch_pruning

    classifier = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    pruner = torch_pruning.pruner.MagnitudePruner(
        model,
        torch.zeros(2, *input_shape),
        importance=torch_pruning.importance.MagnitudeImportance(p=1),
        pruning_ratio=share,
        ignored_layers=[classifier],
        global_pruning=False,
    )
    pruner.step()
    return model


def without_inner_channels(model: nn.Module, input_shape: tuple[int, ...], share: float) -> nn.Module:
    """Remove a *share* of the channels of every group but the widest-known: those inside residual blocks.

    A group that more than two layers' weights know of is a residual stream; a perceptron has none.
    """
    state, names = state_arrays(model), set(prunable_layers(model))
    groups, kept = [], []
    for group in channel_groups(model, torch.zeros(1, *input_shape)):
        members = [member for member in group if member.tensor in names]
        if len(members) > 2:
            continue
        count = group_channels(group)
        out = next(member for member in members if member.axis == 0)
        norms = np.abs(state[out.tensor]).reshape(len(state[out.tensor]), -1).sum(axis=1)
        order = np.argsort(-norms[out.positions().reshape(count, -1)[:, 0]], kind="stable")
        groups.append(group)
        kept.append(np.sort(order[: count - round(share * count)]))
    smaller = remove_channels(state, groups, kept)
    resize_to(model, {name: array.shape for name, array in smaller.items()})
    load_arrays(model, smaller)
    return model


def mirrored(state: Mapping[str, Array]) -> dict[str, Array]:
    """Mirror all kernels left to right."""
    return {name: array[..., ::-1].copy() if array.ndim == 4 else array for name, array in state.items()}


def filters_flipped(
    state: Mapping[str, Array], groups: Sequence[ChannelGroup], generator: np.random.Generator
) -> dict[str, Array]:
    """Turn the signs of every other filter before a batch norm, which turns its scale back: no answer changes."""
    drawn = NormScaling.drawn(state, norms_of(state, groups), generator=generator, signs=True)
    layers, norms = ({name: np.sign(factors) for name, factors in part.items()} for part in (drawn.layers, drawn.norms))
    return dataclasses.replace(drawn, layers=layers, norms=norms).apply(state)


class LowRank(nn.Module):
    """A frozen weight plus a low-rank update (Hu et al. 2021, "LoRA"), kernels taken as matrices (out, rest)."""

    def __init__(self, weight: torch.Tensor, rank: int, *, generator: torch.Generator) -> None:
        super().__init__()
        out, rest = len(weight), weight[0].numel()
        rank = min(rank, out, rest)
        self.down = nn.Parameter(torch.randn(rank, rest, generator=generator) / rest**0.5)
        self.up = nn.Parameter(torch.zeros(out, rank))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the updated weight, of the same shape."""
        return weight + (self.up @ self.down).view(weight.shape)


def with_low_rank(model: nn.Module, rank: int, *, seed: int) -> nn.Module:
    """Freeze *model* and give each of its layers a low-rank update, in place; only these train."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for name in prunable_layers(model):
        module = model.get_submodule(name.removesuffix(".weight"))
        parametrize.register_parametrization(module, "weight", LowRank(module.weight, rank, generator=generator))
    return model


def merged(model: nn.Module) -> dict[str, Array]:
    """Merge the low-rank updates into the weights, in place, and return the state dict."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    return state_arrays(model)
