"""Channel groups of a model, read off the operations it really runs.

The model runs once on an example. Every parameter axis starts with one *unit* per position; each operation
says which units are the same channel (a convolution's input and its weight's axis 1, the two sides of a
residual sum), and which must stay where they are (the model's input and output, anything not understood).
Units that always occur together and in the same places are interchangeable: a group. Nothing rests on
this bookkeeping alone: every group is then tried, and one whose permutation changes the outputs is dropped.

Only paths that hold a model import this module, for it needs torch.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ticketguard.graph.examples import Ask, Example
from ticketguard.graph.groups import ChannelGroup, GroupMember, IndexArray
from ticketguard.graph.layout import Layout, of_axes
from ticketguard.graph.probing import flat, probe_of
from ticketguard.graph.rules import Call, NotUnderstood, freeze_all, rule_of
from ticketguard.graph.trials import that_hold
from ticketguard.graph.units import Labels, UnitArray, Units


class _Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its subclass hook untyped
    """Follows units through every operation that runs while it is active."""

    def __init__(self, units: Units) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._units = units
        self.unknown: dict[str, list[UnitArray]] = defaultdict(list)  # by operation, what it froze
        self._layouts: dict[int, Layout] = {}
        self._constant: set[int] = set()
        self._alive: list[torch.Tensor] = []  # an id names a tensor only while the tensor lives

    def set(self, tensor: torch.Tensor, layout: Layout) -> None:
        self._alive.append(tensor)
        self._layouts[id(tensor)] = layout

    def get(self, tensor: torch.Tensor) -> Layout:
        return self._layouts.get(id(tensor), ())

    def is_constant(self, tensor: torch.Tensor) -> bool:
        return id(tensor) in self._constant

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        several = result if isinstance(result, (tuple, list)) else [result]
        outputs = [item for item in several if isinstance(item, torch.Tensor)]
        call = Call(
            units=self._units,
            name=func.overloadpacket.__name__.rstrip("_"),
            args=args,
            kwargs=kwargs or {},
            outputs=outputs,
            layout_of=self.get,
            is_constant=self.is_constant,
        )
        layouts = _layouts(call, func)
        if layouts is None:
            layouts = [() for _ in freeze_all(call)]
            self.unknown[func.overloadpacket.__name__] += self._units_of(args, kwargs)
        given = _tensors_in(args, kwargs)
        is_constant = all(map(self.is_constant, given)) or "lift_fresh" in call.name
        for tensor, layout in zip(outputs, layouts, strict=True):
            self.set(tensor, layout)
            (self._constant.add if is_constant else self._constant.discard)(id(tensor))
        return result

    def _units_of(self, *arguments: Any) -> list[UnitArray]:
        return [factor.units.reshape(-1) for tensor in _tensors_in(*arguments) for factor in self.get(tensor)]


def _tensors_in(*arguments: Any) -> list[torch.Tensor]:
    return [item for item in flat(arguments) if isinstance(item, torch.Tensor)]


def _layouts(call: Call, func: Any) -> list[Layout] | None:
    """Return the outputs' layouts; None for an operation without a rule, or of which its rule knows too little."""
    rule = rule_of(func)
    if rule is None:
        return None
    try:
        layouts = [of_axes(given) if isinstance(given, list) else given for given in rule(call)]
    except (NotUnderstood, IndexError, KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError):
        return None
    fitting = len(layouts) == len(call.outputs) and all(
        tuple(tensor.shape[axis] for axis in factor.axes) == factor.units.shape
        for tensor, layout in zip(call.outputs, layouts, strict=True)
        for factor in layout
        if factor.axes
    )
    return layouts if fitting else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Traced:
    """What the run of a model showed.

    Attributes:
        groups: The channel groups, each tried.
        unknown: By tensor and axis, the operations without a rule that its channels take part in.
        failed: Groups that changed the outputs in a trial, or for which no trial was left.
    """

    groups: tuple[ChannelGroup, ...]
    unknown: Mapping[tuple[str, int], tuple[str, ...]]
    failed: tuple[ChannelGroup, ...]


