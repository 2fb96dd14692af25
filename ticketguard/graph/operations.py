"""What each tensor operation says about channels: the rules `tracing` follows.

A rule gets the operation's arguments and outputs and returns the outputs' *labels*: per axis the units
along it, or None where positions have a fixed meaning (batch, space, the model's own inputs). Rules are
keyed by ATen's operator names. An operation without a rule freezes the channels it touches, which is always safe.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch

from ticketguard.graph.units import Call, Labels, Units

Rule: TypeAlias = Callable[[Call], list[Labels]]


def freeze_all(call: Call) -> list[Labels]:
    """Follow an operation nothing is known about: whatever goes in stays where it is."""
    pending = [*call.args, *call.kwargs.values()]
    while pending:
        item = pending.pop()
        if isinstance(item, (tuple, list)):
            pending += item
        elif isinstance(item, torch.Tensor):
            for labels in call.labels_of(item):
                call.units.freeze(labels)
    return [[None] * output.ndim for output in call.outputs]


def pointwise(call: Call) -> list[Labels]:
    """Join all tensor arguments axis by axis under broadcasting."""
    tensors = [item for item in [*call.args, *call.kwargs.values()] if isinstance(item, torch.Tensor)]
    joined: Labels = []
    for axis in range(-call.outputs[0].ndim, 0):
        present = [
            call.labels_of(tensor)[axis] for tensor in tensors if tensor.ndim >= -axis and tensor.shape[axis] > 1
        ]
        result = present[0] if present else None
        for other in present[1:]:
            result = call.units.join(result, other)
        joined.append(result)
    return [joined for _ in call.outputs]


def _uniform(call: Call) -> list[Labels]:
    # Equal values everywhere: any order of channels is as good as another.
    return [[call.units.fresh(size) if size > 1 else None for size in output.shape] for output in call.outputs]


def _convolution(call: Call) -> list[Labels]:
    inputs, weight, bias = call.args[:3]
    transposed, groups = call.args[6], call.args[8]
    taken, made = (0, 1) if transposed else (1, 0)
    given, kernel = call.labels_of(inputs), call.labels_of(weight)
    if any(labels is not None for labels in given[2:]) or (transposed and groups > 1):
        return freeze_all(call)
    if groups == 1:
        call.units.join(given[1], kernel[taken])
        channels = kernel[made]
    else:
        # One filter group moves as a whole, its inputs and outputs together; depthwise groups are single channels.
        call.units.freeze(kernel[1])
        call.units.join(call.units.join_blocks(given[1], groups), call.units.join_blocks(kernel[0], groups))
        channels = kernel[0]
    if bias is not None:
        call.units.join(channels, call.labels_of(bias)[0])
    return [[given[0], channels, *[None] * (call.outputs[0].ndim - 2)]]


def _batch_norm(call: Call) -> list[Labels]:
    given = call.first()
    for tensor in call.args[1:5]:
        if isinstance(tensor, torch.Tensor):
            call.units.join(given[1], call.labels_of(tensor)[0])
    return call.with_blanks(given)


def _layer_norm(call: Call) -> list[Labels]:
    given = call.first()
    for tensor in call.args[2:4]:
        if isinstance(tensor, torch.Tensor):
            for axis in range(-tensor.ndim, 0):
                call.units.join(given[axis], call.labels_of(tensor)[axis])
    return call.with_blanks(given)


def _group_norm(call: Call) -> list[Labels]:
    given = call.first()
    for tensor in call.args[1:3]:
        if isinstance(tensor, torch.Tensor):
            call.units.join(given[1], call.labels_of(tensor)[0])
    call.units.join_blocks(given[1], call.args[6])
    return call.with_blanks(given)


def _matrix_product(call: Call) -> list[Labels]:
    *added, left, right = [item for item in call.args if isinstance(item, torch.Tensor)]
    one, other = call.labels_of(left), call.labels_of(right)
    call.units.join(one[-1], other[-2])
    batch = [call.units.join(a, b) for a, b in zip(one[:-2], other[:-2], strict=True)]
    product: Labels = [*batch, one[-2], other[-1]]
    for tensor in added:
        for axis, labels in enumerate(reversed(call.labels_of(tensor)), start=1):
            if tensor.shape[-axis] > 1:
                call.units.join(labels, product[-axis])
    return [product]


def _view(call: Call) -> list[Labels]:
    given, old, new = call.first(), list(call.args[0].shape), list(call.outputs[0].shape)
    result: Labels = []
    i = j = 0
    while i < len(old) or j < len(new):
        first, target = i, j
        i, j = min(i + 1, len(old)), min(j + 1, len(new))
        # Grow the two stretches of axes until both hold the same number of positions.
        while math.prod(old[first:i]) != math.prod(new[target:j]):
            if math.prod(old[first:i]) < math.prod(new[target:j]):
                i += 1
            else:
                j += 1
        result += _reshaped(call.units, given[first:i], old[first:i], new[target:j])
    return [result]


def _reshaped(units: Units, given: Labels, old: Sequence[int], new: Sequence[int]) -> Labels:
    """Carry labels over from axes *old* to axes *new* of equally many positions."""
    large = [axis for axis, size in enumerate(new) if size > 1]
    labelled = [axis for axis, labels in enumerate(given) if labels is not None and old[axis] > 1]
    result: Labels = [None] * len(new)
    if len(labelled) != 1 or not large or (len(large) > 1 and math.prod(old) != old[labelled[0]]):
        for axis in labelled:
            units.freeze(given[axis])
        return result
    axis = labelled[0]
    labels = given[axis]
    assert labels is not None
    if len(large) == 1:  # merged: every channel fills as many positions as the axes after it have
        result[large[0]] = np.tile(np.repeat(labels, math.prod(old[axis + 1 :])), math.prod(old[:axis]))
    else:  # split, such as into attention heads: the first axis moves, what is inside stays in order
        result[large[0]] = units.join_blocks(labels, new[large[0]])
    return result


def _permute(call: Call) -> list[Labels]:
    given = call.first()
    order = list(range(len(given)))
    name = call.name
    if name == "permute":
        order = [axis % len(given) for axis in call.args[1]]
    elif name == "transpose":
        order[call.args[1]], order[call.args[2]] = order[call.args[2]], order[call.args[1]]
    elif len(given) == 2:  # t
        order = [1, 0]
    return [[given[axis] for axis in order]]


def _unsqueeze(call: Call) -> list[Labels]:
    given = call.first()
    given.insert(call.args[1] % call.outputs[0].ndim, None)
    return [given]


def _chosen_axes(call: Call) -> set[int]:
    """Return the axes an operation names, one or several; without a name it means all."""
    count = call.args[0].ndim
    chosen = call.argument(1, "dim", None)
    if chosen is None or chosen == []:
        return set(range(count))
    return {axis % count for axis in (chosen if isinstance(chosen, (tuple, list)) else [chosen])}


def _squeeze(call: Call) -> list[Labels]:
    given = call.first()
    dropped = {axis for axis in _chosen_axes(call) if call.args[0].shape[axis] == 1}
    return [[labels for axis, labels in enumerate(given) if axis not in dropped]]


def _expand(call: Call) -> list[Labels]:
    given = call.first()
    grown = call.outputs[0].ndim - len(given)
    labels: Labels = [*[None] * grown, *given]
    for axis, size in enumerate(call.outputs[0].shape):
        if size > 1 and (axis < grown or call.args[0].shape[axis - grown] == 1):
            labels[axis] = call.units.fresh(size)  # one position repeated: equal values everywhere
    return [labels]


def _cat(call: Call) -> list[Labels]:
    tensors = [tensor for tensor in call.args[0] if tensor.numel()]
    axis = call.argument(1, "dim", 0) % call.outputs[0].ndim
    result: Labels = []
    for other in range(call.outputs[0].ndim):
        parts = [call.labels_of(tensor)[other] for tensor in tensors]
        if other == axis:
            for index, part in enumerate(parts):
                if part is None:
                    parts[index] = call.units.fresh(tensors[index].shape[axis])
                    call.units.freeze(parts[index])
            result.append(np.concatenate([part for part in parts if part is not None]))
        else:
            joined = parts[0]
            for part in parts[1:]:
                joined = call.units.join(joined, part)
            result.append(joined)
    return [result]


def _slice(call: Call) -> list[Labels]:
    given = call.first()
    axis = call.argument(1, "dim", 0)
    labels = given[axis]
    if labels is not None:
        stretch = slice(call.argument(2, "start", None), call.argument(3, "end", None), call.argument(4, "step", 1))
        given[axis] = labels[stretch]
    return [given]


def _select(call: Call) -> list[Labels]:
    given = call.first()
    call.units.freeze(given.pop(call.args[1] % len(given)))  # one position is taken out by its place
    return [given]


def _split(call: Call) -> list[Labels]:
    given = call.first()
    axis = call.argument(2, "dim", 0) % len(given)
    results: list[Labels] = []
    start = 0
    for output in call.outputs:
        labels = given[axis]
        part = None if labels is None else labels[start : start + output.shape[axis]]
        results.append([part if other == axis else given[other] for other in range(len(given))])
        start += output.shape[axis]
    return results


def _pad(call: Call) -> list[Labels]:
    given = call.first()
    for index, (before, after) in enumerate(zip(call.args[1][::2], call.args[1][1::2], strict=True), start=1):
        labels = given[-index]
        if labels is not None and (before < 0 or after < 0):
            return freeze_all(call)
        if labels is not None:
            given[-index] = np.concatenate([call.units.fresh(before), labels, call.units.fresh(after)])
    return [given]


def _reduction(call: Call) -> list[Labels]:
    given = call.first()
    dropped = _chosen_axes(call)
    if call.outputs[0].ndim == len(given):
        return [[None if axis in dropped else labels for axis, labels in enumerate(given)] for _ in call.outputs]
    return [[labels for axis, labels in enumerate(given) if axis not in dropped] for _ in call.outputs]


def _spatial(call: Call) -> list[Labels]:
    given = call.first()
    for labels in given[2:]:
        call.units.freeze(labels)
    return [[*given[:2], *[None] * (output.ndim - 2)] for output in call.outputs]


def _unchanged(call: Call) -> list[Labels]:
    given = call.first()
    return [given if output.ndim == len(given) else [None] * output.ndim for output in call.outputs]


_FAMILIES: dict[Rule, str] = {
    _uniform: "zeros ones full new_zeros new_ones new_full zeros_like ones_like full_like",
    _convolution: "convolution",
    _batch_norm: "native_batch_norm _native_batch_norm_legit_no_training cudnn_batch_norm",
    _layer_norm: "native_layer_norm",
    _group_norm: "native_group_norm",
    _matrix_product: "mm addmm bmm baddbmm",
    _view: "view _unsafe_view _reshape_alias",
    _permute: "t transpose permute",
    _unsqueeze: "unsqueeze",
    _squeeze: "squeeze",
    _expand: "expand",
    _cat: "cat",
    _slice: "slice",
    _select: "select",
    _split: "split split_with_sizes",
    _pad: "constant_pad_nd",
    _reduction: "mean sum amax amin",
    _spatial: "max_pool2d_with_indices avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d "
    "upsample_nearest2d upsample_bilinear2d",
    _unchanged: "_softmax _log_softmax clone _to_copy detach alias lift_fresh native_dropout",
    pointwise: "copy_ hardswish prelu _prelu_kernel masked_fill",  # not tagged as pointwise by torch itself
}
RULES: dict[str, Rule] = {name: rule for rule, names in _FAMILIES.items() for name in names.split()}
