"""What every method needs once: exact global top-k, the guard against empty layers, a quota of secret edges."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ticketguard.errors import ConfigurationError, TicketguardError
from ticketguard.ticket import Array, BoolArray, Mask


def full_mask(shapes: Mapping[str, tuple[int, ...]]) -> Mask:
    """Return the mask that keeps everything."""
    return Mask(layers={name: np.ones(shape, dtype=np.bool_) for name, shape in shapes.items()})


def global_top_k(scores: Mapping[str, Array], keep: int, *, within: Mask) -> Mask:
    """Keep the *keep* highest scores of all layers together, among the positions that *within* keeps.

    Equal scores are kept in order of layer name and position. A layer that would be left empty keeps its highest
    score, and the lowest kept scores elsewhere make room for it (the guard against layer collapse: Tanaka et al. 2020,
    "Pruning neural networks without any data by iteratively conserving synaptic flow", section 4).

    Args:
        scores: Per layer, shape as its mask.
        keep: Number of positions to keep, exactly.
        within: Where positions may be kept.

    Raises:
        ConfigurationError: There are fewer positions than *keep*, or more layers.
        TicketguardError: A score is not a number.
    """
    names = list(within)
    living = sum(bool(within[name].any()) for name in names)
    if not living <= keep <= within.kept:
        raise ConfigurationError(
            f"cannot keep {keep} of {within.kept} weights in {living} layers: choose another density"
        )
    flat = np.concatenate([np.asarray(scores[name]).reshape(-1) for name in names])
    alive = np.concatenate([within[name].reshape(-1) for name in names])
    ends = [0, *np.cumsum([within[name].size for name in names])]
    _require_numbers(flat[alive])
    best = [
        first + int(np.where(alive[first:end], flat[first:end], -np.inf).argmax())
        for first, end in itertools.pairwise(ends)
        if alive[first:end].any()
    ]
    # The best of every layer goes first; behind them all others compete.
    kept = np.zeros(flat.size, dtype=np.bool_)
    kept[best] = True
    alive[best] = False
    others = np.flatnonzero(alive)
    kept[others[largest(flat[others], keep - living)]] = True
    parts = np.split(kept, ends[1:-1])
    return Mask(layers={name: part.reshape(within[name].shape) for name, part in zip(names, parts, strict=True)})


def _require_numbers(scores: Array) -> None:
    if np.isnan(scores).any():
        raise TicketguardError(
            "scores of weights are not finite numbers: the search diverged, or the weights it started from are not "
            "finite: lower the learning rate, or check the weights"
        )


def comparable(scores: Mapping[str, Array], counts: Mapping[str, int]) -> dict[str, Array]:
    """Return scores of the same order within each layer whose global top-k keeps *counts* of each.

    For methods that fix how much each layer keeps: the choice over all layers, and a mark's share in it, stay one. A
    layer's ranks are shifted so that those of its highest *counts* scores are above zero and all others are not.

    Args:
        scores: Per layer, shape as its mask; of equal ones the first rank higher.
        counts: Number of positions to keep, per layer.

    Raises:
        TicketguardError: A score is not a number.
    """
    ranked = {}
    for name, count in counts.items():
        _require_numbers(scores[name])
        order = np.argsort(-scores[name].reshape(-1), kind="stable")
        ranks = np.empty(order.size, dtype=np.float64)
        ranks[order] = count - np.arange(order.size)
        ranked[name] = ranks.reshape(scores[name].shape)
    return ranked


def largest(values: npt.NDArray[Any], count: int) -> BoolArray:
    """Mark the *count* largest of *values*, shape (n,); of equal ones the first. Takes O(n) time."""
    if count <= 0:
        return np.zeros(values.size, dtype=np.bool_)
    if count >= values.size:
        return np.ones(values.size, dtype=np.bool_)
    threshold = np.partition(values, values.size - count)[values.size - count]
    chosen: BoolArray = values > threshold
    chosen[np.flatnonzero(values == threshold)[: count - int(chosen.sum())]] = True
    return chosen


def with_quota(
    scores: Mapping[str, Array], mask: Mask, *, within: Mask, secret: Mapping[str, npt.NDArray[np.int64]], share: float
) -> Mask:
    """Exchange edges of *mask*, in each layer, until *share* of them more than chance gives are secret.

    The highest scores of either kind stay: what a search prefers decides, at the quota, which edges the mark takes.

    Args:
        scores: Per layer, shape as its mask.
        mask: What the scores alone would keep; every layer keeps its number of edges.
        within: Where edges may be.
        secret: Per layer flat positions of the secret edges.
        share: Share of each layer's edges, in [0, 1).
    """
    layers = {}
    for name in mask:
        layer, allowed = mask[name].reshape(-1), within[name].reshape(-1)
        is_secret = np.zeros(layer.size, dtype=np.bool_)
        is_secret[secret[name]] = True
        edges, inside, outside = (
            int(layer.sum()),
            np.flatnonzero(is_secret & allowed),
            np.flatnonzero(allowed & ~is_secret),
        )
        quota = min(round(edges * (share + len(secret[name]) / layer.size)), len(inside), edges)
        quota = max(quota, int((layer & is_secret).sum()), edges - len(outside))
        flat = np.asarray(scores[name], dtype=np.float64).reshape(-1)
        kept = np.zeros(layer.size, dtype=np.bool_)
        kept[inside[largest(flat[inside], quota)]] = True
        kept[outside[largest(flat[outside], edges - quota)]] = True
        layers[name] = kept.reshape(mask[name].shape)
    return Mask(layers=layers)