def trace(model: nn.Module, example: Example | None, *, ask: Ask | None = None) -> Traced:
    """Find the channel groups of *model*; see `ticketguard.graph.channel_groups`."""
    probe = probe_of(model, example, ask=ask)
    tensors = _movable(probe.model)
    units = Units()
    tracer = _Tracer(units)
    drawn: dict[int, Labels] = {}  # a tensor of two names has its units once
    for tensor in tensors.values():
        if id(tensor) not in drawn:
            drawn[id(tensor)] = [units.fresh(size) if size > 1 else None for size in tensor.shape]
            tracer.set(tensor, of_axes(drawn[id(tensor)]))
    with tracer:
        answers = probe.ask(probe.model)
    for answer in answers:
        for factor in tracer.get(answer):
            units.freeze(factor.units)
    labels = {name: drawn[id(tensor)] for name, tensor in sorted(tensors.items())}
    channel_of, is_frozen = units.resolve()
    groups = _collect(channel_of, is_frozen, labels)
    holding = that_hold(probe, tensors, groups)
    return Traced(
        groups=holding,
        unknown=_unknown(channel_of, tracer.unknown, labels),
        failed=tuple(group for group in groups if group not in holding),
    )


def _movable(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint, under every name; buffers that are not in one cannot be reordered."""
    kept = model.state_dict(keep_vars=True)
    buffers = {name: tensor for name, tensor in model.named_buffers(remove_duplicate=False) if name in kept}
    return {**dict(model.named_parameters(remove_duplicate=False)), **buffers}


def _unknown(
    channel_of: UnitArray, unknown: Mapping[str, list[UnitArray]], labels: Mapping[str, Labels]
) -> dict[tuple[str, int], tuple[str, ...]]:
    found: dict[tuple[str, int], list[str]] = defaultdict(list)
    for operation, frozen in sorted(unknown.items()):
        channels = np.unique(channel_of[np.concatenate(frozen)]) if frozen else ()
        for name, axes in labels.items():
            for axis, units in enumerate(axes):
                if units is not None and np.isin(channel_of[units], channels).any():
                    found[name, axis].append(operation)
    return {place: tuple(operations) for place, operations in found.items()}


def _collect(
    channel_of: UnitArray, is_frozen: npt.NDArray[np.bool_], labels: Mapping[str, Labels]
) -> tuple[ChannelGroup, ...]:
    """Gather interchangeable channels: the same tensors and axes, equally often."""
    alike: dict[tuple[Any, ...], list[dict[tuple[str, int], list[int]]]] = defaultdict(list)
    for where in _places(channel_of, is_frozen, labels).values():
        if len(where) > 1:  # a channel that only one tensor knows is not used by the model
            alike[tuple((place, len(positions)) for place, positions in where.items())].append(where)
    groups = []
    for signature, channels in alike.items():
        if len(channels) > 1:
            group = []
            for place, _ in signature:
                tensor, axis = place
                group += _members(tensor, axis, np.array([where[place] for where in channels]))
            groups.append(tuple(group))
    return tuple(sorted(groups, key=lambda group: [(member.tensor, member.axis) for member in group]))


def _places(
    channel_of: UnitArray, is_frozen: npt.NDArray[np.bool_], labels: Mapping[str, Labels]
) -> dict[int, dict[tuple[str, int], list[int]]]:
    """Return, for every channel that may move, its positions on each axis of each tensor."""
    places: dict[int, dict[tuple[str, int], list[int]]] = defaultdict(dict)
    for name, axes in labels.items():
        for axis, units in enumerate(axes):
            channels = channel_of[units] if units is not None else np.zeros(0, dtype=np.int64)
            movable = np.flatnonzero(~is_frozen[channels])
            for position, channel in zip(movable.tolist(), channels[movable].tolist(), strict=True):
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
