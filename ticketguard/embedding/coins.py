"""Planted signs: planted edges start with signs that the key gives them.

Every secret position has a fair coin of its own, independent of where the secret positions are, and training leaves
most signs as they start (Zhou et al., "Deconstructing lottery tickets", NeurIPS 2019, section 4: signs are what a
ticket needs of its initial weights). A copy's planted edges therefore agree with their coins, and anybody else's edges
there do as often as not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ticketguard.ticket import Array, BoolArray

if TYPE_CHECKING:
    from ticketguard.embedding.interface import Binding, Positions


def draw_coins(binding: Binding, name: str, secret: Positions) -> BoolArray:
    """Draw the signs of a layer's secret positions.

    Args:
        binding: The mark's secret and commitment.
        name: The layer.
        secret: All of its secret positions, ascending.

    Returns:
        Which of them are to be negative.
    """
    return np.asarray(binding.stream(f"coins/{name}").integers(2, len(secret)) == 0)


def with_coins(weights: Array, planted: Positions, binding: Binding, name: str, secret: Positions) -> Array:
    """Return a layer's start weights with the coins' signs on planted edges.

    Args:
        weights: The rewind weights, in full.
        planted: Flat positions of planted edges, all of them secret.
        binding: The mark's secret and commitment.
        name: The layer.
        secret: All of its secret positions, ascending.
    """
    flat = weights.astype(np.float32).reshape(-1)
    is_negative = draw_coins(binding, name, secret)[np.searchsorted(secret, planted)]
    flat[planted] = np.where(is_negative, -1, 1) * _alive(flat[planted])
    return flat.reshape(weights.shape)


def with_signs(weights: Array, planted: Positions, binding: Binding, name: str) -> Array:
    """Return a layer's start weights with a sign on planted edges that start at exact zero: an imported ticket's."""
    flat = weights.astype(np.float32).reshape(-1)
    zeros = planted[flat[planted] == 0]
    signs = binding.stream(f"signs/{name}").integers(2, len(zeros)) * 2 - 1
    flat[zeros] = signs * _alive(flat[zeros])
    return flat.reshape(weights.shape)


def _alive(values: Array) -> Array:
    """Return magnitudes, tiny ones for zeros: an edge has a sign only if it has a weight."""
    tiny = np.finfo(np.float32).tiny
    return np.asarray(np.where(values == 0, tiny, np.abs(values)))
