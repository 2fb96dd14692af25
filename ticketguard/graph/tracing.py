"""Channel groups of a model, read off the operations it really runs.

The model runs once on an example. Every parameter axis starts with one *unit* per position; each operation
says which units are the same channel (a convolution's input and its weight's axis 1, the two sides of a
residual sum), and which must stay where they are (the model's input and output, anything not understood).
Units that always occur together and in the same places are interchangeable: a group. Nothing rests on
this bookkeeping alone: every group is then tried, and one whose permutation changes the outputs is dropped.

Only paths that hold a model import this module, for it needs torch.
"""

from __future__ import annotations

import copy
import itertools
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ticketguard.errors import ConfigurationError
from ticketguard.graph.groups import ChannelGroup, GroupMember, IndexArray, group_channels, permute
from ticketguard.graph.operations import RULES, freeze_all, pointwise
from ticketguard.graph.units import Call, Labels, Units

# Relative to the outputs' largest magnitude. In double precision a true symmetry only reorders sums (about 1e-15 per
# layer); a wrong one changes outputs by a visible fraction.
FUNCTION_TOLERANCE = 1e-8


class _Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its subclass hook untyped
    """Follows units through every operation that runs while it is active."""

    def __init__(self, units: Units) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._units = units
        self._labels: dict[int, Labels] = {}
        self._alive: list[torch.Tensor] = []  # an id names a tensor only while the tensor lives

    def set(self, tensor: torch.Tensor, labels: Labels) -> None:
        self._alive.append(tensor)
        self._labels[id(tensor)] = labels

    def get(self, tensor: torch.Tensor) -> Labels:
        return self._labels.get(id(tensor), [None] * tensor.ndim)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        outputs = [item for item in _flat(result) if isinstance(item, torch.Tensor)]
        name = func.overloadpacket.__name__
        rule = RULES.get(name) or RULES.get(name.rstrip("_"))
        if rule is None:
            rule = pointwise if torch.Tag.pointwise in func.tags else freeze_all
        call = Call(units=self._units, name=name, args=args, kwargs=kwargs or {}, outputs=outputs, labels_of=self.get)
        for tensor, labels in zip(outputs, rule(call), strict=True):
            self.set(tensor, labels)
        return result


def trace_groups(model: nn.Module, example_input: torch.Tensor) -> tuple[ChannelGroup, ...]:
    """Find the channel groups of *model*; see `ticketguard.graph.channel_groups`."""
    probe, example = probe_of(model, example_input)
    groups = _collect(*_trace(probe, example))
    return _that_hold(probe, example, groups)


def probe_of(model: nn.Module, example_input: torch.Tensor) -> tuple[nn.Module, torch.Tensor]:
    """Return a copy of *model* in double precision with random tensors, and one random input: for trying changes."""
    probe = copy.deepcopy(model).to("cpu", torch.float64).eval()
    # Training leaves a model channels last, and with that layout pooling runs operations that no rule can follow.
    for parameter in probe.parameters():
        parameter.data = parameter.detach().clone(memory_format=torch.contiguous_format)
    example = example_input[:1].detach().to("cpu")
    generator = torch.Generator().manual_seed(0)
    if example.is_floating_point():
        example = torch.randn(example.shape, generator=generator, dtype=torch.float64)
    _randomise(probe, generator)
    return probe, example


def outputs_agree(expected: Any, found: Any) -> bool:
    """Say whether two outputs of a probe are the same up to the order of sums."""
    pairs = [
        (one, other)
        for one, other in zip(_flat(expected), _flat(found), strict=True)
        if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)
    ]
    return all(
        one.shape == other.shape and bool((one - other).abs().max() <= FUNCTION_TOLERANCE * one.abs().max())
        for one, other in pairs
    )


def _trace(model: nn.Module, example: torch.Tensor) -> tuple[Units, dict[str, Labels]]:
    units = Units()
    tracer = _Tracer(units)
    named: dict[str, Labels] = {}
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    known: dict[int, Labels] = {}
    for name, tensor in tensors:
        if id(tensor) not in known:
            # Kernel axes hold places, not channels.
            channel_axes = tensor.ndim if tensor.ndim <= 2 else 2
            fresh = [units.fresh(size) for size in tensor.shape[:channel_axes]]
            known[id(tensor)] = [*fresh, *[None] * (tensor.ndim - channel_axes)]
            tracer.set(tensor, known[id(tensor)])
        named[name] = known[id(tensor)]
    try:
        with torch.no_grad(), tracer:
            output = model(example)
    except Exception as error:
        raise ConfigurationError(
            f"the model does not run on an input of shape {tuple(example.shape)}: {error}: "
            "give the input shape it expects"
        ) from error
    for tensor in _flat(output):
        if isinstance(tensor, torch.Tensor):
            for labels in tracer.get(tensor):
                units.freeze(labels)
    return units, named


