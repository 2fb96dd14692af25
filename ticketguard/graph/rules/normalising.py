"""Normalisations: their scales and shifts are the channels'."""

from __future__ import annotations

import torch

from ticketguard.graph.rules.call import Call
from ticketguard.graph.units import Labels


def batch_norm(call: Call) -> list[Labels]:
    """Join scale, shift and statistics to the channels."""
    return _scaled(call, call.args[1:5])


def layer_norm(call: Call) -> list[Labels]:
    """Join scale and shift to the last axes; RMS normalisation has no shift."""
    given = call.first()
    for tensor in call.args[2:4]:
        if isinstance(tensor, torch.Tensor):
            for axis, labels in enumerate(reversed(call.labels_of(tensor)), start=1):
                call.units.join(given[-axis], labels)
    return call.with_blanks(given)


def group_norm(call: Call) -> list[Labels]:
    """Join scale and shift to the channels, whose groups move as blocks if there are several."""
    if call.args[6] > 1:
        call.units.join_blocks(call.first()[1], call.args[6])
    return _scaled(call, call.args[1:3])


def weight_norm(call: Call) -> list[Labels]:
    """Join a kernel's one axis that has lengths of its own to those lengths."""
    given, lengths = call.first(), call.labels_of(call.args[1])
    axis = call.argument(2, "dim", 0) % len(given)
    call.units.join(given[axis], lengths[axis])
    return call.with_blanks(given)


def _scaled(call: Call, tensors: object) -> list[Labels]:
    given = call.first()
    for tensor in tensors if isinstance(tensors, (tuple, list)) else ():
        if isinstance(tensor, torch.Tensor):
            call.units.join(given[1], call.labels_of(tensor)[0])
    return call.with_blanks(given)
