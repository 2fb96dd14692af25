"""What every method needs once: exact global top-k, and the guard against empty layers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ticketguard.errors import ConfigurationError
from ticketguard.ticket import Array, Mask


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
    """
    names = list(within)
    if not len(names) <= keep <= within.kept:
        raise ConfigurationError(
            f"cannot keep {keep} of {within.kept} weights in {len(names)} layers: choose another density"
        )
    flat = np.concatenate([np.asarray(scores[name], dtype=np.float64).reshape(-1) for name in names])
    alive = np.flatnonzero(np.concatenate([within[name].reshape(-1) for name in names]))
    ranked = alive[np.argsort(-flat[alive], kind="stable")]
    ends = np.cumsum([within[name].size for name in names])
    layer_of = np.searchsorted(ends, ranked, side="right")
    # The best of every layer goes first; behind them all others compete.
    _, best = np.unique(layer_of, return_index=True)
    others = np.setdiff1d(np.arange(len(ranked)), best, assume_unique=True)
    chosen = ranked[np.concatenate([best, others])[:keep]]
    kept = np.zeros(int(ends[-1]), dtype=np.bool_)
    kept[chosen] = True
    parts = np.split(kept, ends[:-1])
    return Mask(layers={name: part.reshape(within[name].shape) for name, part in zip(names, parts, strict=True)})
