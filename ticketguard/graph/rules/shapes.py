"""Operations that move positions about and compute nothing."""

from __future__ import annotations

import numpy as np

from ticketguard.graph.layout import Factor, Layout, cut, freeze_alone, is_alone, joined, renamed, reshaped, used
from ticketguard.graph.rules.call import Call, NotUnderstood
from ticketguard.graph.units import Labels


def view(call: Call) -> list[Layout]:
    """Follow a reshape."""
    given = call.args[0]
    if not given.numel() or given.dtype != call.outputs[0].dtype:
        raise NotUnderstood
    return [reshaped(call.layout_of(given), given.shape, call.outputs[0].shape, call.units)]


def permute(call: Call) -> list[Layout]:
    """Follow a reordering of axes."""
    count = call.args[0].ndim
    order = list(range(count))
    if call.name == "permute":
        order = [axis % count for axis in call.args[1]]
    elif call.name == "transpose":
        order[call.args[1]], order[call.args[2]] = order[call.args[2]], order[call.args[1]]
    elif count == 2:  # t
        order = [1, 0]
    return [renamed(call.layout_of(call.args[0]), {axis: place for place, axis in enumerate(order)})]


def unsqueeze(call: Call) -> list[Layout]:
    """Follow a new axis of size 1."""
    new = call.args[1] % call.outputs[0].ndim
    return [renamed(call.layout_of(call.args[0]), {axis: axis + (axis >= new) for axis in range(call.args[0].ndim)})]


def squeeze(call: Call) -> list[Layout]:
    """Follow axes of size 1 that go."""
    given = call.args[0]
    layout = call.layout_of(given)
    dropped = {axis for axis in call.axes(1, "dim") if given.shape[axis] == 1}
    for axis in dropped:
        freeze_alone(layout, axis, call.units)
    left = [axis for axis in range(given.ndim) if axis not in dropped]
    return [renamed(layout, {axis: place for place, axis in enumerate(left)})]


def expand(call: Call) -> list[Layout]:
    """Follow single positions that are repeated: equal values everywhere."""
    given, shape = call.args[0], call.outputs[0].shape
    layout, shift = call.layout_of(given), len(shape) - given.ndim
    repeated = [
        axis for axis in range(len(shape)) if shape[axis] > 1 and (axis < shift or given.shape[axis - shift] == 1)
    ]
    for axis in repeated:
        freeze_alone(layout, axis - shift, call.units)
    kept = renamed(layout, {axis: axis + shift for axis in range(given.ndim) if axis + shift not in repeated})
    alike = [Factor(axes=(axis,), units=call.units.fresh(shape[axis], uniform=True)) for axis in repeated]
    return [(*kept, *alike)]


def repeat(call: Call) -> list[Labels]:
    """Follow whole tensors that are laid out several times."""
    given, times = call.args[0], call.args[1]
    labels: Labels = [*[None] * (len(times) - given.ndim), *call.first()]
    sizes = [*[1] * (len(times) - given.ndim), *given.shape]
    for axis, (units, size, count) in enumerate(zip(labels, sizes, times, strict=True)):
        if count > 1 and size == 1:
            call.units.freeze(units)
            labels[axis] = call.units.fresh(count, uniform=True)
        elif units is not None:
            labels[axis] = np.tile(units, count)
    return [labels]


def concatenate(call: Call) -> list[Labels]:
    """Join other axes; along the chosen one, labels follow each other."""
    tensors = [tensor for tensor in call.args[0] if tensor.numel()]
    axis = call.argument(1, "dim", 0) % call.outputs[0].ndim
    given = [call.labels_of(tensor) for tensor in tensors]
    result: Labels = []
    for other in range(call.outputs[0].ndim):
        parts = [labels[other] for labels in given]
        if other != axis:
            joint = parts[0]
            for part in parts[1:]:
                joint = call.units.join(joint, part)
            result.append(joint)
        elif all(part is None for part in parts):
            result.append(None)
        else:
            for index, part in enumerate(parts):
                if part is None:
                    parts[index] = call.units.fresh(tensors[index].shape[axis])
                    call.units.freeze(parts[index])
            result.append(np.concatenate([part for part in parts if part is not None]))
    return [result]


