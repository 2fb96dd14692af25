"""Operations that take or put positions where whole numbers say."""

from __future__ import annotations

import dataclasses

import torch

from ticketguard.graph.rules.call import Call, NotUnderstood
from ticketguard.graph.units import Labels


def embedding(call: Call) -> list[Labels]:
    """Follow a table's rows, looked up by whole numbers: which row is which, the input says."""
    table, indices = call.args[:2]
    rows, columns = call.labels_of(table)
    for labels in [rows, *call.labels_of(indices)]:
        call.units.freeze(labels)
    if call.name == "_embedding_bag":  # each bag sums some rows
        return call.with_blanks([None, columns])
    return [[*[None] * indices.ndim, columns]]


def index(call: Call) -> list[Labels]:
    """Follow a look-up in some axes.

    Where the code says which positions are taken, they are followed; where the input does, they have a fixed meaning.
    """
    given, chosen = call.first(), list(call.args[1])
    tensors, places = _looked_up(call, chosen)
    found: Labels = [None] * max(one.ndim for one in tensors)
    labels = given[places[0]]
    if len(tensors) == 1 and tensors[0].ndim == 1 and labels is not None and call.is_constant(tensors[0]):
        found = [labels[tensors[0].numpy()]]
    else:
        for place in places:
            call.units.freeze(given[place])
    others = [labels for axis, labels in enumerate(given) if axis not in places]
    # Neighbouring indices leave their axes where they were, others come first.
    first = places[0] if places == list(range(places[0], places[-1] + 1)) else 0
    return [[*others[:first], *found, *others[first:]]]


def index_select(call: Call) -> list[Labels]:
    """Follow a look-up in one axis."""
    blanks = [None] * (call.args[1] % call.args[0].ndim)
    return index(dataclasses.replace(call, args=[call.args[0], [*blanks, call.args[2]]]))


def index_put(call: Call) -> list[Labels]:
    """Follow values that are put, or added, at some places of the first axes."""
    given, chosen, values = call.first(), list(call.args[1]), call.args[2]
    _, places = _looked_up(call, chosen)
    if places != list(range(len(places))):
        raise NotUnderstood
    for place in places:
        call.units.freeze(given[place])
        given[place] = None
    put = call.labels_of(values)
    for axis in range(1, values.ndim + 1):
        in_place = axis <= len(given) - len(places)
        if in_place and values.shape[-axis] > 1:
            given[-axis] = call.units.join(given[-axis], put[-axis])
        else:
            call.units.freeze(put[-axis])
    return [given]


def index_add(call: Call) -> list[Labels]:
    """Follow rows that are added where whole numbers say."""
    return _along(call, call.args[3], call.args[2])


def gather(call: Call) -> list[Labels]:
    """Follow a look-up on one axis that is another one at every place of the other axes."""
    found = _along(call, call.args[2], call.args[2])
    return [found[0]]


def scatter(call: Call) -> list[Labels]:
    """Follow values that are put on one axis, elsewhere at every place of the other axes."""
    source = call.args[3]
    found = _along(call, call.args[2], call.args[2])
    return _along(call, source, call.args[2]) if isinstance(source, torch.Tensor) and source.ndim else found


def _along(call: Call, other: torch.Tensor, where: torch.Tensor) -> list[Labels]:
    """Join all axes of the first argument to another tensor's, but for the one on which positions are told apart."""
    axis = call.args[1] % call.args[0].ndim
    given, partner = call.first(), call.labels_of(other)
    sizes = [
        (one, two)
        for place, (one, two) in enumerate(zip(call.args[0].shape, other.shape, strict=True))
        if place != axis
    ]
    if any(one != two for one, two in sizes):
        raise NotUnderstood
    for labels in (given[axis], partner[axis], *(call.labels_of(where) if where.ndim == 1 else ())):
        call.units.freeze(labels)
    return [[None if place == axis else call.units.join(given[place], partner[place]) for place in range(len(given))]]


def _looked_up(call: Call, chosen: list[torch.Tensor | None]) -> tuple[list[torch.Tensor], list[int]]:
    """Return the indices of a look-up, and the axes they are for."""
    tensors = [one for one in chosen if one is not None]
    if any(one.dtype in (torch.bool, torch.uint8) for one in tensors):
        raise NotUnderstood
    for one in tensors:
        for factor in call.layout_of(one):
            call.units.freeze(factor.units)
    return tensors, [axis for axis, one in enumerate(chosen) if one is not None]
