"""How likely an edge is at a position, by how full its row, its column and its place are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ticketguard.graph.degrees import MOST_LEVELS, expected_edges

Counts = list[np.ndarray]


def everywhere(counts: Counts) -> np.ndarray:
    shape = tuple(len(count) for count in counts)
    return expected_edges(counts, [ends.reshape(-1) for ends in np.indices(shape)]).reshape(shape)


def counts_of(mask: np.ndarray) -> Counts:
    return [mask.sum(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3)]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 9)),
    density=st.floats(0, 1),
    spread=st.floats(0, 2),
)
def test_what_is_expected_has_the_degrees_that_it_is_expected_of(
    seed: int, shape: tuple[int, int, int], density: float, spread: float
) -> None:
    luck = np.random.default_rng(seed)
    strength = [luck.lognormal(0, spread, size) for size in shape]
    likely = np.einsum("i,j,k->ijk", *strength)
    mask = luck.random(shape) < likely * density / likely.mean()
    counts = counts_of(mask)
    expected = everywhere(counts)
    assert expected.min() >= 0
    assert expected.max() <= 1
    # Half an edge keeps odds finite, and rounds end.
    for count, found in zip(counts, counts_of(expected), strict=True):
        assert np.abs(found - count).max() < 0.5 + 0.06 * count.max()


@pytest.mark.parametrize("density", [0.02, 0.3])
def test_full_rows_are_full_and_the_others_share_the_rest(density: float) -> None:
    luck = np.random.default_rng(0)
    mask = luck.random((200, 300, 1)) < density
    mask[:50] = True
    expected = everywhere(counts_of(mask))
    assert expected[:50].mean() == pytest.approx(1, abs=0.01)
    assert expected[50:].mean() == pytest.approx(density, rel=0.05)


def test_rows_of_all_sizes_are_told_apart_by_rank() -> None:
    """More sizes than are told apart: each row has what its neighbours in size have."""
    luck = np.random.default_rng(0)
    strength = np.linspace(0.05, 0.95, 400)
    mask = luck.random((400, 300, 1)) < strength[:, None, None]
    counts = counts_of(mask)
    assert len(np.unique(counts[0])) > 2 * MOST_LEVELS
    expected = everywhere(counts).mean(axis=(1, 2))
    assert np.abs(expected - counts[0] / 300).max() < 1.5 / MOST_LEVELS


def test_a_layer_without_edges_expects_none() -> None:
    counts = [np.zeros(size, dtype=np.int64) for size in (4, 3, 2)]
    assert not everywhere(counts).any()
    assert expected_edges([np.zeros(0, dtype=np.int64)] * 3, [np.zeros(0, dtype=np.int64)] * 3).shape == (0,)
