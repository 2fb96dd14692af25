"""Operations on images, volumes and signals: shape (batch, channels, *space)."""

from __future__ import annotations

import math

import numpy as np

from ticketguard.graph.rules.call import Call, NotUnderstood
from ticketguard.graph.units import AxisLabels, Labels


def spatial(call: Call) -> list[Labels]:
    """Follow an operation on each channel's plane."""
    given = call.first()
    for labels in given[2:]:
        call.units.freeze(labels)
    return [[*given[:2], *[None] * (output.ndim - 2)] for output in call.outputs]


def reshuffled(call: Call) -> list[Labels]:
    """Follow pixels that become channels or channels that become pixels, and channels that are interleaved."""
    given = call.first()
    channels, old, new = given[-3], call.args[0].shape[-3], call.outputs[0].shape[-3]
    if any(labels is not None for labels in given[-2:]):
        raise NotUnderstood
    result: AxisLabels = channels
    if channels is not None and call.name.endswith("channel_shuffle"):
        result = channels.reshape(call.args[1], -1).T.reshape(-1)
    elif channels is not None:
        result = np.repeat(channels, new // old) if new > old else call.units.join_blocks(channels, new)
    return [[*given[:-3], result, None, None]]


def patches(call: Call) -> list[Labels]:
    """Follow windows that are laid out under their channel: ``unfold``'s columns."""
    given = call.first()
    if given[-1] is not None or given[-2] is not None:
        raise NotUnderstood
    channels = given[-3]
    return [[*given[:-3], None if channels is None else np.repeat(channels, math.prod(call.args[1])), None]]


def folded(call: Call) -> list[Labels]:
    """Follow columns of windows that are added up to planes: ``fold``."""
    given = call.first()
    call.units.freeze(given[-1])
    return [[*given[:-2], call.units.join_blocks(given[-2], call.outputs[0].shape[-3]), None, None]]


def windows(call: Call) -> list[Labels]:
    """Follow windows of an axis, which are laid out on a new last axis."""
    given = call.first()
    axis = call.args[1] % len(given)
    call.units.freeze(given[axis])
    given[axis] = None
    return [[*given, None]]


def gate(call: Call) -> list[Labels]:
    """Join an axis's first half, the values, to its second, their gates."""
    given = call.first()
    axis = call.argument(1, "dim", -1) % len(given)
    labels = given[axis]
    if labels is not None:
        given[axis] = call.units.join(labels[: len(labels) // 2], labels[len(labels) // 2 :])
    return [given]
