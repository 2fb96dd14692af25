"""Which of a layer's edges move into the secret positions, and which of a full layer's are removed outside of them."""

from __future__ import annotations

import math

import numpy as np

from ticketguard.embedding.interface import Levels, Positions
from ticketguard.keyed import KeyedStream
from ticketguard.ticket import Array, BoolArray

# Uniform draws in [0, 1) have as many bits as a double's fraction holds.
LEVEL_STEPS = 2**53
# The highest probability of an edge that its channels' degrees may say: odds have to end somewhere.
MOST_LIKELY = 0.95


def move_edges(
    layer: BoolArray, *, secret: Positions, kept_strength: Array, luck: KeyedStream, share: float, fixed: Positions
) -> tuple[BoolArray, Positions]:
    """Move a share of a layer's edges into the secret positions: the weakest outside of them go, others come at random.

    Args:
        layer: The mask.
        secret: Flat secret positions.
        kept_strength: Flat magnitudes of the trained weights.
        luck: Draws those that come, where edges are many.
        share: Of the edges.
        fixed: Flat positions that other marks decided: nothing comes or goes there.

    Returns:
        The layer, and the flat positions that came, ascending.
    """
    flat = layer.reshape(-1).copy()
    is_secret = np.zeros(flat.size, dtype=np.bool_)
    is_secret[secret] = True
    is_free = np.ones(flat.size, dtype=np.bool_)
    is_free[fixed] = False
    leaving = np.flatnonzero(flat & ~is_secret & is_free)
    coming = np.flatnonzero(~flat & is_secret & is_free)
    odds = _odds_of_an_edge(layer)[coming]
    count = min(round(share * int(flat.sum())), len(leaving), len(coming))
    leaving = leaving[np.argsort(kept_strength[leaving], kind="stable")[:count]]
    coming = coming[_drawn_by_weight(odds, luck)[:count]]
    flat[leaving] = False
    flat[coming] = True
    return flat.reshape(layer.shape), np.sort(coming)


def with_holes(layer: BoolArray, *, secret: Positions, luck: KeyedStream, holes: int) -> BoolArray:
    """Return a full layer without so many edges, drawn at random outside the secret positions; one stays at least."""
    flat = layer.reshape(-1).copy()
    outside = np.setdiff1d(np.arange(flat.size), secret, assume_unique=True)
    flat[outside[luck.distinct(len(outside), max(0, min(holes, len(outside) - 1)))]] = False
    return flat.reshape(layer.shape)


def _odds_of_an_edge(layer: BoolArray) -> Levels:
    """Return, per flat position, the odds that an edge is there, given the degrees of its row and column."""
    kernels = layer.reshape(layer.shape[0], -1, math.prod(layer.shape[2:]))
    rows, columns = kernels.mean(axis=(1, 2)), kernels.mean(axis=(0, 2))
    likely = np.multiply.outer(rows, columns) / max(float(layer.mean()), 1 / layer.size)
    likely = np.repeat(likely.reshape(-1), kernels.shape[2]).clip(0.0, MOST_LIKELY)
    return np.asarray(likely / (1.0 - likely))


def _drawn_by_weight(weights: Levels, luck: KeyedStream) -> Positions:
    """Return the order in which items are drawn, one after the other, with probabilities proportional to weights.

    Those without weight come last. (Exponential keys: Efraimidis and Spirakis, "Weighted random sampling with a
    reservoir", Inf. Process. Lett. 97(5), 2006.)
    """
    uniform = (luck.integers(LEVEL_STEPS, len(weights)) + 0.5) / LEVEL_STEPS
    with np.errstate(divide="ignore"):
        return np.argsort(-np.log(uniform) / weights, kind="stable")
