from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ticketguard.graph.sketches import sketch

SHAPES = [(7, 5), (6, 4, 3, 3), (4, 1, 5), (1, 9), (5, 3, 7, 7)]


def edges(seed: int, shape: tuple[int, ...], density: float = 0.4) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < density


@given(st.integers(0, 10**6), st.sampled_from(SHAPES))
def test_an_order_of_channels_changes_nothing(seed: int, shape: tuple[int, ...]) -> None:
    layer = edges(seed, shape)
    generator = np.random.default_rng(seed)
    other = layer[generator.permutation(shape[0])][:, generator.permutation(shape[1])]
    np.testing.assert_allclose(
        sketch(np.flatnonzero(layer), shape), sketch(np.flatnonzero(other), shape), rtol=1e-5, atol=1e-5
    )


@given(st.integers(0, 10**6), st.sampled_from(SHAPES))
def test_channels_twice_over_look_alike(seed: int, shape: tuple[int, ...]) -> None:
    """Numbers of channels and of edges do not matter: a distribution is the same of twice as many."""
    layer = edges(seed, shape)
    twice = np.concatenate([layer, layer])
    one, two = sketch(np.flatnonzero(layer), shape), sketch(np.flatnonzero(twice), twice.shape)
    assert one.shape == two.shape
    # Quantiles lie between other neighbours.
    assert np.abs(one - two).mean() < 0.35


@pytest.mark.parametrize("shape", [*SHAPES, (0, 4), (3, 0, 3, 3)])
def test_layers_without_edges_are_no_trouble(shape: tuple[int, ...]) -> None:
    found = sketch(np.zeros(0, dtype=np.int64), shape)
    assert np.isfinite(found).all()
    assert (
        found.shape
        == sketch(
            np.flatnonzero(edges(0, tuple(max(1, size) for size in shape))), tuple(max(1, size) for size in shape)
        ).shape
    )
