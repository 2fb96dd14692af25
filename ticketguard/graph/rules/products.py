"""Convolutions and matrix products: operations that sum over channels."""

from __future__ import annotations

import numpy as np
import torch

from ticketguard.graph.rules.call import Call, NotUnderstood
from ticketguard.graph.units import AxisLabels, Labels


def convolution(call: Call) -> list[Labels]:
    """Join inputs to a kernel's inputs, of any number of spatial axes, transposed or not."""
    inputs, weight, bias = call.args[:3]
    transposed, groups = call.args[6], call.args[8]
    given, kernel = call.labels_of(inputs), call.labels_of(weight)
    if any(labels is not None for labels in given[2:]):
        raise NotUnderstood
    for labels in kernel[2:]:  # places
        call.units.freeze(labels)
    channels: AxisLabels
    if groups == 1:
        taken, made = (0, 1) if transposed else (1, 0)
        call.units.join(given[1], kernel[taken])
        channels = kernel[made]
    else:
        # One filter group moves as a whole, its inputs and outputs together; depthwise groups are single channels.
        call.units.freeze(kernel[1])
        blocks = call.units.join_blocks(kernel[0], groups)
        call.units.join(call.units.join_blocks(given[1], groups), blocks)
        channels = kernel[0]
        if transposed:  # axis 0 of its kernel is its inputs'
            channels = None if blocks is None else np.repeat(blocks, weight.shape[1])
    if bias is not None:
        call.units.join(channels, call.labels_of(bias)[0])
    return [[given[0], channels, *[None] * (call.outputs[0].ndim - 2)]]


def matrix_product(call: Call) -> list[Labels]:
    """Join the axes that are summed over, and those of what is added."""
    *added, left, right = [item for item in call.args if isinstance(item, torch.Tensor)]
    one, other = call.labels_of(left), call.labels_of(right)
    # A vector has neither rows on the left nor columns on the right.
    before, summed = one[:-1], one[-1]
    call.units.join(summed, other[-2] if right.ndim > 1 else other[-1])
    batch = [call.units.join(a, b) for a, b in zip(before[:-1], other[:-2], strict=True)]
    product: Labels = [*batch, *before[-1:], *([other[-1]] if right.ndim > 1 else [])]
    for tensor in added:
        for axis, labels in enumerate(reversed(call.labels_of(tensor)), start=1):
            if tensor.shape[-axis] > 1:
                call.units.join(labels, product[-axis])
            elif call.outputs[0].shape[-axis] > 1:
                call.units.freeze(labels)
    return [product]