def _flat(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [leaf for item in value for leaf in _flat(item)]
    return [value]


def _collect(units: Units, named: Mapping[str, Labels]) -> tuple[ChannelGroup, ...]:
    """Gather interchangeable channels: the same tensors and axes, equally often."""
    places = _places(units, named)
    alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for channel, where in places.items():
        if len(where) > 1:  # a channel that only one tensor knows is not used by the model
            alike[tuple((place, len(positions)) for place, positions in where.items())].append(channel)
    groups = []
    for signature, channels in alike.items():
        if len(channels) > 1:
            group = []
            for place, _ in signature:
                tensor, axis = place
                group += _members(tensor, axis, np.array([places[channel][place] for channel in channels]))
            groups.append(tuple(group))
    return tuple(sorted(groups, key=lambda group: [(member.tensor, member.axis) for member in group]))


def _places(units: Units, named: Mapping[str, Labels]) -> dict[int, dict[tuple[str, int], list[int]]]:
    """Return, for every channel that may move, its positions on each axis of each tensor."""
    channel_of, is_frozen = units.resolve()
    places: dict[int, dict[tuple[str, int], list[int]]] = defaultdict(dict)
    for name in sorted(named):
        for axis, labels in enumerate(named[name]):
            for position, channel in enumerate([] if labels is None else channel_of[labels].tolist()):
                if not is_frozen[channel]:
                    places[channel].setdefault((name, axis), []).append(position)
    return places


def _members(tensor: str, axis: int, positions: IndexArray) -> list[GroupMember]:
    """Describe positions of shape (channels, times) as members, one per stretch that all channels share."""
    starts = [0, *(np.flatnonzero((np.diff(positions, axis=1) != 1).any(axis=0)) + 1).tolist(), positions.shape[1]]
    members = []
    for start, stop in itertools.pairwise(starts):
        block, firsts = stop - start, positions[:, start]
        cuts = [0, *(np.flatnonzero(np.diff(firsts) != block) + 1).tolist(), len(firsts)]
        runs = tuple((int(firsts[low]), high - low) for low, high in itertools.pairwise(cuts))
        members.append(GroupMember(tensor=tensor, axis=axis, block=block, runs=runs))
    return members


def _randomise(model: nn.Module, generator: torch.Generator) -> None:
    """Give every tensor values that matter: a zero scale would hide a wrong group from the check."""
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if not tensor.is_floating_point():
                continue
            if tensor.ndim >= 2:
                # He et al. 2015, eq. 10: keeps activations in range at any depth.
                scale = (2.0 / max(1, tensor[0].numel())) ** 0.5
                tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) * scale)
            else:
                tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype) + 0.5)


def _that_hold(model: nn.Module, example: torch.Tensor, groups: tuple[ChannelGroup, ...]) -> tuple[ChannelGroup, ...]:
    """Return the groups whose random permutation leaves the outputs alone: usually all, tried at once."""
    if _function_holds(model, example, groups):
        return groups
    return tuple(group for group in groups if _function_holds(model, example, (group,)))


def _function_holds(model: nn.Module, example: torch.Tensor, groups: tuple[ChannelGroup, ...]) -> bool:
    generator = np.random.default_rng(0)
    permutations = [generator.permutation(group_channels(group)) for group in groups]
    state = model.state_dict()
    arrays = {name: tensor.numpy().copy() for name, tensor in state.items()}
    permuted = permute(arrays, groups, permutations)
    with torch.no_grad():
        expected = model(example)
        for name, tensor in state.items():
            tensor.copy_(torch.from_numpy(np.asarray(permuted[name])))
        found = model(example)
        for name, tensor in state.items():
            tensor.copy_(torch.from_numpy(np.asarray(arrays[name])))
    return outputs_agree(expected, found)
