"""Channels that a suspect has beyond the reference's, and that are too full to be any of them."""

from __future__ import annotations

import math

import numpy as np

from ticketguard.graph.groups import CHANNEL_AXES
from ticketguard.graph.streams import Shape
from ticketguard.ticket import FloatArray

# A channel with so many times the edges of the median one is too full.
FULLER = 1.5
# Rounds over both axes: a row's edges are counted in the columns that are left.
ROUNDS = 3


def without_full_channels(layer: FloatArray, shape: Shape, *, most: int) -> FloatArray:
    """Return a suspect's layer without its fullest channels, where it has more channels than the reference.

    Dead neurons can be joined to everything, for free, with weights of any size: beside them every row and column of
    the true edges looks weak. Of the channels on an axis only as many as the reference has can be its own, so up to
    the surplus of them is left out, the fullest first, if they are far fuller than most.

    Args:
        layer: Weights, shape (out, in, *kernel).
        shape: The reference's.
        most: A layer with at most so many edges is returned as it is.
    """
    if layer.ndim < CHANNEL_AXES or np.count_nonzero(layer) <= most:
        return layer
    surplus = [max(0, found - wanted) for found, wanted in zip(layer.shape[:CHANNEL_AXES], shape, strict=False)]
    if not any(surplus):
        return layer
    edges = np.count_nonzero(layer.reshape(*layer.shape[:CHANNEL_AXES], -1), axis=-1)
    left = [np.ones(size, dtype=np.bool_) for size in edges.shape]
    for _ in range(ROUNDS):
        for axis in (0, 1):
            degrees = np.where(left[axis], edges.compress(left[1 - axis], axis=1 - axis).sum(axis=1 - axis), 0)
            usual = float(np.median(degrees[degrees > 0])) if degrees.any() else math.inf
            room = surplus[axis] - int(np.count_nonzero(~left[axis]))
            fullest = np.argsort(-degrees, kind="stable")[:room]
            left[axis][fullest[degrees[fullest] > FULLER * usual]] = False
    kept = left[0][:, None] & left[1]
    return np.where(kept.reshape(*kept.shape, *[1] * (layer.ndim - CHANNEL_AXES)), layer, np.float32(0))