def stack(call: Call) -> list[Layout]:
    """Join all axes; the new one has a fixed meaning."""
    new = call.argument(1, "dim", 0) % call.outputs[0].ndim
    names = {axis: axis + (axis >= new) for axis in range(call.outputs[0].ndim - 1)}
    wide = {axis for axis, size in enumerate(call.outputs[0].shape) if size > 1 and axis != new}
    first, *others = [renamed(used(call.layout_of(tensor), call.units), names) for tensor in call.args[0]]
    for other in others:
        first = joined(first, other, wide=(wide, wide), ndim=call.outputs[0].ndim, units=call.units)
    return [first]


def slice_(call: Call) -> list[Layout]:
    """Follow a stretch of an axis."""
    axis = call.argument(1, "dim", 0) % call.args[0].ndim
    stretch = slice(call.argument(2, "start", None), call.argument(3, "end", None), call.argument(4, "step", 1))
    return [cut(call.layout_of(call.args[0]), axis, stretch)]


def select(call: Call) -> list[Layout]:
    """Follow one position, which is told from the others by its place."""
    axis, place = call.args[1] % call.args[0].ndim, call.args[2] % call.args[0].shape[call.args[1]]
    return [_selected(call, axis, place)]


def unbind(call: Call) -> list[Layout]:
    """Follow each position of an axis for itself."""
    axis = call.argument(1, "dim", 0) % call.args[0].ndim
    return [_selected(call, axis, place) for place in range(len(call.outputs))]


def _selected(call: Call, axis: int, place: int) -> Layout:
    layout, left = call.layout_of(call.args[0]), [own for own in range(call.args[0].ndim) if own != axis]
    alone = [Factor(axes=(), units=factor.units.reshape(-1)) for factor in layout if is_alone(factor, axis)]
    kept = tuple(factor for factor in layout if not is_alone(factor, axis))
    return (*renamed(cut(kept, axis, slice(place, place + 1)), {own: own - (own > axis) for own in left}), *alone)


def split(call: Call) -> list[Layout]:
    """Follow the stretches that an axis is cut into."""
    axis = call.argument(2, "dim", 0) % call.args[0].ndim
    layout = call.layout_of(call.args[0])
    results = []
    start = 0
    for output in call.outputs:
        results.append(cut(layout, axis, slice(start, start + output.shape[axis])))
        start += output.shape[axis]
    return results


def pad(call: Call) -> list[Labels]:
    """Follow equal values put before and after an axis's own."""
    given = call.first()
    for index, (before, after) in enumerate(zip(call.args[1][::2], call.args[1][1::2], strict=True), start=1):
        labels = given[-index]
        if labels is not None and (before < 0 or after < 0):
            raise NotUnderstood
        if labels is not None:
            ends = [call.units.fresh(count, uniform=True) for count in (before, after)]
            given[-index] = np.concatenate([ends[0], labels, ends[1]])
    return [given]


def as_complex(call: Call) -> list[Labels]:
    """Follow pairs on the last axis that become one number each."""
    *given, pair = call.first()
    call.units.freeze(pair)
    return [given]


def as_real(call: Call) -> list[Layout]:
    """Follow numbers that become pairs on a new last axis."""
    return [call.layout_of(call.args[0])]


def as_strided(call: Call) -> list[Layout]:
    """Follow a memory layout that is told anew, where it leaves positions in their order."""
    found = call.outputs[0]
    wide = [axis for axis, size in enumerate(found.shape) if size > 1]
    if len(wide) != 1 or found.stride(wide[0]) != 1 or found.storage_offset():
        raise NotUnderstood
    return [tuple(factor for factor in call.layout_of(call.args[0]) if factor.axes == tuple(wide))]
