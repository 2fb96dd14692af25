"""Gates on channels: masks under which a network computes what the physically smaller one does."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
from torch import nn
from torch.nn.modules.conv import _ConvTransposeNd

from ticketguard.errors import ConfigurationError
from ticketguard.graph import ChannelGroup, IndexArray, group_channels
from ticketguard.models import cuttable_groups, remove_channels, resize_to, state_arrays
from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.pruning.engine.selection import largest
from ticketguard.ticket import Array, BoolArray, Mask

STRUCTURES = ("filter", "channel")


class ChannelGates:
    """Which channels of a network stay, so many of each channel group, by scores of their weights.

    A channel that is gone is zero in every tensor that knows it: the weights that make it, those that read it, biases
    and normalisation. So nothing changes when it is cut out. Every group keeps the same share of its channels, as the
    paper's layers do: the largest share that meets the density, then one more channel of a group wherever that still
    does. What is kept is thus as much as the density allows, not more, up to less than a channel of any group.

    Args:
        problem: Says the density and what inputs look like.
        network: On the CPU; it is not changed.
        everything: Its prunable layers.
        structure: "filter" scores a channel by the weights that make it, "channel" by those that read it.

    Attributes:
        names: Parameters that channels are cut from, and prunable layers.

    Raises:
        ConfigurationError: No channels can be cut, or not enough of them for the density.
    """

    def __init__(self, problem: SearchProblem, network: nn.Module, everything: Mask, *, structure: str) -> None:
        groups = cuttable_groups(network, problem.data.scaled(problem.data.train_inputs[:1]))
        self._groups = [group for group in groups if any(member.tensor in everything.layers for member in group)]
        state = state_arrays(network)
        self._shapes = {name: state[name].shape for name, _ in network.named_parameters()}
        touched = {member.tensor for group in self._groups for member in group} | set(everything)
        self.names = sorted(touched & set(self._shapes))
        self._layers = tuple(everything)
        self._counts = self._counted(problem, {name: self._shapes[name] for name in everything})
        # A tensor that cannot shrink is found here, before any training.
        smaller = remove_channels(state, self._groups, [np.arange(count) for count in self._counts])
        resize_to(copy.deepcopy(network), {name: array.shape for name, array in smaller.items()})
        transposed = {
            f"{name}.weight" for name, module in network.named_modules() if isinstance(module, _ConvTransposeNd)
        }
        making = {name: 1 if name in transposed else 0 for name in everything}
        self._scored = [_scored(group, making, structure=structure) for group in self._groups]

    def masks(self, scores: Mapping[str, Array]) -> dict[str, BoolArray]:
        """Return masks of all gated parameters, by scores of the prunable layers' weights."""
        masks = {name: np.ones(self._shapes[name], dtype=np.bool_) for name in self.names}
        for group, channels in zip(self._groups, self.kept(scores), strict=True):
            for member in group:
                if member.tensor in masks:
                    gone = np.delete(member.positions(), channels, axis=0).reshape(-1)
                    np.moveaxis(masks[member.tensor], member.axis, 0)[gone] = False
        return masks

    def kept(self, scores: Mapping[str, Array]) -> list[IndexArray]:
        """Return per group the channels whose weights' scores have the largest L2 norms."""
        chosen = []
        for members, count in zip(self._scored, self._counts, strict=True):
            squares = np.zeros(members[0].channels)
            for member in members:
                along = np.moveaxis(scores[member.tensor], member.axis, 0)
                sums = np.square(along.reshape(len(along), -1), dtype=np.float64).sum(axis=1)
                squares += sums[member.positions()].sum(axis=1)
            chosen.append(np.flatnonzero(largest(squares, count)))
        return chosen

    def cut(self, state: Mapping[str, Array], scores: Mapping[str, Array]) -> dict[str, Array]:
        """Return the state dict *state* without the channels that are gone."""
        return remove_channels(state, self._groups, self.kept(scores))

    def _counted(self, problem: SearchProblem, shapes: Mapping[str, tuple[int, ...]]) -> list[int]:
        """Return how many channels each group keeps.

        Raises:
            ConfigurationError: One channel of each is more than the density keeps.
        """
        sizes = [group_channels(group) for group in self._groups]
        keep = problem.keep(sum(int(np.prod(shape)) for shape in shapes.values()))
        shares = sorted({count / size for size in sizes for count in range(1, size + 1)})
        low, high = -1, len(shares)
        while high - low > 1:  # weights left grow with the share
            middle = (low + high) // 2
            fits = _weights_left(shapes, self._groups, _shared(sizes, shares[middle])) <= keep
            low, high = (middle, high) if fits else (low, middle)
        counts = _shared(sizes, shares[max(low, 0)])
        left = _weights_left(shapes, self._groups, counts)
        if left > keep:
            raise ConfigurationError(
                f"the density keeps {keep} weights, but with one channel of each of {len(sizes)} groups {left} are "
                "left: raise it"
            )
        for number, size in enumerate(sizes):
            more = [count + (place == number) for place, count in enumerate(counts)]
            if counts[number] < size and _weights_left(shapes, self._groups, more) <= keep:
                counts = more
        return counts


def _scored(group: ChannelGroup, making: Mapping[str, int], *, structure: str) -> ChannelGroup:
    """Return the members whose weights a group's channels are scored by."""
    layers = tuple(member for member in group if member.tensor in making)
    makes = structure == "filter"
    chosen = tuple(member for member in layers if (member.axis == making[member.tensor]) == makes)
    return chosen or layers  # the last resort where nothing prunable makes a channel, or nothing reads it


def _shared(sizes: Sequence[int], share: float) -> list[int]:
    return [max(1, int(share * size + 1e-9)) for size in sizes]


def _weights_left(shapes: Mapping[str, tuple[int, ...]], groups: Sequence[ChannelGroup], counts: Sequence[int]) -> int:
    """Return how many weights of layers of *shapes* are left where groups keep *counts* channels."""
    left = {name: list(shape) for name, shape in shapes.items()}
    for group, count in zip(groups, counts, strict=True):
        for member in group:
            if member.tensor in left:
                left[member.tensor][member.axis] -= (member.channels - count) * member.block
    return sum(int(np.prod(shape)) for shape in left.values())
